"""Tiny ImageNet: the official archive, the folder that it unpacks to, and folders that others sorted."""

import re
import shutil
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from image_files import pretend, tiny_members, write_folder, write_parquet, write_zip

from dd.data.config import load_datasets
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.data.tiny import LARGEST, archive, folder
from dd.errors import DataError

WNIDS = ["n04067472", "n01443537", "n09999999", "n02124075"]  # not sorted, as in the official wnids.txt
LABELS = {"n01443537": 0, "n02124075": 1, "n04067472": 2, "n09999999": 3}
ROOT = "tiny-imagenet-200/"
ANNOTATIONS = f"{ROOT}val/val_annotations.txt"


def refused(*words, error=DataError):
    """Expect an error that holds all these words, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


@pytest.fixture
def made():
    return tiny_members(WNIDS, train=4, test=3, grey=(0, 5))


def unpacked(path, members):
    """Write the members as files, without the folder around them."""
    for name, content in members.items():
        file = path / name.removeprefix(ROOT)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def same(found, data):
    for split, (images, labels) in zip(found, data.values(), strict=True):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64 and split.images.shape[1:] == (3, 64, 64)
        rows = sorted((int(label), x.tobytes()) for x, label in zip(split.images, split.labels, strict=True))
        assert rows == sorted((int(label), x.tobytes()) for x, label in zip(images, labels, strict=True))


def test_labels_are_positions_among_the_sorted_wnids(made, tmp_path):
    data, members = made
    found = archive(write_zip(tmp_path / "t.zip", members), 4)
    same(found, data)
    for split in ("train", "val"):  # the label of an image whose class is written in its name or its annotation
        wnids = [line.split("\t")[1] for line in members[ANNOTATIONS].decode().splitlines()]
        if split == "train":
            wnids = [name.split("/")[2] for name in members if name.startswith(f"{ROOT}train/") and name.endswith(".JPEG")]
        assert sorted(LABELS[wnid] for wnid in wnids) == sorted(found[split == "val"].labels.tolist())
    grey = [x for x in found[0].images if np.array_equal(x[0], x[1]) and np.array_equal(x[0], x[2])]
    assert len(grey) == 2 and list(tmp_path.iterdir()) == [tmp_path / "t.zip"], "nothing is extracted"


def test_the_unpacked_archive_is_the_archive(made, tmp_path):
    data, members = made
    same(folder(unpacked(tmp_path / "u", members), 4), data)
    (tmp_path / "u" / "train" / WNIDS[0] / "images" / ".hidden.JPEG").write_text("x")
    (tmp_path / "u" / "val" / "notes.txt").write_text("x")
    same(folder(tmp_path / "u", 4), data)


def test_only_regular_members_of_the_expected_names(made, tmp_path):
    data, members = made
    image = next(content for name, content in members.items() if name.endswith(".JPEG"))
    bad = [
        f"../{ROOT}train/{WNIDS[0]}/images/a.JPEG",
        f"/{ROOT}train/{WNIDS[0]}/images/a.JPEG",
        f"{ROOT}train/{WNIDS[0]}/images/../images/a.JPEG",
        f"{ROOT}train/{WNIDS[0]}/images/a.png",
        f"{ROOT}train/{WNIDS[0]}/images/a b.JPEG",
        f"{ROOT}train/{WNIDS[0]}/a.JPEG",
        f"{ROOT}train/nothing/images/a.JPEG",
        f"{ROOT}val/a.JPEG",
        f"other/train/{WNIDS[0]}/images/a.JPEG",
        f"{ROOT}{ROOT}wnids.txt",
    ]
    path = write_zip(tmp_path / "t.zip", {**{name: image for name in bad}, **members})
    link = zipfile.ZipInfo(f"{ROOT}train/{WNIDS[0]}/images/link.JPEG")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(link, "/etc/passwd")
        opened.writestr(zipfile.ZipInfo(f"{ROOT}train/{WNIDS[0]}/images/folder.JPEG/"), b"")
    same(archive(path, 4), data)
    assert list(tmp_path.iterdir()) == [path]


def without(members, *names):
    return {name: content for name, content in members.items() if not any(name.startswith(ROOT + part) for part in names)}


def lines(members, change):
    return {**members, ANNOTATIONS: "".join(change(members[ANNOTATIONS].decode().splitlines(keepends=True))).encode()}


MISTAKES = {
    "no wnids.txt": (lambda m: without(m, "wnids.txt"), ["wnids.txt: no such file"]),
    "no annotations": (lambda m: without(m, "val/val_ann"), ["val/val_annotations.txt: no such file"]),
    "no val": (lambda m: without(m, "val/images"), ["val/images: has no *.JPEG"]),
    "no train of a class": (lambda m: without(m, f"train/{WNIDS[2]}"), [f"train/{WNIDS[2]}/images: has no *.JPEG"]),
    "a class too few": (
        lambda m: {**m, f"{ROOT}wnids.txt": "\n".join(WNIDS[:3]).encode()},
        ["wnids.txt: has 3 different wnids in 3 lines, Tiny ImageNet has 4"],
    ),
    "a class twice": (
        lambda m: {**m, f"{ROOT}wnids.txt": "\n".join([*WNIDS[:3], WNIDS[0]]).encode()},
        ["wnids.txt: has 3 different wnids in 4 lines"],
    ),
    "no wnid": (lambda m: {**m, f"{ROOT}wnids.txt": b"goldfish\n"}, ["wnids.txt: 'goldfish' is no wnid"]),
    "no text": (lambda m: {**m, f"{ROOT}wnids.txt": b"\xff\xfe"}, ["wnids.txt: is not text"]),
    "an unlisted class": (
        lambda m: {**m, f"{ROOT}train/n00000001/images/x.JPEG": b"x"},
        ["train/n00000001: is not in wnids.txt"],
    ),
    "an unknown file": (
        lambda m: lines(m, lambda rows: [*rows[:2], f"val_99.JPEG\t{WNIDS[0]}\t0\t0\t1\t1\n", *rows[2:]]),
        ["val/val_annotations.txt: line 3: there is no file val/images/val_99.JPEG"],
    ),
    "a path": (
        lambda m: lines(m, lambda rows: [f"../../x.JPEG\t{WNIDS[0]}\n", *rows]),
        ["val/val_annotations.txt: line 1: there is no file val/images/../../x.JPEG"],
    ),
    "an unknown wnid": (
        lambda m: lines(m, lambda rows: ["val_0.JPEG\tn00000002\t0\t0\t1\t1\n", *rows[1:]]),
        ["val/val_annotations.txt: line 1: val_0.JPEG: 'n00000002' is not in wnids.txt"],
    ),
    "no wnid in a line": (
        lambda m: lines(m, lambda rows: ["val_0.JPEG\n", *rows[1:]]),
        ["val/val_annotations.txt: line 1: val_0.JPEG: '' is not in wnids.txt"],
    ),
    "two lines of a file": (
        lambda m: lines(m, lambda rows: [*rows, rows[4]]),
        ["val/val_annotations.txt: line 13: val_4.JPEG has a line before"],
    ),
    "a file without a line": (
        lambda m: lines(m, lambda rows: rows[:-1]),
        ["val/val_annotations.txt: has no line for val/images/val_11.JPEG"],
    ),
    "no image": (lambda m: {**m, f"{ROOT}val/images/val_7.JPEG": b"x" * 99}, ["val/images/val_7.JPEG: is not a readable image"]),
    "another size": (
        lambda m: {**m, f"{ROOT}val/images/val_7.JPEG": jpeg(32)},
        ["val/images/val_7.JPEG: image of 32x32 with 3 channels, but ", "val/images/val_", "has 64x64 with 3 channels"],
    ),
}


def jpeg(size):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_mistakes(form, mistake, made, tmp_path):
    change, words = MISTAKES[mistake]
    members = change(made[1])
    if form == "archive":
        with refused(f"{tmp_path}/t.zip: {ROOT}{words[0]}", *words[1:]):
            archive(write_zip(tmp_path / "t.zip", members), 4)
    else:
        with refused(f"{tmp_path}/u/{words[0]}", *words[1:]):
            folder(unpacked(tmp_path / "u", members), 4)


def test_archives_that_are_no_archives(made, tmp_path):
    path = write_zip(tmp_path / "t.zip", made[1])
    whole = path.read_bytes()
    with refused(tmp_path / "no.zip", "no such file"):
        archive(tmp_path / "no.zip", 4)
    for damaged in (whole[: len(whole) // 2], whole[:-10], b"", b"x" * 100):
        path.write_bytes(damaged)
        with refused(path, "is truncated or damaged", "delete it and run again"):
            archive(path, 4)
    flipped = bytearray(whole)
    flipped[whole.index(b"\xff\xd8\xff") + 400] ^= 1  # inside an image
    path.write_bytes(flipped)
    with refused(path, "is truncated or damaged", "CRC"):
        archive(path, 4)
    name = f"{ROOT}val/images/val_0.JPEG"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, content in made[1].items():
            opened.writestr(member, bytes(LARGEST + 1) if member == name else content)
    with refused(path, name, f"has {LARGEST + 1} bytes, too many; allowed: {LARGEST}"):
        archive(path, 4)


# -- prepared -----------------------------------------------------------------------------------------------------------


def config(kind, path):
    return load_datasets({"tiny_imagenet": {"source": {"kind": kind, "path": str(path)}}}, "test")["tiny_imagenet"]


def test_all_sources_are_prepared_alike(made, tmp_path, monkeypatch):
    data, members = made
    pretend(monkeypatch, "tiny_imagenet", data)
    monkeypatch.setitem(DATASETS, "tiny_imagenet", replace(DATASETS["tiny_imagenet"], classes=tuple("0123")))
    (tmp_path / "raw").mkdir()
    write_zip(tmp_path / "raw" / "tiny-imagenet-200.zip", members)
    by_name, turned = sorted(WNIDS), {split: (x, 3 - y) for split, (x, y) in data.items()}
    sources = {
        "download": load_datasets({}, "test")["tiny_imagenet"],
        "unpacked": config("folder", unpacked(tmp_path / "unpacked", members)),
        "wnids": config("folder", write_folder(tmp_path / "wnids", data, by_name)),
        "numbers": config("folder", write_folder(tmp_path / "numbers", data, list("0123"))),
        "parquet": config("parquet", write_parquet(tmp_path / "parquet", data)),
        "named": config("parquet", write_parquet(tmp_path / "named", data, by_name, "image")),
        "turned": config("parquet", write_parquet(tmp_path / "turned", turned, by_name[::-1], "image")),
    }
    prints = {kind: prepare("tiny_imagenet", source, tmp_path / "raw", tmp_path / f"o-{kind}") for kind, source in sources.items()}
    assert all(facts == prints["download"] for facts in prints.values())
    for file in ("train.safetensors", "test.safetensors", "holdout.safetensors"):
        assert len({(tmp_path / f"o-{kind}" / file).read_bytes() for kind in sources}) == 1
    facts = prints["download"]
    assert facts["classes"] == list("0123") and facts["counts"] == {"train": [4] * 4, "test": [3] * 4} and facts["flip"] is True
    assert facts["lineages"]["dc"] == facts["lineages"]["idc"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_folders_of_images_some_of_which_are_grey(made, tmp_path):
    data, members = made
    for name, content in members.items():  # one folder a class in both splits, the files as they are
        if name.startswith(f"{ROOT}train/") and name.endswith(".JPEG"):
            file = tmp_path / "train" / name.split("/")[2] / name.split("/")[-1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    for line in members[ANNOTATIONS].decode().splitlines():
        name, wnid, *_ = line.split("\t")
        (tmp_path / "test" / wnid).mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / wnid / name).write_bytes(members[f"{ROOT}val/images/{name}"])
    same(folder(tmp_path, 4), data)
    shutil.move(tmp_path / "train" / WNIDS[1], tmp_path / "train" / "goldfish")
    shutil.move(tmp_path / "test" / WNIDS[1], tmp_path / "test" / "goldfish")
    with refused(tmp_path / "train", "has 4 folders (goldfish, ", "must have 4, called by wnids (such as n01443537) or 0 to 3"):
        folder(tmp_path, 4)
    with refused(tmp_path / "train", "has 4 folders", "must have 200"):
        folder(tmp_path, 200)


def test_a_part_of_it(made, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "tiny_imagenet", replace(DATASETS["tiny_imagenet"], classes=tuple("0123")))
    with refused("dataset tiny_imagenet", "train has 16 images, tiny_imagenet has 100000; a part of it"):
        prepare("tiny_imagenet", config("folder", unpacked(tmp_path / "u", made[1])), tmp_path, tmp_path / "out")
