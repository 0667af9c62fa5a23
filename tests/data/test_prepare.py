"""The prepared form: equal images give equal files, and what does not fit is refused."""

import hashlib
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_files import cifar_members, official, pretend, some_images, write_folder, write_idx, write_parquet, write_tar
from safetensors.numpy import load_file

from dd.artifacts import read_json, write_json
from dd.data.config import DatasetConfig, load_datasets
from dd.data.digits import upsample
from dd.data.load import indices, load, manifest, positions
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import ArtifactError, ConfigError, DataError

FILES = ["holdout.safetensors", "manifest.json", "test.safetensors", "train.safetensors"]


def config(kind, path, name="mine", **more) -> DatasetConfig:
    return load_datasets({name: {"source": {"kind": kind, "path": str(path)}, **more}}, "config.yaml: datasets")[name]


def content(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def mine(tmp_path):
    """Return the folder of a prepared dataset of 4 classes and its images."""
    data = some_images(4, 3, (5, 7), train=20)
    prepare("mine", config("folder", write_folder(tmp_path / "images", data, list("abcd"))), tmp_path, tmp_path / "out")
    return tmp_path / "out", data


def test_equal_images_give_equal_files_from_idx_parquet_and_folder(tmp_path):
    data, numbers = some_images(10, 1, (9, 8)), [str(c) for c in range(10)]
    shuffled = {split: (x[::-1].copy(), y[::-1].copy()) for split, (x, y) in data.items()}
    made = {
        "idx": write_idx(tmp_path / "idx", data),
        "folder": write_folder(tmp_path / "folder", shuffled, numbers),
        "parquet": write_parquet(tmp_path / "parquet", shuffled, numbers),
    }
    for kind, path in made.items():
        prepare("mine", config(kind, path), tmp_path, tmp_path / f"out-{kind}")
    assert content(tmp_path / "out-idx") == content(tmp_path / "out-folder") == content(tmp_path / "out-parquet")


@pytest.mark.parametrize("name", [name for name, spec in DATASETS.items() if spec.downloads and spec.layout != "speech"])
def test_equal_images_give_equal_files_from_download_parquet_and_folder(name, tmp_path, monkeypatch):
    data, _ = official(name, tmp_path / "raw")
    pretend(monkeypatch, name, data)
    classes = list(DATASETS[name].classes)
    numbers = [str(c) for c in range(len(classes))]
    folders = classes if "T-shirt/top" not in classes else numbers
    sources = {
        "download": load_datasets({}, "test")[name],
        "parquet": config("parquet", write_parquet(tmp_path / "parquet", data, form="PNG"), name),
        "named": config("parquet", write_parquet(tmp_path / "named", data, classes, "image", "fine_label"), name),
        "folder": config("folder", write_folder(tmp_path / "folder", data, folders), name),
        "numbered": config("folder", write_folder(tmp_path / "numbered", data, numbers), name),
    }
    for kind, source in sources.items():
        prepare(name, source, tmp_path / "raw", tmp_path / f"out-{kind}")
    first, *others = [content(tmp_path / f"out-{kind}") for kind in sources]
    assert all(other == first for other in others)


def test_lossless_webp_equals_png(tmp_path):
    data = some_images(3, 3, (8, 8))
    for form in ("PNG", "WEBP"):
        prepare("mine", config("parquet", write_parquet(tmp_path / form, data, form=form)), tmp_path, tmp_path / f"out-{form}")
    assert content(tmp_path / "out-PNG") == content(tmp_path / "out-WEBP")


def test_classes_of_a_registered_dataset_in_another_order_are_renumbered(tmp_path, monkeypatch):
    data, _ = official("cifar10", tmp_path / "raw")
    pretend(monkeypatch, "cifar10", data)
    prepare("cifar10", load_datasets({}, "test")["cifar10"], tmp_path / "raw", tmp_path / "a")
    turned = {split: (x, 9 - y) for split, (x, y) in data.items()}
    source = write_parquet(tmp_path / "parquet", turned, list(DATASETS["cifar10"].classes)[::-1])
    prepare("cifar10", config("parquet", source, "cifar10"), tmp_path, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_order_holdout_and_counts_against_naive_ones(mine):
    folder, data = mine
    train = load_file(folder / "train.safetensors")
    images, labels = data["train"]
    rows = sorted((int(c), hashlib.sha256(x.tobytes()).hexdigest(), n) for n, (x, c) in enumerate(zip(images, labels, strict=True)))
    assert np.array_equal(train["images"], np.stack([images[n] for *_, n in rows])) and train["images"].dtype == np.uint8
    assert train["labels"].tolist() == [c for c, *_ in rows] and train["labels"].dtype == np.int64
    expected = []
    for c in range(4):
        members = [n for n in range(80) if train["labels"][n] == c]
        members.sort(key=lambda n: hashlib.sha256(b"holdout" + train["images"][n].tobytes()).hexdigest())
        expected += members[:2]
    assert indices(folder).tolist() == sorted(expected) and indices(folder).dtype == torch.int64
    facts = manifest(folder)
    assert facts["counts"] == {"train": [20] * 4, "test": [2] * 4} and facts["smallest_class"] == 20
    assert (facts["name"], facts["classes"], facts["channels"], facts["size"], facts["flip"]) == ("mine", list("abcd"), 3, [5, 7], True)
    assert facts["range"] == [0.0, 1.0] and facts["augment"] is True and "downloads" not in facts


def test_a_manifest_from_before_sounds_is_one_of_images(mine):
    path = mine[0] / "manifest.json"
    facts = read_json(path)
    write_json(path, {key: value for key, value in facts.items() if key not in ("range", "augment")})
    assert manifest(mine[0]) == facts and load(mine[0], "train")[0].dtype == torch.uint8


def test_statistics_are_those_of_the_pixels(mine):
    folder, data = mine
    x = data["train"][0].astype(np.float64) / 255
    for lineage in ("dc", "idc"):
        stated = manifest(folder)["lineages"][lineage]
        assert np.allclose(stated["mean"], x.mean((0, 2, 3)), atol=1e-6) and np.allclose(stated["std"], x.std((0, 2, 3)), atol=1e-6)


def test_statistics_and_flip_of_the_configuration(mine, tmp_path):
    source = config("folder", tmp_path / "images", mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0], flip=False)
    facts = prepare("mine", source, tmp_path, tmp_path / "other")
    assert facts["lineages"] == {lineage: {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]} for lineage in ("dc", "idc")}
    assert facts["flip"] is False and facts["fingerprint"] == manifest(mine[0])["fingerprint"]
    with pytest.raises(DataError, match=r"mine .*mean: value \[0\.5\] has 1 numbers, the images have 3 channels"):
        prepare("mine", config("folder", tmp_path / "images", mean=[0.5]), tmp_path, tmp_path / "other")


