"""Results travel as one file: what is packed, and what is refused when it comes back."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest

from dd.errors import ArtifactError
from dd.plan import pack as module
from dd.plan.pack import ARCHIVE, load, pack, unpack

FILES = {
    "results/scores/ab/net/set0.json": b"{}",
    "results/distilled/digits/dm/seed0/distilled.safetensors": bytes(range(256)) * 40,
    "results/distilled/digits/dm/seed1/.resume/state.safetensors": b"state",
    "results/pretrained/digits/net/epoch1/seed0.safetensors": b"first",
    "results/pretrained/digits/net/epoch2/seed0.safetensors": b"second",
    "results/pretrained/digits/net/epoch2/seed0.run.json": b"facts",
    "results/pretrained/digits/net/epoch3/.resume/seed0.safetensors": b"on its way",
    "results/generators/digits/gan/epoch9.quality.json": b"measures",
    "results/generators/digits/gan/epoch9.safetensors": b"weights",
    "results/experts/digits/net/expert0.safetensors": b"trajectory",
}


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "results").rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path):
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def away(tmp_path):
    write(tmp_path / "away", {**FILES, "results/README.md": b"", "results/scores/ab/.set1.json.77.tmp": b"half", "results/.unpack/3": b"x"})
    return tmp_path / "away"


def packed(entries, *, kind=tarfile.REGTYPE, link=""):
    """Return an archive of (name, bytes), all of one kind."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def test_what_is_packed_comes_back_but_for_weights_that_nothing_needs(away, home, tmp_path):
    archive = tmp_path / ARCHIVE
    sizes = pack(away, archive, {"results/pretrained/digits/net/epoch2/seed0.safetensors"}, ["generators"])
    assert unpack(archive, home) == len(FILES) - 2
    left_out = {"results/pretrained/digits/net/epoch1/seed0.safetensors", "results/experts/digits/net/expert0.safetensors"}
    assert found(home) == {name: data for name, data in FILES.items() if name not in left_out}
    assert sizes == {"scores": 2, "distilled": 10245, "pretrained": 21, "generators": 15}
    assert not (home / "results" / ".unpack").exists()
    for name in found(home):
        assert (home / name).stat().st_mtime == int((away / name).stat().st_mtime)


def test_nothing_to_unpack_is_no_mistake(home, tmp_path):
    assert unpack(tmp_path / "absent", home) == 0
    assert not list(home.iterdir())
    pack(home, tmp_path / ARCHIVE, (), ())
    assert unpack(tmp_path / ARCHIVE, home) == 0


@pytest.mark.parametrize("when", [1e9, 2e9])
def test_a_result_that_is_here_stays_whatever_the_clocks_say(when, away, home, tmp_path):
    pack(away, tmp_path / ARCHIVE, (), ())
    name = "results/scores/ab/net/set0.json"
    write(home, {name: b"here"})
    os.utime(home / name, (when, when))
    unpack(tmp_path / ARCHIVE, home)
    assert (home / name).read_bytes() == b"here"
    assert unpack(tmp_path / ARCHIVE, home) == 0


@pytest.mark.parametrize(("here", "wins"), [(1e9, "archive"), (2e9, "here")])
def test_of_states_the_newer_ones_count_with_the_note_beside_them(here, wins, away, home, tmp_path):
    folder = "results/distilled/digits/dm/seed1/.resume"
    theirs = {"state.safetensors": (b"state", 1.5e9), "state.safetensors.job.json": (b"its code", 0.5e9), "steps/5.safetensors": (b"5", 1.4e9)}
    ours = {"state.safetensors": (b"older or newer", here), "state.safetensors.job.json": (b"other code", 0.9e9)}
    for root, files in ((away, theirs), (home, ours)):
        for name, (data, when) in files.items():
            write(root, {f"{folder}/{name}": data})
            os.utime(root / folder / name, (when, when))
    pack(away, tmp_path / ARCHIVE, (), ())
    unpack(tmp_path / ARCHIVE, home)
    wanted = {f"{folder}/{name}": data for name, (data, _) in (theirs if wins == "archive" else ours).items()}
    assert {name: data for name, data in found(home).items() if name.startswith(folder)} == wanted


def test_what_is_to_be_packed_is_known_before(away, tmp_path):
    needed = {"results/pretrained/digits/net/epoch2/seed0.safetensors"}
    assert load(away, needed, ["experts"]) == sum(pack(away, tmp_path / ARCHIVE, needed, ["experts"]).values())
    names = set()
    assert unpack(tmp_path / ARCHIVE, away, names) == 0
    assert names == {name for name in FILES if "epoch1/" not in name and "epoch9.safetensors" not in name}


def test_text_is_compressed_and_weights_are_not(home, tmp_path):
    write(home, {"results/a/x.json": b"0" * 100_000, "results/a/x.safetensors": b"0" * 100_000, "results/b/y.json": b"1" * 100_000})
    pack(home, tmp_path / ARCHIVE, (), ())
    assert 100_000 < (tmp_path / ARCHIVE).stat().st_size < 125_000  # the end of an archive is padded
    with tarfile.open(tmp_path / ARCHIVE) as tar:  # what others read with `tar xzf`
        assert tar.getnames() == ["results/a/x.json", "results/b/y.json", "results/a/x.safetensors"]


