"""All of ImageNet at 64x64: squeezed, prepared without its pixels in memory, and continued where it was stopped."""

import hashlib
import io
import json
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dd.data import imagenet, order
from dd.data.config import load_datasets
from dd.data.imagenet import squeezed
from dd.data.load import load, manifest, pool
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import DataError

WNIDS = ["n00000007", "n02000000", "n01000000"]


def refused(*words):
    """Expect an error that holds all these words, in this order."""
    return pytest.raises(DataError, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def encoded(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write(root, train=4, test=2, wnids=WNIDS, seed=0):
    """Write images of several sizes, each of one colour; return {split: [(wnid, colour), ...]}."""
    rng, made = np.random.default_rng(seed), {"train": [], "test": []}
    for split, each in (("train", train), ("test", test)):
        for wnid in wnids:
            base = root / ("val" if split == "test" else split) / wnid
            base.mkdir(parents=True)
            for n in range(each):
                colour = tuple(rng.integers(0, 256, 3).tolist())
                Image.new("RGB", (int(rng.integers(5, 40)), int(rng.integers(5, 40))), colour).save(base / f"{wnid}_{n}.png")
                made[split].append((wnid, colour))
    return made


@pytest.fixture
def small(monkeypatch):
    """Let imagenet64 have 3 classes; return how to prepare a folder of `train` and `test` images a class."""

    def run(root, out, train=4, test=2):
        changes = {"classes": tuple("012"), "train": 3 * train, "test": 3 * test, "smallest_class": train}
        monkeypatch.setitem(DATASETS, "imagenet64", replace(DATASETS["imagenet64"], **changes))
        section = {"imagenet64": {"source": {"kind": "imagenet", "path": str(root)}}}
        return prepare("imagenet64", load_datasets(section, "test")["imagenet64"], root, out)

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def triangles(old, new):
    """Return the (new, old) weights of antialiased bilinear resizing: a triangle, as wide as the step where images shrink."""
    step = old / new
    centres = (np.arange(new) + 0.5) * step
    weights = np.clip(1 - np.abs(np.arange(old)[None] + 0.5 - centres[:, None]) / max(step, 1.0), 0, None)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (100, 75), (64, 64), (40, 173), (64, 200), (20, 31)])
def test_squeezed_against_naive_resizing_of_each_side(height, width):
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 10, (height, width, 3))
    pixels = (60 * np.sin(x / 7)[..., None] + 50 * np.cos(y / 5)[..., None] + 127 + noise).clip(0, 255).astype(np.uint8)
    found = squeezed(encoded(pixels), 64, "x")
    exact = np.einsum("jw,iwc->ijc", triangles(width, 64), np.tensordot(triangles(height, 64), pixels.astype(np.float64), 1))
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 1.0 + 1e-6  # two passes are rounded to 8 bits


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_squeezed_is_what_torchvision_does_to_images(mode):
    from torchvision import transforms

    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    expected = transforms.Resize((64, 64))(Image.open(buffer).convert("RGB"))
    assert np.array_equal(squeezed(buffer.getvalue(), 64, "x"), np.asarray(expected))


def test_prepared_is_sorted_and_named_by_numbers(small, tmp_path):
    made = write(tmp_path / "in")
    (tmp_path / "in" / "train" / "lost+found").mkdir()
    (tmp_path / "in" / "train" / WNIDS[0] / "notes.txt").write_text("x")
    facts = small(tmp_path / "in", tmp_path / "out")
    assert facts["classes"] == ["0", "1", "2"] and facts["size"] == [64, 64] and facts["channels"] == 3 and facts["flip"] is True
    assert facts["counts"] == {"train": [4] * 3, "test": [2] * 3} and facts["smallest_class"] == 4
    assert facts["lineages"]["dc"] == facts["lineages"]["idc"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    naive = hashlib.sha256(b'["0","1","2"]')
    for split in ("test", "train"):
        expected = []
        for wnid, colour in made[split]:
            pixels = np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, 64, 64)).tobytes()
            expected.append((sorted(WNIDS).index(wnid), hashlib.sha256(pixels).digest(), pixels))
        there = load_file(tmp_path / "out" / f"{split}.safetensors")
        assert there["labels"].tolist() == [label for label, *_ in sorted(expected)]
        assert [x.tobytes() for x in there["images"]] == [pixels for *_, pixels in sorted(expected)]
        naive.update(f"{split}:{there['images'].shape}".encode() + there["images"].tobytes() + there["labels"].tobytes())
    assert facts["fingerprint"] == naive.hexdigest()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "holdout.safetensors", "manifest.json", "test.safetensors", "train.safetensors"
    ]  # fmt: skip
    assert len(load(tmp_path / "out", "fit")[1]) == 9 and len(pool(tmp_path / "out", "train", "dc", first=2)) == 6