def test_registered_statistics(tmp_path, monkeypatch):
    data, _ = official("cifar100", tmp_path / "raw")
    pretend(monkeypatch, "cifar100", data)
    facts = prepare("cifar100", load_datasets({}, "test")["cifar100"], tmp_path / "raw", tmp_path / "out")
    assert facts["lineages"]["dc"]["mean"] == [0.5071, 0.4866, 0.4409]
    assert facts["lineages"]["idc"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}


def test_the_fingerprint_depends_on_pixels_labels_split_and_names(mine, tmp_path):
    prints = {manifest(mine[0])["fingerprint"]}
    naive = hashlib.sha256(b'["a","b","c","d"]')  # class names, then split, shape, pixels and labels in the prepared order
    for split in ("test", "train"):
        there = load_file(mine[0] / f"{split}.safetensors")
        naive.update(f"{split}:{there['images'].shape}".encode() + there["images"].tobytes() + there["labels"].tobytes())
    assert prints == {naive.hexdigest()}
    pixel, label, swapped = (some_images(4, 3, (5, 7), train=20) for _ in range(3))
    pixel["test"][0][0, 0, 0, 0] ^= 1
    label["train"][1][:] = (label["train"][1] + 1) % 4
    swapped["train"], swapped["test"] = swapped["test"], swapped["train"]
    for n, (data, names) in enumerate([(pixel, "abcd"), (label, "abcd"), (swapped, "abcd"), (mine[1], "abce")]):
        source = config("folder", write_folder(tmp_path / f"v{n}", data, list(names)))
        prints.add(prepare("mine", source, tmp_path, tmp_path / f"w{n}")["fingerprint"])
    assert len(prints) == 5


# -- digits -------------------------------------------------------------------------------------------------------------


def test_digits(digits_dir):
    facts, spec = manifest(digits_dir), DATASETS["digits"]
    train, test = load(digits_dir, "train"), load(digits_dir, "test")
    assert train[0].shape == (1437, 1, 16, 16) and test[0].shape == (360, 1, 16, 16)
    assert facts["fingerprint"] == spec.fingerprint and facts["smallest_class"] == spec.smallest_class and facts["flip"] is False
    share = torch.bincount(test[1]) / (torch.bincount(test[1]) + torch.bincount(train[1]))
    assert (share - 360 / 1797).abs().max() < 0.006  # less than one image of a class
    every = [x.numpy().tobytes() for x in (*train[0], *test[0])]
    from sklearn.datasets import load_digits

    assert sorted(every) == sorted(x.tobytes() for x in upsample(load_digits().images.astype(np.int64)))


