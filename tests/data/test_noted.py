"""A download whose checksum nobody publishes: the first one that is whole gives it."""

import hashlib
import re
from dataclasses import replace

import pytest
from image_files import serving
from sound_files import ZIP, members, pretend_speech, write_tones, zipped

from dd.data.config import load_datasets
from dd.data.download import download
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.errors import ArtifactError, ConfigError, DataError

NAME = "mini_speech_commands"
WORDS = {word: 300.0 * (n + 1) for n, word in enumerate(DATASETS[NAME].classes)}


def sha(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def host(monkeypatch):
    with serving() as host:
        pretend_speech(monkeypatch, (f"{host.url}/first", f"{host.url}/second"), 56, 16)
        yield host


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Return a small archive in the official form."""
    return zipped(members(write_tones(tmp_path_factory.mktemp("tones"), WORDS)))


@pytest.fixture
def file(host, content, tmp_path):
    """Return the path of a file that was downloaded once, from the second mirror, and is there no more."""
    host.files[f"/second/{ZIP}"] = content
    download(NAME, tmp_path)
    (tmp_path / ZIP).unlink()
    return tmp_path / ZIP


def test_the_first_download_is_noted_told_and_goes_into_the_manifest(host, content, tmp_path, capsys):
    host.files[f"/second/{ZIP}"] = content
    host.cut = {f"/second/{ZIP}": len(content) // 2}
    assert download(NAME, tmp_path / "raw") == [tmp_path / "raw" / ZIP]
    assert [asked for path, asked in host.asked if "second" in path] == [None, f"bytes={len(content) // 2}-"]
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [ZIP, f"{ZIP}.sha256"]
    note = tmp_path / "raw" / f"{ZIP}.sha256"
    assert note.read_text() == f"{sha(content).removeprefix('sha256:')}  {ZIP}\n"  # sha256sum -c takes it
    told = capsys.readouterr().err
    assert sha(content) in told and note.name in told
    facts = prepare(NAME, load_datasets({}, "test")[NAME], tmp_path / "raw", tmp_path / "out")
    assert facts["downloads"] == {ZIP: sha(content)}
    host.asked.clear()
    download(NAME, tmp_path / "raw")
    assert host.asked == [] and sha(content) not in capsys.readouterr().err


def test_a_later_download_must_be_the_same(file, host, content, capsys):
    capsys.readouterr()
    download(NAME, file.parent)
    assert file.read_bytes() == content and "nobody publishes" not in capsys.readouterr().err
    file.unlink()
    host.files[f"/second/{ZIP}"] = other = zipped({f"mini_speech_commands/{word}/a.wav": b"x" for word in WORDS})
    with pytest.raises(DataError, match=rf"(?s)sent a file whose checksum is {sha(other)}, not {sha(content)}.*delete .*\.zip\.sha256"):
        download(NAME, file.parent)
    assert [path.name for path in file.parent.iterdir()] == [f"{ZIP}.sha256"]


def test_a_changed_file_is_refused_by_download_and_prepare(file, host, content):
    host.asked.clear()
    file.write_bytes(content + b"x")
    both = rf"{ZIP}: its checksum is {sha(content + b'x')}, but that of the first download was {sha(content)}"
    with pytest.raises(DataError, match=both):
        download(NAME, file.parent)
    with pytest.raises(DataError, match=both):
        prepare(NAME, load_datasets({}, "test")[NAME], file.parent, file.parent / "out")
    assert host.asked == [] and file.read_bytes() == content + b"x" and not (file.parent / "out").exists()
    file.unlink()
    with pytest.raises(DataError, match=f"{file}: no such file"):
        prepare(NAME, load_datasets({}, "test")[NAME], file.parent, file.parent / "out")


@pytest.mark.parametrize("change", [lambda x: x[:-100], lambda x: b"<html>please log in</html>", lambda x: b"", lambda x: x[:900] + b"!" + x[901:]])
def test_what_is_no_whole_archive_is_never_noted(change, host, content, tmp_path):
    host.files[f"/second/{ZIP}"] = change(content)
    with pytest.raises(DataError, match=r"(?s)first/.*answers 404.*second/.*sent a file that is no whole \.zip.*no checksum is known"):
        download(NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_is_continued_renamed_or_started_over(host, content, tmp_path):
    host.files[f"/second/{ZIP}"] = content
    for before, asked in ((content[:5000], 2), (content, 0), (b"x" * 5000, 3), (b"x" * 2 * len(content), 3)):
        folder = tmp_path / str(asked) / str(len(before))
        folder.mkdir(parents=True)
        (folder / f"{ZIP}.part").write_bytes(before)
        host.asked.clear()
        download(NAME, folder)
        assert (folder / ZIP).read_bytes() == content and (folder / f"{ZIP}.sha256").exists()
        assert not (folder / f"{ZIP}.part").exists() and len(host.asked) == asked


def test_a_file_that_somebody_put_there(host, content, tmp_path, capsys):
    (tmp_path / ZIP).write_bytes(content)
    facts = prepare(NAME, load_datasets({}, "test")[NAME], tmp_path, tmp_path / "out")
    assert facts["downloads"] == {ZIP: sha(content)}
    download(NAME, tmp_path)
    assert host.asked == [] and sha(content) == "sha256:" + (tmp_path / f"{ZIP}.sha256").read_text().split()[0]
    assert sha(content) in capsys.readouterr().err
    (tmp_path / f"{ZIP}.sha256").unlink()
    (tmp_path / ZIP).write_bytes(content[:1000])
    host.files[f"/first/{ZIP}"] = content
    download(NAME, tmp_path)
    assert (tmp_path / ZIP).read_bytes() == content and "not a whole .zip" in capsys.readouterr().err


def test_a_damaged_note(file):
    note = file.with_name(f"{ZIP}.sha256")
    for text in ("", "abc", "g" * 64 + "  x", "0" * 63 + "  x"):
        note.write_text(text)
        with pytest.raises(DataError, match=f"{re.escape(str(note))}: is not a sha256"):
            download(NAME, file.parent)
    assert note.read_text() == text and not file.exists()


def test_a_note_that_cannot_be_written_leaves_no_file(host, content, tmp_path, monkeypatch):
    host.files[f"/first/{ZIP}"] = content

    def full(path, text):
        raise ArtifactError(f"{path}: cannot be written: no space")

    monkeypatch.setattr("dd.data.noted.write_text", full)
    with pytest.raises(ArtifactError, match="no space"):
        download(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ZIP}.part"]


def test_only_archives_that_check_themselves_may_have_none(monkeypatch, tmp_path):
    spec = DATASETS["mnist"]
    monkeypatch.setitem(DATASETS, "mnist", replace(spec, downloads=(replace(spec.downloads[0], checksum=None),)))
    with pytest.raises(ConfigError, match=r"mnist: .*\.gz: checksum: is absent; allowed for a \.zip only"):
        download("mnist", tmp_path)
