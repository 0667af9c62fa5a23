"""GLaD's and H-PD's subsets of ImageNet: classes found by their places among all 1,000 folders."""

import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dd.data.config import load_datasets
from dd.data.imagenet import read
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import DataError

# As the papers' lists have them, in the order of the labels.
LISTS = {
    "imagenet_a": "255 376 984 364 500 986 333 576 148 135",
    "imagenet_b": "129 916 90 275 995 874 102 259 685 139",
    "imagenet_c": "565 94 554 535 92 392 291 136 324 11",
    "imagenet_d": "9 258 13 262 19 339 321 24 93 322",
    "imagenet_e": "816 96 100 145 739 713 783 76 688 326",
    "imagenette": "0 217 482 491 497 566 569 571 574 701",
    "imagewoof": "193 182 258 162 155 167 159 273 207 229",
    "imagesquawk": "84 130 88 144 145 22 96 9 100 89",
    "imagefruit": "953 954 949 950 951 957 952 945 943 948",
    "imagemeow": "281 282 283 284 285 291 292 290 289 287",
}
PLACES = {name: [int(place) for place in places.split()] for name, places in LISTS.items()}
FOLDERS = [f"n{7 * place + 3:08d}" for place in range(1000)]


def refused(*words):
    """Expect an error that holds all these words, in this order."""
    return pytest.raises(DataError, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def grey(place, split):
    """Return the level of grey of the images of the class at a place; of a class of train and one of test in a subset, all differ."""
    return (place * 37 + (split == "test") * 5) % 256


def draw(file, level, size=(12, 9)):
    Image.new("RGB", size, (level,) * 3).save(file)


@pytest.fixture
def root(tmp_path):
    """Make all 1,000 folders in a random order, and 2 images for train, 1 for test, of every class of imagenet_b; others are empty."""
    for split, folder in (("train", "train"), ("test", "val")):
        for place in random.Random(0).sample(range(1000), 1000):
            (tmp_path / folder / FOLDERS[place]).mkdir(parents=True)
        for place in PLACES["imagenet_b"]:
            for n in range(2 if split == "train" else 1):
                draw(tmp_path / folder / FOLDERS[place] / f"{n}.png", grey(place, split))
        (tmp_path / folder / "lost+found").mkdir()  # not called like a class
        (tmp_path / folder / "n00000001.tar").write_text("x")
    return tmp_path


def small(name="imagenet_b_128", **changes):
    return replace(DATASETS[name], **{"train": 20, "test": 10, "smallest_class": 1, **changes})


def test_registered_are_ten_subsets_of_two_sizes():
    assert {name for name, known in DATASETS.items() if known.positions} == {f"{name}_{size}" for name in PLACES for size in (128, 256)}
    for name, places in PLACES.items():
        for size in (128, 256):
            known = DATASETS[f"{name}_{size}"]
            assert known.positions == tuple(places) and len(known.classes) == 10 and known.wnids == ()
            assert (known.size, known.channels, known.flip, known.layout) == ((size, size), 3, True, "imagenet")
            assert (known.train, known.test, known.smallest_class, known.counted) == (13_000, 500, 732, False)
            assert known.lineages == dict.fromkeys(("dc", "idc"), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def test_one_class_has_one_name_and_one_place():
    named = {(known.positions[label], c) for known in DATASETS.values() if known.positions for label, c in enumerate(known.classes)}
    assert len({place for place, _ in named}) == len({c for _, c in named}) == len(named)
    for place, c in ((9, "ostrich"), (96, "toucan"), (100, "black swan"), (145, "king penguin"), (258, "Samoyed"), (291, "lion")):
        assert (place, c) in named, "the papers list these in more than one subset"


@pytest.mark.parametrize("name", ["imagenette", "imagefruit"])
def test_places_and_wnids_of_the_same_classes_have_one_order(name):
    by_place, by_name = DATASETS[f"{name}_128"], DATASETS[name]
    assert by_place.classes == by_name.classes
    assert np.argsort(by_place.positions).tolist() == np.argsort(by_name.wnids).tolist()


def test_labels_are_those_of_the_list_whatever_the_order_of_folders(root):
    places = PLACES["imagenet_b"]
    assert places != sorted(places), "or the order of labels would not be seen"
    train, test = read(root, small(size=(8, 8)), root / ".resume", "x")
    for split, found, each in (("train", train, 2), ("test", test, 1)):
        expected = [(label, grey(place, split)) for label, place in enumerate(places) for _ in range(each)]
        assert found.images.shape == (len(expected), 3, 8, 8) and found.images.dtype == np.uint8
        assert list(zip(found.labels.tolist(), found.images[:, 1, 4, 4].tolist(), strict=True)) == expected


def test_images_keep_their_shape_and_lose_their_sides(root):
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16], stripes[:, 16:] = 100, 200
    file = root / "train" / FOLDERS[129] / "0.png"  # label 0
    Image.fromarray(stripes).save(file)
    train, _ = read(root, small(size=(8, 8)), root / ".resume", "x")
    assert (train.images[0] == 100).all(), "squeezed it would have all three stripes"


@pytest.mark.parametrize("size", [128, 256])
def test_prepared(size, root, tmp_path, monkeypatch):
    name = f"imagenet_b_{size}"
    monkeypatch.setitem(DATASETS, name, small(name))
    config = load_datasets({name: {"source": {"kind": "imagenet", "path": str(root)}}}, "test")[name]
    facts = prepare(name, config, root, tmp_path / "out")
    assert facts["classes"][:4] == ["spoonbill", "website", "lorikeet", "African hunting dog"] and facts["size"] == [size, size]
    assert facts["counts"] == {"train": [2] * 10, "test": [1] * 10} and facts["flip"] is True
    there = load_file(tmp_path / "out" / "test.safetensors")
    assert there["images"].shape == (10, 3, size, size)
    assert there["images"][:, 0, 0, 0].tolist() == [grey(place, "test") for place in PLACES["imagenet_b"]]


def test_another_number_of_folders(root):
    for folder in ("train", "val"):
        (root / folder / FOLDERS[500]).rmdir()  # of none of the classes: those behind it would move up
    words = "(called like n01440764), all of ImageNet has 1000; imagenet_b_128 finds its own by counting them"
    with refused(root / "train", "has 999 folders of classes", words):
        read(root, small(), root / ".resume", "x")
    for folder in ("train", "val"):
        (root / folder / FOLDERS[500]).mkdir()
        (root / folder / "n99999999").mkdir()
    with refused(root / "train", "has 1001 folders of classes", words):
        read(root, small(), root / ".resume", "x")
    few = root / "few"
    for place in PLACES["imagenet_b"]:
        for folder in ("train", "val"):
            (few / folder / FOLDERS[place]).mkdir(parents=True)
    with refused(few / "train", "has 10 folders of classes", words):  # only its own classes: they cannot be counted
        read(few, small(), root / ".resume", "x")


def test_folders_that_are_missing_or_empty(root):
    (root / "val" / FOLDERS[3]).rmdir()
    with refused(root / "val", f"has no folder {FOLDERS[3]}, but", root / "train", "has"):
        read(root, small(), root / ".resume", "x")
    (root / "val" / FOLDERS[3]).mkdir()
    (root / "val" / FOLDERS[916] / "0.png").unlink()  # a class of the subset
    with refused(root / "val" / FOLDERS[916], "has no images (.bmp, "):
        read(root, small(), root / ".resume", "x")
    shutil.rmtree(root / "val")
    with refused(root / "val", "no such folder"):
        read(root, small(), root / ".resume", "x")


def test_another_number_of_images(root):
    with refused("dataset y: train has 20 images, imagenet_b_128 has 30 to 40; a part of it needs a name"):
        read(root, small(smallest_class=3, train=40), root / ".resume", "dataset y")
    with refused("dataset y: test has 10 images, imagenet_b_128 has 500; a part of it needs a name"):
        read(root, small(test=500), root / ".resume", "dataset y")
