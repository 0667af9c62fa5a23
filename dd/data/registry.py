"""The datasets that are known by name. Read by the workflow: imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dd.data.imagenet_subsets import IMAGEFRUIT, IMAGENETTE, POSITIONS
from dd.errors import ConfigError, DataError, nearest

Stats = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Download:
    """One file of a dataset: its name, addresses that are tried in order, and the checksum, "md5:..." or "sha256:...".

    No checksum, where nobody publishes one: see `dd.data.noted`; the file must be a .zip and its addresses https.
    """

    file: str
    urls: tuple[str, ...]
    checksum: str | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset before it is there.

    lineages: mean and std in raw units ([0, 1] for images), by lineage of papers ("dc", "idc"); empty: computed from train.
    flip: whether a mirrored image is still of its class. smallest_class: images in the smallest class of train.
    layout: which reader understands the official files (idx: `readers.idx`; cifar, svhn: `dd.data.official`; speech: `dd.data.clips`;
    pathmnist, imagenet32: `dd.data.npz`; imagenet: `dd.data.imagenet`; tiny_imagenet: `dd.data.tiny`; digits: no files).
    fingerprint: of the prepared set, where somebody has prepared the official files.
    obtain: how a person gets the files, where there are no downloads. counted: whether somebody counted train; if not, `train` is the
    most that it can have, and `smallest_class` the least that a class can have. wnids: a subset of ImageNet, the folder of each class.
    positions: the same, but where the folder of each class stands, from 0, among the sorted folders of all 1,000 classes.
    numbered: class N stands for the Nth of the sorted wnids, which the registry does not list.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    train: int
    test: int
    smallest_class: int
    flip: bool = True
    lineages: dict[str, Stats] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    layout: Literal["digits", "idx", "cifar", "svhn", "speech", "pathmnist", "imagenet32", "imagenet", "tiny_imagenet"] = "idx"
    fingerprint: str | None = None
    obtain: str = ""
    counted: bool = True
    wnids: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    numbered: bool = False

    def check_count(self, where: str, split: str, there: int) -> None:
        """Check how many images a split ("train" or "test") has; `where` names the dataset.

        Raises:
            DataError: they are too few or too many.
        """
        most = self.train if split == "train" else self.test
        least = most if self.counted or split == "test" else self.smallest_class * len(self.classes)
        if not least <= there <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise DataError(
                f"{where}: {split} has {there} images, {self.name} has {expected}; a part of it needs a name of its own in config.yaml"
            )


def _both(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Stats]:
    return {"dc": (mean, std), "idc": (mean, std)}


def _both_ways(address: str) -> tuple[str, str]:
    """Return https first, then the plain http that the authors publish: which bytes are right, the checksum says."""
    return f"https://{address}", f"http://{address}"


def _mnist(mirrors: tuple[str, ...], sums: tuple[str, str, str, str]) -> tuple[Download, ...]:
    files = [f"{split}-{what}-ubyte.gz" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    return tuple(Download(f, tuple(f"{mirror}{f}" for mirror in mirrors), f"md5:{s}") for f, s in zip(files, sums, strict=True))


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OBTAIN_IMAGENET = (
    "ImageNet (ILSVRC2012) needs a login at https://image-net.org: get the images of train and val, with a folder for each class in both"
)


def _subset(
    name: str,
    size: int,
    classes: tuple[str, ...],
    *,
    wnids: tuple[str, ...] = (),
    positions: tuple[int, ...] = (),
    train: int = 13_000,
    smallest_class: int = 732,
    counted: bool = False,
) -> DatasetSpec:
    """Return a subset of ImageNet (see `dd.data.imagenet`), found by `wnids` or `positions`.

    A class of ImageNet has 732 to 1,300 images in train, and 50 in val.
    """
    return DatasetSpec(
        name,
        classes,
        3,
        (size, size),
        train=train,
        test=50 * len(classes),
        smallest_class=smallest_class,
        counted=counted,
        layout="imagenet",
        lineages=_both(*_IMAGENET),
        wnids=wnids,
        positions=positions,
        obtain=_OBTAIN_IMAGENET,
    )


# The usual std of CIFAR-10 is the mean of per-image stds, not the std of the pixels (0.247, 0.243, 0.262); the papers use it.
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
_DIGITS = tuple(str(digit) for digit in range(10))

_CIFAR100_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish "
    "forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle "
    "mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine "
    "possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale "
    "willow_tree wolf woman worm "
)

_PATHMNIST_CLASSES = (
    "adipose",
    "background",
    "debris",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "normal colon mucosa",
    "cancer-associated stroma",
    "colorectal adenocarcinoma epithelium",
)

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "digits",
            _DIGITS,
            1,
            (16, 16),
            train=1437,
            test=360,
            smallest_class=139,
            flip=False,
            layout="digits",
            obtain="it comes with scikit-learn",
            fingerprint="882d5dd7be6bdee57bec4867c0dcea1a92495d0d26e511a8b339c7f3649154e4",
        ),
        DatasetSpec(
            "mnist",
            _DIGITS,
            1,
            (28, 28),
            train=60_000,
            test=10_000,
            smallest_class=5421,
            flip=False,
            lineages=_both((0.1307,), (0.3081,)),
            downloads=_mnist(
                ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
                (
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
            ),
        ),
        DatasetSpec(
            "fashion_mnist",
            ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            1,
            (28, 28),
            train=60_000,
            test=10_000,
            smallest_class=6000,
            lineages=_both((0.2861,), (0.3530,)),
            fingerprint="621ea0574d22e29c96580cd6788b7bbe28663f775a03577c40caf7de3e53b69d",
            downloads=_mnist(
                (
                    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                ),
                (
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                ),
            ),
        ),
        DatasetSpec(
            "svhn",
            _DIGITS,
            3,
            (32, 32),
            train=73_257,
            test=26_032,
            smallest_class=4659,
            flip=False,
            layout="svhn",
            lineages=_both((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
            downloads=(
                Download(
                    "train_32x32.mat",
                    _both_ways("ufldl.stanford.edu/housenumbers/train_32x32.mat"),
                    "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
                ),
                Download(
                    "test_32x32.mat",
                    _both_ways("ufldl.stanford.edu/housenumbers/test_32x32.mat"),
                    "md5:eb5a983be6a315427106f1b164d9cef3",
                ),
            ),
        ),
        DatasetSpec(
            "cifar10",
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            3,
            (32, 32),
            train=50_000,
            test=10_000,
            smallest_class=5000,
            lineages=_both(*_CIFAR10),
            layout="cifar",
            fingerprint="4ef0866a4fc9ffa804e5e0e675c30eb8eb788931875bb3065f7bc96811c94401",
            downloads=(
                Download(
                    "cifar-10-binary.tar.gz",
                    (
                        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/cifar-10-binary.tar.gz",
                    ),
                    "md5:c32a1d4ab5d03f1284b67883e8d87530",
                ),
            ),
        ),
        DatasetSpec(
            "cifar100",
            tuple(_CIFAR100_CLASSES.split()),
            3,
            (32, 32),
            train=50_000,
            test=10_000,
            smallest_class=500,
            layout="cifar",
            # IDC's lineage (IDC, DSDM, M3D) uses CIFAR-10's statistics for CIFAR-100 as well.
            lineages={"dc": _CIFAR100, "idc": _CIFAR10},
            downloads=(
                Download(
                    "cifar-100-binary.tar.gz",
                    ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
                    "md5:03b5dce01913d631647c71ecec9e9cb8",
                ),
            ),
        ),
        # The archive has 28x28 images; they are stored enlarged to 32x32 (`dd.data.npz`), as the ConvNets for 3 channels need them.
        # Its val split is not used: train and test are the papers'.
        DatasetSpec(
            "pathmnist",
            _PATHMNIST_CLASSES,
            3,
            (32, 32),
            train=89_996,
            test=7180,
            smallest_class=7886,
            layout="pathmnist",
            lineages=_both((0.7406, 0.5330, 0.7059), (0.1237, 0.1767, 0.1244)),
            downloads=(
                Download(
                    "pathmnist.npz",
                    ("https://zenodo.org/records/10519652/files/pathmnist.npz",),
                    "md5:a8b06965200029087d5bd730944a56c1",
                ),
            ),
        ),
        # The classes have numbers for names: their order is that of the archive's own list (map_clsloc.txt), not of the sorted wnids.
        # No paper here states its mean and std.
        DatasetSpec(
            "imagenet32",
            tuple(str(label) for label in range(1000)),
            3,
            (32, 32),
            train=1_281_167,
            test=50_000,
            smallest_class=732,
            layout="imagenet32",
            obtain="the downsampled ImageNet needs a login at https://image-net.org: get the npz files of 32x32, "
            "Imagenet32_train_npz.zip and Imagenet32_val_npz.zip, and unpack both into one folder",
        ),
        # ELF's and TESLA's ImageNet-1K: every image squeezed to 64x64, from the same folder as the subsets.
        DatasetSpec(
            "imagenet64",
            tuple(str(label) for label in range(1000)),
            3,
            (64, 64),
            train=1_281_167,
            test=50_000,
            smallest_class=732,
            layout="imagenet",
            lineages=_both(*_IMAGENET),
            obtain=_OBTAIN_IMAGENET,
            numbered=True,
        ),
        # Test is the archive's val: its own test split has no labels.
        DatasetSpec(
            "tiny_imagenet",
            tuple(str(label) for label in range(200)),
            3,
            (64, 64),
            train=100_000,
            test=10_000,
            smallest_class=500,
            layout="tiny_imagenet",
            lineages=_both(*_IMAGENET),
            numbered=True,
            downloads=(
                Download(
                    "tiny-imagenet-200.zip",
                    _both_ways("cs231n.stanford.edu/tiny-imagenet-200.zip"),
                    "md5:90528d7ca1a48142e341f4ef8d21d0de",
                ),
            ),
        ),
        # CLoM's subsets.
        _subset("imagenette", 224, tuple(IMAGENETTE), wnids=tuple(IMAGENETTE.values()), train=12_894, smallest_class=1194, counted=True),
        _subset("imagefruit", 224, tuple(IMAGEFRUIT), wnids=tuple(IMAGEFRUIT.values())),
        # H-PD's subsets, imagenet_a_128 to imagemeow_256.
        *(
            _subset(f"{name}_{size}", size, tuple(places), positions=tuple(places.values()))
            for name, places in POSITIONS.items()
            for size in (128, 256)
        ),
        DatasetSpec(
            "mini_speech_commands",
            ("yes", "no", "go", "stop", "left", "right", "up", "down"),
            1,
            (64, 64),
            train=7000,
            test=1000,
            smallest_class=875,
            flip=False,
            layout="speech",
            downloads=(
                Download(
                    "mini_speech_commands.zip",
                    ("https://storage.googleapis.com/download.tensorflow.org/data/mini_speech_commands.zip",),
                ),
            ),
        ),
    )
}


def spec(name: str) -> DatasetSpec:
    """Return what is known of a dataset.

    Raises:
        ConfigError: it is not registered.
    """
    if name not in DATASETS:
        raise ConfigError(f"dataset: no registered dataset {name!r}{nearest(name, DATASETS)}")
    return DATASETS[name]


def raw_files(name: str) -> list[str]:
    """Return the names of the files that `download` fetches."""
    return [download.file for download in spec(name).downloads]
