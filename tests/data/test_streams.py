"""Tensors that are written a block at a time are the same file as those that are written whole."""

import filecmp
import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import torch

from dd import artifacts
from dd.artifacts import Stream, load_tensors, read_meta, save_streams, save_tensors
from dd.errors import ArtifactError

RNG = np.random.default_rng(0)
ARRAYS = {
    "images": RNG.integers(0, 256, (11, 3, 5, 7), dtype=np.uint8),
    "labels": RNG.integers(-9, 9, 11),
    "Zulu": RNG.normal(size=(11, 2)).astype(np.float32),
    "aside": RNG.integers(0, 256, (3,), dtype=np.uint8),
    'a"\\\té\x7f\x01': RNG.normal(size=(2, 1)).astype(np.float32),
}
META = {"name": 'é"\\\n\x02', "n": [1, None], "float": 0.1}


def streams(arrays, step):
    def parts(array):
        return lambda: (array[start : start + step] for start in range(0, len(array), step))

    return {name: Stream(array.shape, array.dtype, parts(array)) for name, array in arrays.items()}


@pytest.mark.parametrize("step", [1, 4, 100])
@pytest.mark.parametrize("names", [["images"], ["images", "labels"], ["labels", "aside", "images"], list(ARRAYS)], ids=len)
def test_the_bytes_are_those_of_save_tensors(names, step, tmp_path):
    arrays = {name: ARRAYS[name] for name in names}
    save_tensors(tmp_path / "whole", {name: torch.from_numpy(array) for name, array in arrays.items()}, META)
    save_streams(tmp_path / "streamed", streams(arrays, step), META)
    assert filecmp.cmp(tmp_path / "whole", tmp_path / "streamed", shallow=False)
    tensors, meta = load_tensors(tmp_path / "streamed")
    assert meta == META == read_meta(tmp_path / "streamed")
    assert {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} == {name: x.tobytes() for name, x in arrays.items()}
    assert all(tensors[name].numpy().dtype == x.dtype and tensors[name].shape == x.shape for name, x in arrays.items())


@pytest.mark.parametrize("meta", range(9))
def test_headers_of_every_length(meta, tmp_path):
    arrays = {"labels": ARRAYS["labels"], "none": np.empty((0, 4), np.float32)}
    save_tensors(tmp_path / "whole", {name: torch.from_numpy(array) for name, array in arrays.items()}, {"x": "x" * meta})
    save_streams(tmp_path / "streamed", streams(arrays, 3), {"x": "x" * meta})
    assert filecmp.cmp(tmp_path / "whole", tmp_path / "streamed", shallow=False)


def test_the_form_read_by_hand(tmp_path):
    save_streams(tmp_path / "x", streams({"images": ARRAYS["images"], "labels": ARRAYS["labels"]}, 2))
    data = (tmp_path / "x").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    digest = hashlib.sha256()
    for name, kind, array in (("images", "torch.uint8", ARRAYS["images"]), ("labels", "torch.int64", ARRAYS["labels"])):
        start, end = header[name]["data_offsets"]
        assert data[8 + length :][start:end] == array.tobytes()
        digest.update(f"{name}:{kind}:{array.shape}\n".encode() + array.tobytes())
    meta = {"meta": {}, "meta_sha256": hashlib.sha256(b"{}").hexdigest(), "sha256": digest.hexdigest()}
    assert json.loads(header["__metadata__"]["dd"]) == meta and length % 8 == 0


def test_blocks_that_are_not_contiguous(tmp_path):
    turned = ARRAYS["images"].transpose(0, 2, 3, 1)
    save_streams(tmp_path / "streamed", streams({"x": turned}, 4))
    assert np.array_equal(load_tensors(tmp_path / "streamed")[0]["x"].numpy(), turned)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (Stream((4, 2), np.dtype(np.int64), lambda: [np.zeros((3, 2), np.int64)]), "x: the blocks have 3 rows, the whole has 4"),
        (
            Stream((2, 2), np.dtype(np.int64), lambda: [np.zeros((2, 3), np.int64)]),
            r"x: a block is int64 \(2, 3\), the whole int64 \(2, 2\)",
        ),
        (Stream((2,), np.dtype(np.int64), lambda: [np.zeros(2, np.float32)]), "x: a block is float32"),
        (Stream((2,), np.dtype(np.float64), lambda: [np.zeros(2)]), "x: float64 cannot be streamed; allowed: int64, float32, uint8"),
    ],
    ids=["rows", "shape", "type of a block", "type"],
)
def test_blocks_that_do_not_fit(stream, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        save_streams(tmp_path / "x", {"x": stream})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path):
    calls = []

    def parts():
        calls.append(1)
        yield ARRAYS["labels"][:5]
        if len(calls) == 2:  # while the file is written
            raise OSError(28, "No space left on device")
        yield ARRAYS["labels"][5:]

    with pytest.raises(ArtifactError, match="x: cannot be written: No space left on device"):
        save_streams(tmp_path / "x", {"labels": Stream((11,), np.dtype(np.int64), parts)})
    assert list(tmp_path.iterdir()) == [] and len(calls) == 2


def test_memory_is_that_of_a_block(tmp_path):
    block = np.zeros((100, 1000), np.uint8)
    peaks = []
    for blocks in (10, 200):
        stream = Stream((100 * blocks, 1000), block.dtype, lambda blocks=blocks: (block.copy() for _ in range(blocks)))
        tracemalloc.start()
        save_streams(tmp_path / "x", {"x": stream})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000 < 400_000


def test_what_is_loaded_is_mapped_and_not_the_file(tmp_path):
    save_streams(tmp_path / "x", streams({"images": ARRAYS["images"]}, 3))
    there = (tmp_path / "x").read_bytes()
    images = load_tensors(tmp_path / "x")[0]["images"]
    images += 1
    assert (tmp_path / "x").read_bytes() == there and np.array_equal(images.numpy(), ARRAYS["images"] + 1)
    assert artifacts.load_tensors(tmp_path / "x")[0]["images"].numpy().tobytes() == ARRAYS["images"].tobytes()