@pytest.mark.parametrize("when", ["nan", "inf", "-inf", "1e300", "-1e30"])
def test_a_time_that_is_none_is_refused(when, home, tmp_path):
    with tarfile.open(tmp_path / ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("results/scores/x.json")
        member.pax_headers = {"mtime": when}
        tar.addfile(member)
    with pytest.raises(ArtifactError, match=rf"{ARCHIVE}: member 'results/scores/x.json': .* is no time"):
        unpack(tmp_path / ARCHIVE, home)
    assert found(home) == {}


def test_a_file_that_cannot_be_read_is_named(away, tmp_path, monkeypatch):
    (tmp_path / ARCHIVE).write_bytes(b"old")
    name = "results/scores/ab/net/set0.json"

    class Broken(io.FileIO):
        def read(self, *_size):
            raise OSError(5, "Input/output error")

    def broken(path, *mode):
        return Broken(path) if str(path).endswith(name) else open(path, *mode)

    monkeypatch.setattr(module, "open", broken, raising=False)
    with pytest.raises(ArtifactError, match=f"{name}: cannot be read: Input/output error; nothing was packed"):
        pack(away, tmp_path / ARCHIVE, (), ())
    assert (tmp_path / ARCHIVE).read_bytes() == b"old"


def test_a_file_that_shrinks_while_it_is_packed_is_named(away, tmp_path, monkeypatch):
    name = "results/scores/ab/net/set0.json"
    true = os.fstat

    def fstat(number):
        if os.readlink(f"/proc/self/fd/{number}").endswith(name):
            os.truncate(away / name, 1)
            return os.stat_result([*list(true(number))[:6], 2, 0, 0, 0])
        return true(number)

    monkeypatch.setattr(module.os, "fstat", fstat)
    with pytest.raises(ArtifactError, match=f"{name}: became shorter"):
        pack(away, tmp_path / ARCHIVE, (), ())


def test_a_folder_that_is_a_link_is_refused_by_name(away, tmp_path):
    (tmp_path / "scratch").mkdir()
    (away / "results/analyses").symlink_to(tmp_path / "scratch")
    for look in (lambda: load(away, (), ()), lambda: pack(away, tmp_path / ARCHIVE, (), ())):
        with pytest.raises(ArtifactError, match="results/analyses: is a link to a folder"):
            look()
    assert not (tmp_path / ARCHIVE).exists()


@pytest.mark.parametrize(
    "name",
    ["../outside", "/results/a/b", "results/../../outside", "results/a/../../../outside", "data/prepared/digits/train.safetensors", "dd/a/b.py",
     "results", "results/a", "results/.unpack/a", "./results/a/b", "results//a/b", "results/a/b\\c", "config.yaml"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_changed(name, home, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(packed([("results/scores/good.json", b"good"), (name, b"bad")]))
    with pytest.raises(ArtifactError, match="allowed are plain files under results/"):
        unpack(tmp_path / ARCHIVE, home)
    assert found(home) == {}
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_refused(kind, home, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(packed([("results/scores/x", b"")], kind=kind, link="/etc/passwd"))
    with pytest.raises(ArtifactError, match="allowed are plain files"):
        unpack(tmp_path / ARCHIVE, home)
    assert found(home) == {}


def test_a_sparse_member_is_refused(home, tmp_path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("results/scores/x")
        member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": "99999999", "GNU.sparse.map": "0,1"}
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    (tmp_path / ARCHIVE).write_bytes(raw.getvalue())
    with pytest.raises(ArtifactError):
        unpack(tmp_path / ARCHIVE, home)
    assert found(home) == {}


def test_modes_of_an_archive_do_not_count(home, tmp_path):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        member = tarfile.TarInfo("results/scores/x.json")
        member.mode, member.uid = 0o6777, 12345
        tar.addfile(member)
    (tmp_path / ARCHIVE).write_bytes(raw.getvalue())
    unpack(tmp_path / ARCHIVE, home)
    facts = (home / "results/scores/x.json").stat()
    assert not facts.st_mode & 0o7111
    assert facts.st_uid == os.getuid()


def test_damage_anywhere_is_noticed_and_changes_nothing(away, home, tmp_path):
    pack(away, tmp_path / ARCHIVE, (), ())
    unpack(tmp_path / ARCHIVE, home)
    sound, whole = found(home), (tmp_path / ARCHIVE).read_bytes()
    for name in sound:
        (home / name).unlink()
    places = range(10, len(whole), max(1, len(whole) // 60))  # of the ten bytes before, some mean nothing
    noticed = 0
    damaged = [whole[:at] for at in places] + [b"", whole[:-4]]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :] for at in places]
    for data in damaged:
        (tmp_path / ARCHIVE).write_bytes(data)
        try:
            unpack(tmp_path / ARCHIVE, home)
            assert found(home) == sound  # a repetition may point at another place with the same bytes
            for name in sound:
                (home / name).unlink()
        except ArtifactError as error:
            noticed += 1
            assert str(tmp_path / ARCHIVE) in str(error)
            assert "delete it to begin anew" in str(error)
        assert found(home) == {}
    assert noticed > 0.9 * len(damaged)
    for data in (b"not an archive", gzip.compress(b"no tar in here" * 100), gzip.compress(b"")):
        (tmp_path / ARCHIVE).write_bytes(data)
        with pytest.raises(ArtifactError):
            unpack(tmp_path / ARCHIVE, home)


def test_an_archive_that_cannot_be_written_leaves_the_old_one(away, tmp_path, monkeypatch):
    (tmp_path / ARCHIVE).write_bytes(b"old")

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        pack(away, tmp_path / ARCHIVE, (), ())
    assert (tmp_path / ARCHIVE).read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [ARCHIVE]
