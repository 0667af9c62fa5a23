"""Generators from files that others trained: which there are, what their labels mean, and how a file is checked and installed.

Importing this imports no torch: plans are checked with it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dd.data.imagenet_subsets import POSITIONS
from dd.data.registry import DATASETS
from dd.errors import ConfigError, DataError, nearest
from dd.weights import WeightsOf

CHANNELS = 3
SHOWN = 6  # datasets that a message names


@dataclass(frozen=True)
class GeneratorFile:
    """A published StyleGAN-XL, which `docs/convert_stylegan_xl.py` converts.

    size: (height, width) of its images in pixels; 3 channels. classes: that it knows. knows: whose classes these are, in which order:
    ImageNet's 1,000 by their sorted wnids, or CIFAR-10's ten. published: the file to convert, for messages.
    """

    size: tuple[int, int]
    classes: int
    knows: Literal["imagenet", "cifar10"]
    published: str


FILES: dict[str, GeneratorFile] = {
    "stylegan_xl_128": GeneratorFile((128, 128), 1000, "imagenet", "StyleGAN-XL's imagenet128.pkl"),
    "stylegan_xl_256": GeneratorFile((256, 256), 1000, "imagenet", "StyleGAN-XL's imagenet256.pkl"),
    "stylegan_xl_cifar10": GeneratorFile((32, 32), 10, "cifar10", "StyleGAN-XL's cifar10.pkl"),
}


def class_ids(dataset: str) -> list[int] | None:
    """Return ImageNet's number, 0 to 999, of each class of a dataset, in the order of its labels.

    That is the place of a class among the sorted wnids, as generators and networks of ImageNet count.

    Returns:
        None for a dataset that is no part of ImageNet, or of which that is not known (imagenet32 has an order of its own).
    """
    if dataset not in DATASETS:
        return None
    spec = DATASETS[dataset]
    if spec.positions:
        return list(spec.positions)
    if spec.wnids:  # at the papers' first size, where folders are found by name
        return list(POSITIONS[dataset].values())
    if spec.numbered and len(spec.classes) == 1000:
        return list(range(1000))
    return None


def classes_of(name: str, dataset: str) -> list[int] | None:
    """Return which class of the generator `name` each label of a dataset means; None for one that was trained on that dataset itself."""
    if name not in FILES:
        return None
    return class_ids(dataset) if FILES[name].knows == "imagenet" else list(range(FILES[name].classes))


def check(name: str, dataset: str) -> None:
    """Check that the generator `name` makes images of a dataset: its channels, its size, its classes.

    Raises:
        ConfigError: it does not, or it is not known: the dataset is not registered.
    """
    if dataset not in fitting(name):
        file, spec = FILES[name], DATASETS.get(dataset)
        own = f"those of {dataset} are {(spec.channels, *spec.size)}" if spec else f"{dataset} is a dataset of your own"
        whose = "ImageNet's classes" if file.knows == "imagenet" else "the classes of CIFAR-10"
        allowed = fitting(name)
        more = f" and {len(allowed) - SHOWN} more" if len(allowed) > SHOWN else ""
        raise ConfigError(
            f"generator: {name} makes images of {(CHANNELS, *file.size)} of {whose}, {own}; "
            f"datasets that it can make: {', '.join(allowed[:SHOWN])}{more}"
        )


def fitting(name: str) -> list[str]:
    """Return the registered datasets whose images the generator `name` can make."""
    file = FILES[name]
    known = [spec.name for spec in DATASETS.values() if (spec.channels, *spec.size) == (CHANNELS, *file.size)]
    return [one for one in known if (class_ids(one) is not None if file.knows == "imagenet" else one == file.knows)]


def install(name: str, source: Path | None, sha256: str | None, out: Path) -> None:
    """Check a converted file of the generator `name`, and copy it to `out`, byte for byte.

    Args:
        source: the file that docs/convert_stylegan_xl.py wrote; None where there is none.
        sha256: of that file, as 64 hex digits; None accepts any.

    Raises:
        ConfigError: an unknown name, no file, one that is not there or would have to be unpickled, or a malformed sha256.
        DataError: of another sha256, or of other images or classes than `name` says.
        ArtifactError: damaged, not a converted StyleGAN-XL, one that does not reproduce the samples of the authors' code
            (`dd.generators.stylegan_xl.check`), or `out` cannot be written.
    """
    check_name(name, "generators")
    about = WeightsOf("generators", "generator", name, FILES[name].published, "docs/generators.md")
    path, _ = about.checked(source, sha256)

    from dd.artifacts import atomic
    from dd.generators import stylegan_xl

    file, net = FILES[name], stylegan_xl.load(path)
    made, wanted = (net.channels, *net.size, net.classes), (CHANNELS, *file.size, file.classes)
    if made != wanted:
        words = "images of {0}x{1}x{2} of {3} classes"
        raise DataError(f"{path}: makes {words.format(*made)}; {name} is {words.format(*wanted)}, from {file.published}")
    del net  # `check` reads it again, and two of them may not fit into memory
    stylegan_xl.check(path)
    with atomic(out) as temporary:
        shutil.copyfile(path, temporary)


def check_name(name: str, where: str) -> None:
    """Check that there is such a generator from a file.

    Raises:
        ConfigError: there is not; `where` comes first in its message.
    """
    if name not in FILES:
        raise ConfigError(f"{where}: no generator from a file is called {name!r}{nearest(name, FILES)}")
