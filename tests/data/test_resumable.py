"""Images that are decoded into a file: stopped anywhere and continued, the file is the same, and nothing is decoded twice for nothing."""

import json
import os
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from dd.data import resumable
from dd.data.resumable import decoded
from dd.errors import DataError

SHAPE = (3, 2, 2)


@pytest.fixture
def files(tmp_path):
    """Return (folder, names) of 25 files of 12 bytes."""
    base = tmp_path / "train"
    names = [f"{k % 3}/{k}.raw" for k in range(25)]
    for k, name in enumerate(names):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(bytes(range(k, k + 12)))
    return base, names


class Decoder:
    """Make an image of a file's 12 bytes; note which, and raise at `stop` of them."""

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.names, self.stop, self.error = [], stop, error

    def __call__(self, data, name):
        if len(self.names) == self.stop:
            raise self.error(f"{name}: stopped")
        self.names.append("/".join(name.split("/")[-2:]))
        return np.frombuffer(data, np.uint8).reshape(SHAPE)


def run(files, store, decoder, form="f", shape=SHAPE):
    return decoded(files[0], files[1], shape, decoder, store, form)


def right(files):
    return np.stack([np.frombuffer((files[0] / name).read_bytes(), np.uint8).reshape(SHAPE) for name in files[1]])


def test_images_are_mapped_in_the_order_of_the_names(files, tmp_path):
    decoder = Decoder()
    images = run(files, tmp_path / "r" / "x.u8", decoder)
    assert isinstance(images, np.memmap) and not images.flags.writeable and images.dtype == np.uint8
    assert np.array_equal(images, right(files)) and decoder.names == files[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
@pytest.mark.parametrize("stop", [0, 1, 7, 24])
def test_stopped_and_continued(stop, error, files, tmp_path):
    first, second, third = Decoder(stop, error), Decoder(), Decoder()
    with pytest.raises(error):
        run(files, tmp_path / "x.u8", first)
    assert np.array_equal(run(files, tmp_path / "x.u8", second), right(files))
    assert first.names == files[1][:stop] and second.names == files[1][stop:]
    assert np.array_equal(run(files, tmp_path / "x.u8", third), right(files)) and third.names == []


@pytest.mark.parametrize("died", [2, 4, 11])
def test_after_a_death_without_a_word_it_continues_at_the_last_note(died, files, tmp_path, monkeypatch):
    code = f"""
import os, sys
import numpy as np
from pathlib import Path
from dd.data import resumable
resumable.EVERY = 4
seen = []
def decode(data, name):
    if len(seen) == {died}:
        os._exit(9)
    seen.append(name)
    return np.frombuffer(data, np.uint8).reshape(3, 2, 2)
resumable.decoded(Path({str(files[0])!r}), {files[1]!r}, (3, 2, 2), decode, Path({str(tmp_path / "x.u8")!r}), "f")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    decoder = Decoder()
    assert np.array_equal(run(files, tmp_path / "x.u8", decoder), right(files))
    assert decoder.names == files[1][died // 4 * 4 :]


def test_a_note_is_never_ahead_of_the_images(files, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "EVERY", 4)
    store, noted = tmp_path / "x.u8", []
    real = resumable.write_json

    def write_json(path, value):
        noted.append(value["done"])
        assert store.stat().st_size >= 12 * value["done"]
        assert store.read_bytes()[: 12 * value["done"]] == right(files)[: value["done"]].tobytes()
        real(path, value)

    monkeypatch.setattr(resumable, "write_json", write_json)
    run(files, store, Decoder())
    assert noted == [4, 8, 12, 16, 20, 24, 25]


def partly(files, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(files, tmp_path / "x.u8", Decoder(10))
    return tmp_path / "x.u8"


def test_half_an_image_after_the_note_is_cut_off(files, tmp_path):
    with open(partly(files, tmp_path), "ab") as file:
        file.write(b"1234567")
    decoder = Decoder()
    assert np.array_equal(run(files, tmp_path / "x.u8", decoder), right(files)) and decoder.names == files[1][10:]


def test_a_later_file_may_be_replaced_or_removed(files, tmp_path):
    partly(files, tmp_path)
    (files[0] / files[1][10]).write_bytes(bytes(12))
    files[1].pop()
    decoder = Decoder()
    assert np.array_equal(run(files, tmp_path / "x.u8", decoder), right(files)) and decoder.names == files[1][10:]


def change_time(files, store):
    os.utime(files[0] / files[1][3], (1, 1))


def change_size(files, store):
    facts = (files[0] / files[1][3]).stat()
    (files[0] / files[1][3]).write_bytes(bytes(12))
    os.utime(files[0] / files[1][3], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def change_order(files, store):
    files[1][2], files[1][3] = files[1][3], files[1][2]


def add_before(files, store):
    (files[0] / "0" / "new.raw").write_bytes(bytes(12))
    files[1].insert(0, "0/new.raw")


def remove_before(files, store):
    files[1].pop(0)


def shorten(files, store):
    store.write_bytes(store.read_bytes()[:-1])


def no_store(files, store):
    store.unlink()


def no_note(files, store):
    store.with_name("x.u8.json").unlink()


def bad_note(files, store):
    store.with_name("x.u8.json").write_text("[1]")


def negative(files, store):
    note = store.with_name("x.u8.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "done": -1}))


def wrong_count(files, store):
    note = store.with_name("x.u8.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "done": 9}))


@pytest.mark.parametrize(
    "change",
    [change_time, change_size, change_order, add_before, remove_before, shorten, no_store, no_note, bad_note, negative, wrong_count],
)
def test_after_a_change_it_starts_over(change, files, tmp_path):
    change(files, partly(files, tmp_path))
    decoder = Decoder()
    assert np.array_equal(run(files, tmp_path / "x.u8", decoder), right(files)) and decoder.names == files[1]


def test_another_form_or_pillow_starts_over(files, tmp_path, monkeypatch):
    partly(files, tmp_path)
    decoder = Decoder()
    run(files, tmp_path / "x.u8", decoder, "g")
    assert decoder.names == files[1]
    monkeypatch.setattr("PIL.__version__", "0")
    decoder = Decoder()
    run(files, tmp_path / "x.u8", decoder, "g")
    assert decoder.names == files[1]


def test_mistakes_name_the_file(files, tmp_path):
    gone = files[0] / files[1][7]
    gone.unlink()
    with pytest.raises(DataError, match=f"^{gone}: cannot be read: No such file"):
        run(files, tmp_path / "x.u8", Decoder())
    (tmp_path / "y").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path}/y: cannot be written: "):
        run(files, tmp_path / "y", Decoder())
    with pytest.raises(ValueError, match=r"became uint8 \(3, 2, 2\); must be uint8 \(1, 12\)"):
        run(files, tmp_path / "z", Decoder(), shape=(1, 12))


def test_a_full_disk(files, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "EVERY", 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # bytes: room for 8 images, and for a note
    try:
        with pytest.raises(DataError, match=f"^{tmp_path}/x.u8: cannot be written: File too large; what is done is kept"):
            run(files, tmp_path / "x.u8", Decoder())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    decoder = Decoder()
    assert np.array_equal(run(files, tmp_path / "x.u8", decoder), right(files)) and decoder.names == files[1][8:]


def test_pixels_are_never_in_memory(files, tmp_path):
    peaks = []
    for count in (5, 25):
        tracemalloc.start()
        decoded(files[0], files[1][:count], (400, 400), lambda data, name: np.zeros((400, 400), np.uint8), tmp_path / f"{count}.u8", "f")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 160_000 < 2_000_000  # less than one image more for 20