def test_blocks_of_any_size_make_the_same_files(small, tmp_path, monkeypatch):
    write(tmp_path / "in")
    small(tmp_path / "in", tmp_path / "one")
    for name, size in (("two", 1), ("three", 3 * 12_288), ("four", 5 * 12_288 - 1)):
        monkeypatch.setattr(order, "BLOCK", size)
        small(tmp_path / "in", tmp_path / name)
        assert content(tmp_path / name) == content(tmp_path / "one")


@pytest.mark.parametrize("stop", [0, 5, 12, 15])  # 12 images of train, then 6 of test
def test_stopped_and_continued(stop, small, tmp_path, monkeypatch):
    write(tmp_path / "in")
    seen = []

    def counting(data, size, name):
        seen.append(name)
        return squeezed(data, size, name)

    def stopping(data, size, name):
        if len(seen) == stop:
            raise KeyboardInterrupt
        return counting(data, size, name)

    counting.__name__ = stopping.__name__ = "squeezed"
    small(tmp_path / "in", tmp_path / "whole")
    monkeypatch.setattr(imagenet, "squeezed", stopping)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".resume"]
    monkeypatch.setattr(imagenet, "squeezed", counting)
    small(tmp_path / "in", tmp_path / "out")
    assert len(seen) == len(set(seen)) == 18, "each image is decoded once"
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_stopped_while_it_is_written(small, tmp_path, monkeypatch):
    write(tmp_path / "in")
    small(tmp_path / "in", tmp_path / "whole")

    def full(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dd.data.prepare.held_out", full)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / ".resume" / "train.u8").stat().st_size == 12 * 12_288 and not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(imagenet, "_rgb", full)  # nothing is decoded again
    changes = {"classes": tuple("012"), "train": 12, "test": 6, "smallest_class": 4}
    monkeypatch.setitem(DATASETS, "imagenet64", replace(DATASETS["imagenet64"], **changes))
    section = {"imagenet64": {"source": {"kind": "imagenet", "path": str(tmp_path / "in")}}}
    prepare("imagenet64", load_datasets(section, "test")["imagenet64"], tmp_path, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_memory_does_not_grow_with_the_images(small, tmp_path, monkeypatch):
    monkeypatch.setattr(order, "BLOCK", 4 * 12_288)
    peaks = {}
    for each in (4, 4, 60):  # the first run also imports
        write(tmp_path / f"in{len(peaks)}{each}", train=each, test=each)
        tracemalloc.start()
        small(tmp_path / f"in{len(peaks)}{each}", tmp_path / f"out{each}", train=each, test=each)
        peaks[each] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    grown = (peaks[60] - peaks[4]) / (2 * 3 * 56)
    assert grown < 700, f"{grown} bytes an image, of which pixels would be 12,288"


def test_folders_of_too_few_classes(tmp_path):
    wnids = [f"n{k:08d}" for k in range(999)]
    for split in ("train", "val"):
        for wnid in (*wnids, "n1", "other"):
            (tmp_path / split / wnid).mkdir(parents=True)
    section = {"imagenet64": {"source": {"kind": "imagenet", "path": str(tmp_path)}}}
    source = load_datasets(section, "test")["imagenet64"]
    with refused(tmp_path / "train", "has 999 folders of classes (called like n01440764), all of ImageNet has 1000"):
        prepare("imagenet64", source, tmp_path, tmp_path / "out")
    (tmp_path / "train" / "n00009999").mkdir()
    with refused(tmp_path / "val", "has no folder n00009999, but", tmp_path / "train", "has"):
        prepare("imagenet64", source, tmp_path, tmp_path / "out")
    (tmp_path / "val" / "n00009999").mkdir()
    with refused(tmp_path / "train" / "n00000000", "has no images (.bmp, "):
        prepare("imagenet64", source, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mistakes(small, tmp_path):
    with refused(tmp_path / "in" / "train", "no such folder"):
        (tmp_path / "in").mkdir()
        small(tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in")
    with refused("dataset imagenet64", "train has 12 images, imagenet64 has 15; a part of it"):  # before anything is decoded
        small(tmp_path / "in", tmp_path / "out", train=5)
    assert not (tmp_path / "out").exists()
    image = tmp_path / "in" / "train" / WNIDS[1] / f"{WNIDS[1]}_2.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:30])
    with refused(image, "is not a readable image"):
        small(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / ".resume" / "train.u8.json").read_text())["done"] == 10
    image.write_bytes(whole)
    small(tmp_path / "in", tmp_path / "out")
    assert manifest(tmp_path / "out")["counts"]["train"] == [4, 4, 4]
    for file in (tmp_path / "in" / "val").glob("*/*"):
        file.rename(tmp_path / "in" / "val" / file.name)
    for folder in (tmp_path / "in" / "val").glob("n*[0-9]"):
        folder.rmdir()
    with refused(tmp_path / "in" / "val", "not sorted into classes", "ILSVRC2012_devkit_t12.tar.gz"):
        small(tmp_path / "in", tmp_path / "out")
