"""Archives whose members lead elsewhere: nothing is extracted, so nothing can be written; and only plain files are read."""

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from image_files import cifar_members, some_images, tiny_members
from samples import WNIDS, WORDS
from sound_files import members as spoken
from sound_files import wav, write_tones
from watching import guarded

from dd.data import clips, npz, official, tiny
from dd.errors import DataError, DDError
from dd.plan.pack import unpack

CIFAR = cifar_members(some_images(2, 3, (32, 32), 2, 1), 100)
TEST = "cifar-100-binary/test.bin"


def paths(outside):
    """Return names of members that would be written elsewhere, by one program or another."""
    return [
        "../planted", "../../planted", f"{outside}/planted", f"//{outside}/planted", "a/../../planted", "..\\planted", "C:\\planted", "a\\..\\..\\planted",
        "./../planted", "cifar-100-binary/../../planted", "~/planted", "planted\0.bin", "\u202eplanted", "a\nplanted", "-rf", "x" * 3000, ".", "..", "/", "",
    ]  # fmt: skip


@pytest.fixture
def places(tmp_path):
    """Return (where archives are, a folder beside it with a file that nobody may read or change)."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(bytes(3074))
    return inside, outside


def everything(root):
    return {path.relative_to(root): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


def tar(path, contents, special=()):
    """Write a .tar.gz: special members first (TarInfo, content), then the others."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as opened:
        for info, content in [*special, *((tarfile.TarInfo(name), content) for name, content in contents.items())]:
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def info(name, kind=tarfile.REGTYPE, link=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def zipped(path, contents, special=()):
    """Write a .zip: special members first (ZipInfo, content), then the others."""
    with zipfile.ZipFile(path, "w") as opened:
        for member, content in [*special, *contents.items()]:
            opened.writestr(member or "empty", content)
    return path


def linked(name, mode=stat.S_IFLNK):
    found = zipfile.ZipInfo(name)
    found.create_system, found.external_attr = 3, (mode | 0o777) << 16
    return found


def test_tar_members_that_lead_elsewhere_are_not_looked_at(places, monkeypatch):
    inside, outside = places
    archive = tar(inside / "x.tar.gz", {**dict.fromkeys(paths(outside), b"!"), **CIFAR})
    before = everything(inside.parent)
    with guarded(monkeypatch):
        train, test = official.cifar_binary(archive, 100)
    assert len(train.labels) == 4 and len(test.labels) == 2
    assert everything(inside.parent) == before


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"V", b"Z"])
def test_a_member_that_is_no_plain_file_is_not_read(kind, places, monkeypatch):
    """Hard link, link, character device, block device, folder, pipe, contiguous, sparse, volume header, unknown."""
    inside, outside = places
    rest = {name: content for name, content in CIFAR.items() if name != TEST}
    archive = tar(inside / "x.tar.gz", rest, [(info(TEST, kind, str(outside / "secret")), b"")])
    before = everything(inside.parent)
    with (
        guarded(monkeypatch),
        pytest.raises(DataError, match=r"x\.tar\.gz: (holds no regular file cifar-100-binary/test\.bin|is truncated)"),
    ):
        official.cifar_binary(archive, 100)
    assert everything(inside.parent) == before


def test_a_folder_that_is_a_link_does_not_lead_a_member_elsewhere(places, monkeypatch):
    inside, outside = places
    special = [(info("cifar-100-binary", tarfile.SYMTYPE, str(outside)), b""), (info("l", tarfile.LNKTYPE, "../outside/secret"), b"")]
    archive = tar(inside / "x.tar.gz", CIFAR, special)
    before = everything(inside.parent)
    with guarded(monkeypatch):
        official.cifar_binary(archive, 100)
    assert everything(inside.parent) == before


def test_a_member_that_is_there_twice(places):
    archive = tar(places[0] / "x.tar.gz", CIFAR, [(info(TEST), bytes(3074))])
    with pytest.raises(DataError, match=f"x.tar.gz: holds {TEST} twice"):
        official.cifar_binary(archive, 100)


