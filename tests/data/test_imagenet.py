"""Subsets of ImageNet: labels by position in the list, and images made square."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dd.data.config import load_datasets
from dd.data.imagenet import read, square
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import ConfigError, DataError

FRUIT = DATASETS["imagefruit"].wnids


def refused(*words, error=DataError):
    """Expect an error that holds all these words, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def subset(root, size=4, known="imagefruit", test=None, **changes):
    """Read `root` as a dataset of any number of images of train, and `test` of test."""
    changes = {"size": (size, size), "train": 10**6, "smallest_class": 1, "counted": False, "test": test or 20, **changes}
    return read(root, replace(DATASETS[known], **changes), root / ".resume", "dataset x")


def smooth(height, width, seed=0, channels=3):
    """Return an image of waves and a little noise, (h, w, c) float64 in [0, 255]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(3, 9) + rng.uniform(0, 6)) + np.cos(y / rng.uniform(3, 9)) for _ in range(channels)]
    return (np.stack(waves, 2) * 45 + 127 + rng.normal(0, 10, (height, width, channels))).clip(0, 255)


def encoded(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def write(root, wnids, train=3, test=2, size=(9, 12)):
    """Write `train` and `test` images of each class, of one colour each; return {split: {wnid: [grey, ...]}}."""
    greys = {}
    for split, each in (("train", train), ("val", test)):
        for c, wnid in enumerate(wnids):
            (root / split / wnid).mkdir(parents=True)
            levels = [(c * 20 + n * 3 + (split == "val")) % 256 for n in range(each)]
            for n, level in enumerate(levels):
                Image.new("RGB", size[::-1], (level,) * 3).save(root / split / wnid / f"{wnid}_{n}.JPEG", "JPEG", quality=100)
            greys.setdefault("test" if split == "val" else split, {})[wnid] = levels
    return greys


# -- one image ----------------------------------------------------------------------------------------------------------


def triangles(old, new):
    """Return the (new, old) weights of antialiased bilinear resizing: a triangle, as wide as the step where images shrink."""
    step = old / new
    support = max(step, 1.0)
    centres = (np.arange(new) + 0.5) * step
    weights = np.clip(1 - np.abs(np.arange(old)[None] + 0.5 - centres[:, None]) / support, 0, None)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(75, 100), (100, 75), (61, 61), (40, 173), (24, 31), (16, 20), (83, 24)])
def test_square_against_naive_resizing_and_cropping(height, width):
    pixels = smooth(height, width).astype(np.uint8)
    found = square(encoded(pixels), 24, "x")
    short = min(height, width)
    new = (24, 24 * width // height) if height == short else (24 * height // width, 24)
    exact = np.einsum("ih,hwc,jw->ijc", triangles(height, new[0]), pixels.astype(np.float64), triangles(width, new[1]))
    top, left = (round((side - 24) / 2.0) for side in new)
    exact = exact[top : top + 24, left : left + 24]
    assert found.shape == (24, 24, 3) and found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 1.0 + 1e-6  # two passes are rounded to 8 bits


def test_square_is_what_torchvision_does_to_images():
    from torchvision import transforms

    size = transforms.Compose([transforms.Resize(224, antialias=True), transforms.CenterCrop(224)])
    for height, width in ((375, 500), (500, 333), (224, 224), (257, 311), (150, 201)):
        data = encoded(smooth(height, width), "JPEG")
        assert np.array_equal(square(data, 224, "x"), np.asarray(size(Image.open(io.BytesIO(data)).convert("RGB"))))


def test_square_antialiases():
    stripes = np.zeros((240, 240, 3))
    stripes[:, ::2] = 254
    assert np.abs(square(encoded(stripes), 24, "x").astype(int) - 127)[:, 1:-1].max() <= 2


def test_square_makes_colour_of_grey_and_of_cmyk():
    for mode, value, expected in (("L", 90, (90, 90, 90)), ("CMYK", (0, 255, 255, 0), (255, 0, 0))):
        buffer = io.BytesIO()
        Image.new(mode, (30, 20), value).save(buffer, "JPEG", quality=100)
        assert np.abs(square(buffer.getvalue(), 8, "x").astype(int) - expected).max() <= 3


@pytest.mark.parametrize("content", [b"", b"text", encoded(smooth(40, 40), "JPEG")[:-200]], ids=["empty", "text", "truncated"])
def test_square_refuses(content):
    with refused("a/b.JPEG: is not a readable image"):
        square(content, 8, "a/b.JPEG")


# -- a folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), ("n00000001", "n07754684", "n99999999")], ids=["only these", "more classes"])
def test_labels_are_positions_in_the_list(others, tmp_path):
    greys = write(tmp_path, [*sorted(FRUIT), *others])
    for split, found in zip(("train", "test"), subset(tmp_path, 8), strict=True):
        expected = [(label, grey) for label, wnid in enumerate(FRUIT) for grey in greys[split][wnid]]
        assert found.images.shape == (len(expected), 3, 8, 8) and found.images.dtype == np.uint8 and found.labels.dtype == np.int64
        assert found.labels.tolist() == [label for label, _ in expected] and found.class_names is None
        assert np.abs(found.images[:, 1, 4, 4].astype(int) - [grey for _, grey in expected]).max() <= 1


def test_files_that_are_no_images_are_left_out(tmp_path):
    write(tmp_path, FRUIT, train=1)
    (tmp_path / "train" / FRUIT[0] / "notes.txt").write_text("x")
    (tmp_path / "train" / FRUIT[0] / ".hidden.JPEG").write_text("x")
    assert subset(tmp_path, 4)[0].labels.tolist() == list(range(10))


def test_folder_mistakes(tmp_path):
    with refused(tmp_path / "train", "no such folder", FRUIT[0]):
        subset(tmp_path, test=10)
    write(tmp_path, FRUIT, train=1, test=1)
    (tmp_path / "train" / FRUIT[3]).rename(tmp_path / "train" / "oranges")
    with refused(tmp_path / "train", f"has no folder {FRUIT[3]}"):
        subset(tmp_path, test=10)
    (tmp_path / "train" / "oranges").rename(tmp_path / "train" / FRUIT[3])
    image = tmp_path / "train" / FRUIT[3] / f"{FRUIT[3]}_0.JPEG"
    image.write_bytes(image.read_bytes()[:100])
    with refused(image, "is not a readable image"):
        subset(tmp_path, test=10)
    image.unlink()
    with refused(tmp_path / "train" / FRUIT[3], "has no images (.bmp, "):
        subset(tmp_path, test=10)


def test_a_val_without_folders_says_how_to_sort_it(tmp_path):
    write(tmp_path, FRUIT, train=1)
    for folder in (tmp_path / "val").iterdir():
        for file in folder.iterdir():
            file.rename(tmp_path / "val" / file.name)
        folder.rmdir()
    with refused(tmp_path / "val", "not sorted into classes", tmp_path / "val" / FRUIT[0], "ILSVRC2012_devkit_t12.tar.gz"):
        subset(tmp_path, test=10)


# -- prepared -----------------------------------------------------------------------------------------------------------


def config(name, path):
    return load_datasets({name: {"source": {"kind": "imagenet", "path": str(path)}}}, "test")[name]


@pytest.mark.parametrize("name", ["imagenette", "imagefruit"])
def test_prepared(name, tmp_path, monkeypatch):
    known = DATASETS[name]
    write(tmp_path / "in", known.wnids, train=2)
    monkeypatch.setitem(DATASETS, name, replace(known, size=(8, 8), train=20, test=20, smallest_class=2))
    facts = prepare(name, config(name, tmp_path / "in"), tmp_path, tmp_path / "out")
    assert facts["classes"] == list(known.classes) and facts["counts"] == {"train": [2] * 10, "test": [2] * 10} and facts["flip"] is True
    assert facts["lineages"]["dc"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert load_file(tmp_path / "out" / "train.safetensors")["images"].shape == (20, 3, 8, 8)


def test_how_many_images_a_subset_may_have(tmp_path, monkeypatch):
    write(tmp_path / "in", FRUIT, train=2)
    for name, least, most, refusal in (
        ("imagefruit", 1, 30, None),
        ("imagefruit", 2, 20, None),
        ("imagefruit", 3, 40, "train has 20 images, imagefruit has 30 to 40; a part of it"),
        ("imagefruit", 1, 19, "train has 20 images, imagefruit has 10 to 19; a part of it"),
        ("imagenette", 1, 30, "train has 20 images, imagenette has 30; a part of it"),
    ):
        changed = replace(DATASETS[name], size=(8, 8), train=most, test=20, smallest_class=least, wnids=FRUIT)
        monkeypatch.setitem(DATASETS, name, changed)
        if refusal is None:
            prepare(name, config(name, tmp_path / "in"), tmp_path, tmp_path / "out")
        else:
            with refused(refusal):
                prepare(name, config(name, tmp_path / "in"), tmp_path, tmp_path / "out")
    monkeypatch.setitem(DATASETS, "imagefruit", replace(changed, name="imagefruit", counted=False, train=30, test=500))
    with refused("test has 20 images, imagefruit has 500; a part of it"):
        prepare("imagefruit", config("imagefruit", tmp_path / "in"), tmp_path, tmp_path / "out")


def test_without_a_source_it_says_where_to_get_it(tmp_path):
    words = ("config.yaml: datasets.imagenette: source: is missing: ImageNet (ILSVRC2012) needs a login at https://image-net.org",
             "then write {kind: imagenet, path: that folder}")  # fmt: skip
    with refused(*words, error=ConfigError):
        prepare("imagenette", load_datasets({}, "test")["imagenette"], tmp_path, tmp_path / "out")