def test_digits_are_bilinear_in_exact_arithmetic():
    from sklearn.datasets import load_digits

    images = load_digits().images
    float_ = torch.nn.functional.interpolate(torch.from_numpy(images)[:, None], scale_factor=2, mode="bilinear", align_corners=False)
    expected = (float_[:, 0] * 255 / 16 + 0.5).floor().numpy()  # exact: all numbers are multiples of 1/256
    assert np.array_equal(upsample(images.astype(np.int64)), expected) and expected.max() == 255 and expected.min() == 0


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "parquet", "idx", "wav"])
def test_a_path_that_does_not_exist(kind, tmp_path):
    with pytest.raises(ConfigError, match=rf"^config\.yaml: datasets\.mine: source\.path: value '{tmp_path}/no': no such folder"):
        prepare("mine", config(kind, tmp_path / "no"), tmp_path, tmp_path / "out")


def test_a_label_out_of_range(tmp_path, monkeypatch):
    data = some_images(3, 3, (8, 8))
    data["test"][1][4] = 3
    source = config("parquet", write_parquet(tmp_path / "p", data, ["a", "b", "c"], shards=1))
    with pytest.raises(DataError, match=rf"dataset mine \({tmp_path}/p\): test: label 3 \(image 4\) is out of range; allowed: 0 to 2"):
        prepare("mine", source, tmp_path, tmp_path / "out")
    data["test"][1][4], data["train"][1][1] = 0, 10**9
    source = config("parquet", write_parquet(tmp_path / "p", data, shards=1))
    with pytest.raises(DataError, match=r"train: label 1000000000 \(image 1\) is out of range"):
        prepare("mine", source, tmp_path, tmp_path / "out")
    data["train"][1][1] = -1
    with pytest.raises(DataError, match=r"train: label -1 \(image 1\) is out of range"):
        prepare("mine", config("parquet", write_parquet(tmp_path / "p", data, shards=1)), tmp_path, tmp_path / "out")
    data, _ = official("cifar10", tmp_path / "raw")
    data["train"][1][7] = 10
    write_tar(tmp_path / "raw" / "cifar-10-binary.tar.gz", cifar_members(data, 10))
    with pytest.raises(DataError, match=r"dataset cifar10 \(.*raw\): train: label 10 \(image 7\) is out of range; allowed: 0 to 9"):
        prepare("cifar10", load_datasets({}, "test")["cifar10"], tmp_path / "raw", tmp_path / "out")


def test_splits_of_different_sizes(tmp_path):
    data = some_images(3, 3, (8, 8)) | {"test": some_images(3, 3, (8, 9))["test"]}
    with pytest.raises(DataError, match=r"mine .*test: images have .* = \(3, 8, 9\), those of train have \(3, 8, 8\)"):
        prepare("mine", config("parquet", write_parquet(tmp_path / "p", data)), tmp_path, tmp_path / "out")


def test_images_of_another_size_than_registered(tmp_path):
    source = config("folder", write_folder(tmp_path / "f", some_images(10, 3, (28, 28)), list("0123456789")), "mnist")
    with pytest.raises(DataError, match=r"mnist .*\(3, 28, 28\), the registered ones have \(1, 28, 28\)"):
        prepare("mnist", source, tmp_path, tmp_path / "out")


def test_a_part_of_a_registered_dataset(tmp_path):
    source = config("folder", write_folder(tmp_path / "f", some_images(10, 1, (28, 28)), list("0123456789")), "mnist")
    with pytest.raises(DataError, match=r"train has 30 images, mnist has 60000; .* name of its own"):
        prepare("mnist", source, tmp_path, tmp_path / "out")
    names = list(DATASETS["cifar10"].classes)  # has a fingerprint, which says less than a count
    source = config("folder", write_folder(tmp_path / "g", some_images(10, 3, (32, 32)), names), "cifar10")
    with pytest.raises(DataError, match=r"train has 30 images, cifar10 has 50000; .* name of its own"):
        prepare("cifar10", source, tmp_path, tmp_path / "out")