def readers(root):
    """Return for each reader of a .zip: what its archive holds, one member of it, and how it is read."""
    sounds = spoken(write_tones(root / "tones", WORDS, 2))
    images = tiny_members(WNIDS, 1, 1)[1]
    image = next(name for name in images if name.endswith("_0.JPEG"))
    return {
        "speech": (sounds, "mini_speech_commands/no/00.wav", lambda path: clips.speech_zip(path, tuple(WORDS))),
        "tiny": (images, image, lambda path: tiny.archive(path, 2)),
    }


@pytest.mark.parametrize("name", ["speech", "tiny"])
def test_zip_members_that_lead_elsewhere_are_not_looked_at(name, places, monkeypatch):
    inside, outside = places
    contents, one, read = readers(inside)[name]
    plain = zipped(inside / "plain.zip", contents)
    top = one.split("/")[0]
    wicked = [*paths(outside), f"{top}/../../planted", f"{top}/no/../../../planted.wav", f"{top}/train/../planted.JPEG"]
    archive = zipped(inside / "x.zip", {**dict.fromkeys(wicked, wav(np.zeros(9))), **contents})
    before = everything(inside.parent)
    with guarded(monkeypatch):
        for found, wanted in zip(read(archive), read(plain), strict=True):
            assert np.array_equal(found.images, wanted.images) and np.array_equal(found.labels, wanted.labels)
    assert everything(inside.parent) == before


@pytest.mark.parametrize("name", ["speech", "tiny"])
@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_member_that_is_no_plain_file_says_nothing_of_others(name, mode, places, monkeypatch):
    """What a link would lead to is never read: its content is the name of the target, which is no sound and no image."""
    inside, outside = places
    contents, one, read = readers(inside)[name]
    rest = {key: content for key, content in contents.items() if key != one}
    archive = zipped(inside / "x.zip", rest, [(linked(one, mode), str(outside / "secret").encode())])
    before = everything(inside.parent)
    with guarded(monkeypatch), pytest.raises(DataError, match=r"x\.zip: "):
        read(archive)
    assert everything(inside.parent) == before


def test_arrays_with_strange_names(places, monkeypatch):
    inside, outside = places
    file = inside / "pathmnist.npz"
    arrays = {f"{split}_{what}": array for split in ("train", "test") for what, array in (
        ("images", np.zeros((1, 28, 28, 3), np.uint8)), ("labels", np.zeros((1, 1), np.uint8)))}  # fmt: skip
    np.savez(file, **arrays)
    with zipfile.ZipFile(file, "a") as opened:
        for name in paths(outside):
            opened.writestr(zipfile.ZipInfo(name or "empty"), b"!")
    before = everything(inside.parent)
    with guarded(monkeypatch):
        assert npz.pathmnist(inside)[0].images.shape == (1, 3, 32, 32)
    assert everything(inside.parent) == before


def test_packed_results_that_lead_elsewhere_are_refused_and_nothing_is_unpacked(places, monkeypatch):
    inside, outside = places
    good, tried = {"results/scores/a.json": b"{}"}, 0
    names = [*paths(outside), "results/../planted", "results/scores/../../../planted", "dd/__main__.py", "results/.unpack/0", "Snakefile"]
    specials = [[(info(name), b"!")] for name in names]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    specials += [[(info("results/scores/b", kind, str(outside / "secret")), b"")] for kind in kinds]
    specials += [[(info("results/scores", tarfile.SYMTYPE, str(outside)), b"")]]
    before = everything(outside)
    for special in specials:
        archive = tar(inside / "x.tar.gz", good, special)
        root = inside / "root"
        with guarded(monkeypatch, root), pytest.raises(DDError, match=r"x\.tar\.gz: "):
            unpack(archive, root)
        assert not [path for path in root.rglob("*") if path.is_file()], special[0][0].name
        tried += 1
    assert everything(outside) == before and tried > 30
    assert unpack(tar(inside / "x.tar.gz", good), inside / "root") == 1
