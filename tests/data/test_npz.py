"""Official .npz archives: PathMNIST, enlarged, and ImageNet at 32x32."""

import io
import os
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from image_files import enlarged, official, pretend, some_images, write_npz
from safetensors.numpy import load_file

from dd.data.config import load_datasets
from dd.data.load import manifest
from dd.data.npz import imagenet32, pathmnist
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import ConfigError, DataError


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return os._exit, (3,)

    def __repr__(self):
        return "Bomb()"  # without an address: a test's name must not change from one worker to the other


def refused(*words, error=DataError):
    """Expect an error that holds all these words, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def changed(file, **arrays):
    """Write an archive again with other arrays; None leaves one out."""
    with np.load(file, allow_pickle=True) as archive:
        kept = dict(archive)
    np.savez(file, **{name: array for name, array in {**kept, **arrays}.items() if array is not None})


# -- PathMNIST ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    data = some_images(9, 3, (28, 28))
    write_npz(tmp_path / "pathmnist.npz", data)
    return data


def test_pathmnist_is_enlarged_and_has_no_val(small, tmp_path):
    for found, (images, labels) in zip(pathmnist(tmp_path), small.values(), strict=True):
        assert found.images.dtype == np.uint8 and found.labels.dtype == np.int64 and found.class_names is None
        assert np.array_equal(found.images, enlarged(images)) and np.array_equal(found.labels, labels)
    assert pathmnist(tmp_path, 28)[1].images.tolist() == small["test"][0].tolist()


def test_pathmnist_against_interpolation_in_floats(small, tmp_path):
    import torch

    images = torch.from_numpy(small["train"][0]).double()
    for antialias in (True, False):
        exact = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False, antialias=antialias)
        assert (torch.from_numpy(pathmnist(tmp_path)[0].images) - exact).abs().max() <= 1.0 + 1e-9  # two passes are rounded


def test_pathmnist_from_a_folder_equals_the_download(tmp_path, monkeypatch):
    data, _ = official("pathmnist", tmp_path / "raw")
    pretend(monkeypatch, "pathmnist", data)
    copy = load_datasets({"pathmnist": {"source": {"kind": "npz", "path": str(tmp_path / "raw")}}}, "test")["pathmnist"]
    prepare("pathmnist", load_datasets({}, "test")["pathmnist"], tmp_path / "raw", tmp_path / "a")
    facts = prepare("pathmnist", copy, tmp_path, tmp_path / "b")
    assert facts == manifest(tmp_path / "a") and facts["size"] == [32, 32] and facts["flip"] is True
    assert facts["lineages"]["dc"]["mean"] == [0.7406, 0.5330, 0.7059] and facts["counts"] == {"train": [3] * 9, "test": [2] * 9}


def test_pathmnist_with_a_wild_label(small, tmp_path):
    changed(tmp_path / "pathmnist.npz", test_labels=np.full((18, 1), 9, np.uint8))
    source = load_datasets({"pathmnist": {"source": {"kind": "npz", "path": str(tmp_path)}}}, "test")["pathmnist"]
    with refused("dataset pathmnist", "test: label 9 (image 0) is out of range; allowed: 0 to 8"):
        prepare("pathmnist", source, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"train_images": None}, ["holds no array train_images; its arrays: test_images, test_labels, train_labels, val_images"]),
        ({"test_labels": None}, ["holds no array test_labels"]),
        ({"train_images": np.zeros((27, 28, 28, 3))}, ["train_images is float64 (27, 28, 28, 3); must be uint8 (images, 28, 28, 3)"]),
        ({"train_images": np.zeros((27, 28, 28), np.uint8)}, ["train_images is uint8 (27, 28, 28); must be"]),
        ({"test_images": np.zeros((18, 64, 64, 3), np.uint8)}, ["test_images is uint8 (18, 64, 64, 3); must be"]),
        ({"test_images": np.uint8(3)}, ["test_images is uint8 (1,); must be"]),
        ({"train_labels": np.zeros((27, 1))}, ["train_labels is float64 (27, 1); must be one integer for each image"]),
        ({"train_labels": np.zeros((27, 9), np.uint8)}, ["train_labels is uint8 (27, 9); must be one integer"]),
        ({"train_labels": np.array([Bomb()] * 27)}, ["train_labels: is damaged, or pickled, which is never read (Object arrays"]),
        ({"test_images": np.array([Bomb()] * 18)}, ["test_images: is damaged, or pickled"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_pathmnist_mistakes(arrays, words, small, tmp_path):
    changed(tmp_path / "pathmnist.npz", **arrays)
    with refused(tmp_path / "pathmnist.npz", *words):
        pathmnist(tmp_path)


def test_damaged_archives(small, tmp_path):
    file = tmp_path / "pathmnist.npz"
    whole = file.read_bytes()
    for share in (0.0, 0.001, 0.5, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        with refused(file, "is truncated, damaged or no .npz archive; delete it"):
            pathmnist(tmp_path)
    flipped = bytearray(whole)
    for position in range(len(whole) // 3, len(whole) // 2, 97):
        flipped[position] ^= 0x5A
    file.write_bytes(bytes(flipped))
    with refused(file, "is damaged, or pickled"):
        pathmnist(tmp_path)
    plain = io.BytesIO()
    np.save(plain, small["train"][0])
    file.write_bytes(plain.getvalue())
    with refused(file, "no .npz archive"):
        pathmnist(tmp_path)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train_images.npy", b"not an array")
    with refused(file, "train_images is |S12 (1,); must be uint8"):
        pathmnist(tmp_path)
    file.unlink()
    with refused(file, "no such file"):
        pathmnist(tmp_path)


# -- ImageNet at 32x32 --------------------------------------------------------------------------------------------------


def write_shards(root, seed=0):
    """Write 10 shards of 3 to 12 images and a val of 7; return the rows (n, 3072) and labels (1..1000) of both splits."""
    rng = np.random.default_rng(seed)
    root.mkdir(exist_ok=True)
    made = {"train": ([], []), "test": ([], [])}
    sizes = {f"train_data_batch_{n}": n + 2 for n in range(1, 11)}
    for name, size in {**sizes, "val_data": 7}.items():
        data, labels = rng.integers(0, 256, (size, 3072), dtype=np.uint8), rng.integers(1, 1001, size)
        np.savez(root / f"{name}.npz", data=data, labels=labels, mean=np.zeros(3072))
        for all_, part in zip(made["test" if name == "val_data" else "train"], (data, labels), strict=True):
            all_.append(part)
    return {split: tuple(map(np.concatenate, parts)) for split, parts in made.items()}


def test_imagenet32_joins_shards_in_the_order_of_their_numbers(tmp_path):
    made = write_shards(tmp_path)
    for found, (data, labels) in zip(imagenet32(tmp_path), made.values(), strict=True):
        assert found.images.shape == (len(labels), 3, 32, 32) and found.images.dtype == np.uint8 and found.labels.dtype == np.int64
        assert found.labels.tolist() == [label - 1 for label in labels.tolist()]
        for image, row in zip(found.images, data, strict=True):
            assert image[0, 0].tolist() == row[:32].tolist() and image[0, 1, 0] == row[32]
            assert image[1, 0, 0] == row[1024] and image[2, 31, 31] == row[3071]
    assert len(imagenet32(tmp_path)[0].labels) == sum(range(3, 13))


@pytest.mark.parametrize(
    ("file", "arrays", "words"),
    [
        ("train_data_batch_3", {"data": None}, ["holds no array data; its arrays: labels, mean"]),
        ("val_data", {"labels": None}, ["holds no array labels"]),
        (
            "val_data",
            {"labels": np.array([1, 2, 1000, 4, 1001, 6, 7])},
            ["labels: value 1001 (image 4) is out of range; allowed: 1 to 1000"],
        ),
        ("train_data_batch_10", {"labels": np.arange(12)}, ["labels: value 0 (image 0) is out of range"]),
        ("train_data_batch_1", {"labels": np.array([1, 2])}, ["data is uint8 (3, 3072); must be uint8 (2, 3072), one row for each label"]),
        ("train_data_batch_1", {"data": np.zeros((3, 3072), np.float32)}, ["data is float32 (3, 3072); must be uint8"]),
        ("train_data_batch_1", {"data": np.zeros((3, 12288), np.uint8)}, ["data is uint8 (3, 12288); must be uint8 (3, 3072)"]),
        ("train_data_batch_1", {"labels": np.array([Bomb()] * 3)}, ["labels: is damaged, or pickled, which is never read"]),
    ],
    ids=str,
)
def test_imagenet32_mistakes(file, arrays, words, tmp_path):
    write_shards(tmp_path)
    changed(tmp_path / f"{file}.npz", **arrays)
    with refused(tmp_path / f"{file}.npz", *words):
        imagenet32(tmp_path)


@pytest.mark.parametrize("file", ["train_data_batch_7.npz", "val_data.npz"])
def test_imagenet32_with_a_missing_file(file, tmp_path):
    write_shards(tmp_path)
    (tmp_path / file).unlink()
    with refused(tmp_path, f"holds no {file}; must hold train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz", "login"):
        imagenet32(tmp_path)


def test_imagenet32_is_prepared_with_the_statistics_of_its_pixels(tmp_path, monkeypatch):
    made = write_shards(tmp_path / "raw")
    rows = {"train": 75, "test": 7}
    for file, rename in (("train_data_batch_{}", range(1, 11)), ("val_data", [0])):  # three classes, so that each has images
        for number in rename:
            path = tmp_path / "raw" / f"{file.format(number)}.npz"
            with np.load(path) as archive:
                changed(path, labels=np.arange(len(archive["labels"])) % 3 + 1)
    monkeypatch.setitem(DATASETS, "imagenet32", replace(DATASETS["imagenet32"], classes=("0", "1", "2"), **rows))
    source = load_datasets({"imagenet32": {"source": {"kind": "npz", "path": str(tmp_path / "raw")}}}, "test")["imagenet32"]
    facts = prepare("imagenet32", source, tmp_path, tmp_path / "out")
    assert facts["classes"] == ["0", "1", "2"] and facts["counts"]["test"] == [3, 2, 2] and facts["size"] == [32, 32]
    x = made["train"][0].reshape(-1, 3, 1024) / 255
    assert np.allclose(facts["lineages"]["dc"]["mean"], x.mean((0, 2)), atol=1e-6)
    there = load_file(tmp_path / "out" / "train.safetensors")["images"]
    assert sorted(image.tobytes() for image in there) == sorted(row.tobytes() for row in made["train"][0])
    with refused("train has 75 images, imagenet32 has 1281167"):
        monkeypatch.setitem(DATASETS, "imagenet32", replace(DATASETS["imagenet32"], train=1_281_167))
        prepare("imagenet32", source, tmp_path, tmp_path / "out")


def test_imagenet32_without_a_source_says_where_to_get_it(tmp_path):
    words = ("config.yaml: datasets.imagenet32: source: is missing: the downsampled ImageNet needs a login at https://image-net.org",
             "Imagenet32_train_npz.zip", "then write {kind: npz, path: that folder}")  # fmt: skip
    with refused(*words, error=ConfigError):
        prepare("imagenet32", load_datasets({}, "test")["imagenet32"], tmp_path, tmp_path / "out")