def test_a_class_without_images(tmp_path):
    data = some_images(3, 3, (8, 8))
    keep = data["test"][1] != 1
    data["test"] = (data["test"][0][keep], data["test"][1][keep])
    with pytest.raises(DataError, match=r"mine .*test: no image of class 'b' \(label 1\)"):
        prepare("mine", config("parquet", write_parquet(tmp_path / "p", data, list("abc"))), tmp_path, tmp_path / "out")


def test_as_many_labels_as_images_and_at_least_one(tmp_path):
    data = some_images(3, 1, (8, 8))
    write_idx(tmp_path / "i", {**data, "train": (data["train"][0], data["train"][1][:-1])})
    with pytest.raises(DataError, match=r"mine .*train: 9 images, but 8 labels"):
        prepare("mine", config("idx", tmp_path / "i"), tmp_path, tmp_path / "out")
    write_idx(tmp_path / "i", {**data, "train": (data["train"][0][:0], data["train"][1][:0])})
    with pytest.raises(DataError, match=r"mine .*train: has no images"):
        prepare("mine", config("idx", tmp_path / "i"), tmp_path, tmp_path / "out")


def test_a_fingerprint_that_differs(mine, tmp_path, monkeypatch):
    true, pinned = manifest(mine[0])["fingerprint"], "0" * 64
    with pytest.raises(DataError, match=rf"mine .*config\.yaml pins: their fingerprint is {true}, pinned is {pinned}"):
        prepare("mine", config("folder", tmp_path / "images", fingerprint=pinned), tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    prepare("mine", config("folder", tmp_path / "images", fingerprint=true), tmp_path, tmp_path / "new")
    true = DATASETS["digits"].fingerprint
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], fingerprint=pinned))
    with pytest.raises(DataError, match=rf"registry\.py pins: their fingerprint is {true}, pinned is {pinned}"):
        prepare("digits", load_datasets({}, "test")["digits"], tmp_path, tmp_path / "newer")


# -- loading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "test", "holdout"])
def test_corrupted_prepared_files(name, mine):
    folder, _ = mine
    read = {"holdout": lambda: indices(folder)}.get(name, lambda: load(folder, name))
    read()
    file = folder / f"{name}.safetensors"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    for damaged in (bytes(flipped), whole[:-1], whole[:20], b""):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=rf"{file}: is damaged"):
            read()
    file.unlink()
    with pytest.raises(ArtifactError, match=rf"{file}: no such file"):
        read()


def test_corrupted_manifest(mine):
    path = mine[0] / "manifest.json"
    facts = read_json(path)
    for text, words in ((path.read_text()[:-1], "not readable JSON"), ("[]", "has no .*channels"), ('{"name": "mine"}', "has no channels")):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=rf"{path}: .*{words}"):
            manifest(mine[0])
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{path}: no such file"):
        load(mine[0], "train")
    assert math.isclose(facts["lineages"]["dc"]["mean"][0], 0.5, abs_tol=0.05)


def test_files_of_another_dataset(mine, digits_dir):
    for name, read in (("test", lambda: load(mine[0], "test")), ("holdout", lambda: indices(mine[0]))):
        shutil.copy(digits_dir / f"{name}.safetensors", mine[0])
        with pytest.raises(ArtifactError, match=f"{name}.safetensors: is not the {name} split of the dataset that manifest"):
            read()
    shutil.copy(mine[0] / "train.safetensors", mine[0] / "test.safetensors")
    with pytest.raises(ArtifactError, match="is not the test split"):
        load(mine[0], "test")
    with pytest.raises(ConfigError, match=r"split: value 'hold'; did you mean 'holdout'. allowed: fit, holdout, test, train"):
        load(mine[0], "hold")


def test_holdout_and_fit_part_train(mine):
    folder, _ = mine
    images, labels = load(folder, "train")
    held = set(indices(folder).tolist())
    for split, kept in (("holdout", sorted(held)), ("fit", [k for k in range(80) if k not in held]), ("train", list(range(80)))):
        x, y = load(folder, split)
        assert torch.equal(x, images[kept]) and torch.equal(y, labels[kept])
        assert positions(folder, split).tolist() == kept and positions(folder, split).dtype == torch.int64
        assert y.tolist() == sorted(y.tolist()), "the prepared order"
    assert [len(load(folder, split)[1]) for split in ("holdout", "fit")] == [8, 72]
    assert torch.bincount(load(folder, "holdout")[1]).tolist() == [2] * 4
    with pytest.raises(ConfigError, match=r"split: value 'test'.* allowed: fit, holdout, train"):
        positions(folder, "test")
