"""Downloads against a server on this machine, for every registered dataset of images that has one (sounds: test_noted.py)."""

import hashlib
import re
from dataclasses import replace

import pytest
from image_files import official, pretend, serving
from safetensors.numpy import load_file

from dd.data.config import load_datasets
from dd.data.download import download
from dd.data.load import manifest
from dd.data.prepare import prepare
from dd.data.registry import DATASETS, raw_files
from dd.errors import ConfigError, DataError

DOWNLOADABLE = [name for name, spec in DATASETS.items() if spec.downloads and spec.layout != "speech"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def host():
    with serving() as host:
        yield host


@pytest.fixture
def one(host, monkeypatch):
    """Return a dataset of one file of 2 MB, on the mirrors /first and /second (which has it)."""
    content = bytes(range(256)) * 8000
    pretend(monkeypatch, "mnist", {"train": ((), ()), "test": ((), ())}, {"a.gz": content}, (f"{host.url}/first", f"{host.url}/second"))
    host.files["/second/a.gz"] = content
    return content


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_each_dataset_is_fetched_over_mirrors_in_pieces_and_prepared(name, host, tmp_path, monkeypatch):
    data, files = official(name, tmp_path / "official")
    pretend(monkeypatch, name, data, files, (f"{host.url}/gone", f"{host.url}/here"))
    host.files = {f"/here/{file}": content for file, content in files.items()}
    host.cut = {f"/here/{file}": len(content) // 2 for file, content in files.items()}
    raw = tmp_path / "raw"
    assert [path.name for path in download(name, raw)] == raw_files(name)
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == files  # and nothing else: no .part is left
    for file, content in files.items():
        ranges = [asked for path, asked in host.asked if path == f"/here/{file}"]
        assert ranges == [None, f"bytes={len(content) // 2}-"]
        assert f"/gone/{file}" in [path for path, _ in host.asked]

    out = tmp_path / "out"
    prepare(name, load_datasets({}, "test")[name], raw, out)
    assert manifest(out)["classes"] == list(DATASETS[name].classes)
    for split, (images, labels) in data.items():
        expected = sorted((int(label), hashlib.sha256(x.tobytes()).digest(), x.tobytes()) for x, label in zip(images, labels, strict=True))
        there = load_file(out / f"{split}.safetensors")
        found = [(int(label), x.tobytes()) for x, label in zip(there["images"], there["labels"], strict=True)]
        assert found == [(label, pixels) for label, _, pixels in expected]


def test_a_partial_file_is_continued(one, host, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(one[:1_000_000])
    download("mnist", tmp_path)
    assert host.asked == [("/first/a.gz", "bytes=1000000-"), ("/second/a.gz", "bytes=1000000-")]
    assert (tmp_path / "a.gz").read_bytes() == one


def test_a_partial_file_that_is_whole_is_only_renamed(one, host, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(one)
    download("mnist", tmp_path)
    assert host.asked == [] and [path.name for path in tmp_path.iterdir()] == ["a.gz"]


@pytest.mark.parametrize("rubbish", [b"x" * 1000, b"x" * 3_000_000], ids=["shorter", "longer"])
def test_a_partial_file_of_something_else_is_started_over(rubbish, one, host, tmp_path):
    (tmp_path / "a.gz.part").write_bytes(rubbish)
    download("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == one


def test_a_server_without_ranges_sends_the_whole_file(one, host, tmp_path):
    host.ranges = False
    (tmp_path / "a.gz.part").write_bytes(one[:500])
    download("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == one


def test_bytes_are_kept_as_they_are_stored(one, host, tmp_path):
    host.headers = {"Content-Encoding": "gzip"}  # some servers say so of any .gz file
    download("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == one


def test_what_has_arrived_is_kept_for_the_next_time(one, host, tmp_path):
    class Always(dict):
        def pop(self, key, default):
            return 700_000

    host.cut = Always()
    with pytest.raises(DataError, match=r"(?s)a\.gz.*first/a\.gz: answers 404.*second/a\.gz: .*Run again later") as caught:
        download("mnist", tmp_path)
    assert str(tmp_path / "a.gz") in str(caught.value) and "config.yaml" in str(caught.value)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("a.gz.part", 700_000)]
    host.cut, host.asked = {}, []
    download("mnist", tmp_path)
    assert host.asked[-1] == ("/second/a.gz", "bytes=700000-") and (tmp_path / "a.gz").read_bytes() == one


def test_wrong_bytes_are_refused(one, host, tmp_path):
    host.files["/first/a.gz"] = b"<html>please log in</html>"
    download("mnist", tmp_path)  # the second mirror has the right ones
    (tmp_path / "a.gz").unlink()
    host.files["/second/a.gz"] = one[:-1] + b"\0"
    login, wrong, right = ("md5:" + hashlib.md5(x).hexdigest() for x in (host.files["/first/a.gz"], host.files["/second/a.gz"], one))
    first, second = (rf"{m}/a\.gz: sent a file whose checksum is {got}, not {right}" for m, got in (("first", login), ("second", wrong)))
    with pytest.raises(DataError, match=rf"(?s)dataset mnist: a\.gz cannot be downloaded:.*{first}.*{second}"):
        download("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_is_left_alone_and_a_damaged_one_replaced(one, host, tmp_path, capsys):
    (tmp_path / "a.gz").write_bytes(one)
    download("mnist", tmp_path)
    assert host.asked == []
    (tmp_path / "a.gz").write_bytes(one[:-5])
    download("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == one
    found, right = (hashlib.md5(x).hexdigest() for x in (one[:-5], one))
    assert f"a.gz: is there, but its checksum is md5:{found}, not md5:{right}" in capsys.readouterr().err


@pytest.mark.parametrize("checksum", ["", "md5:", "md5:abc", "crc32:" + "0" * 8, "sha256:" + "0" * 32])
def test_a_file_that_nothing_pins_is_never_asked_for(checksum, one, host, tmp_path, monkeypatch):
    spec = DATASETS["mnist"]
    monkeypatch.setitem(DATASETS, "mnist", replace(spec, downloads=(replace(spec.downloads[0], checksum=checksum),)))
    with pytest.raises(ConfigError, match=rf"registry\.py: mnist: a\.gz: checksum: value '{checksum}'; allowed: md5: .* sha256: "):
        download("mnist", tmp_path / "raw")
    assert host.asked == [] and not (tmp_path / "raw").exists()


def test_sha256(one, host, tmp_path, monkeypatch):
    spec, right = DATASETS["mnist"], "sha256:" + hashlib.sha256(one).hexdigest()
    monkeypatch.setitem(DATASETS, "mnist", replace(spec, downloads=(replace(spec.downloads[0], checksum=right),)))
    host.files["/first/a.gz"] = one[1:]
    download("mnist", tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == one
    assert [path for path, _ in host.asked] == ["/first/a.gz", "/second/a.gz"]


def test_no_server_at_all(monkeypatch, tmp_path):
    with serving() as host:
        url = host.url
    pretend(monkeypatch, "mnist", {"train": ((), ()), "test": ((), ())}, {"a.gz": b""}, (url,))
    with pytest.raises(DataError, match=re.escape(f"{url}/a.gz: [Errno ")):
        download("mnist", tmp_path)


def test_nothing_to_download(tmp_path):
    with pytest.raises(ConfigError, match="digits: has no files to download"):
        download("digits", tmp_path)
    with pytest.raises(ConfigError, match=r"imagenet32: has no files to download \(the downsampled ImageNet needs a login at https://"):
        download("imagenet32", tmp_path)
    with pytest.raises(ConfigError, match="'cifar1O'; did you mean 'cifar1"):
        download("cifar1O", tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        download("mnist", tmp_path / "file" / "raw")
