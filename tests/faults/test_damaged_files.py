"""Whatever happens to the bytes of a file of tensors: what was written comes back, or an error that names the file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dd.artifacts import load_tensors, read_meta, save_tensors
from dd.errors import ArtifactError

TENSORS = {"images": torch.arange(6.0).view(2, 3), "labels": torch.arange(2), "mean": torch.tensor([0.5, 0.25, 0.125])}
META = {"config": {"epochs": 2, "lr": 0.01}, "seed": 0, "rows": [1.5, 2.5], "name": "a name"}


def written(folder: Path) -> bytes:
    path = folder / "file.safetensors"
    save_tensors(path, TENSORS, META)
    return path.read_bytes()


def flipped(content: bytes, at: int, bits: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def damaged(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    for at in range(len(content)):
        bits = 1 << chance.randrange(8)
        yield f"bits {bits} of byte {at}", flipped(content, at, bits)
        if chr(content[at]).isdigit():  # the worst of all: it stays well formed
            yield f"digit {at}", flipped(content, at, ord("1") ^ ord("0"))
    for at in range(len(content)):
        yield f"cut at {at}", content[:at]
    for at in (0, 8, len(content) // 2, len(content) - 4):
        yield f"zeros from {at}", content[:at] + bytes(len(content) - at)
        yield f"more at {at}", content[:at] + b"\0\0\0\0" + content[at:]


def test_every_byte_is_watched(tmp_path: Path, chance: random.Random) -> None:
    content, path, tried, refused = written(tmp_path), tmp_path / "file.safetensors", 0, 0
    for what, broken in damaged(content, chance):
        path.write_bytes(broken)
        tried += 1
        try:
            tensors, meta = load_tensors(path)
        except ArtifactError as error:
            assert str(path) in str(error), what
            refused += 1
            continue
        assert set(tensors) == set(TENSORS) and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS), what
        assert meta == META, what
    assert refused > 0.9 * tried
    print(f"{tried} damages, {refused} refused, the others without effect")


def test_metadata_are_watched_without_the_tensors(tmp_path: Path, chance: random.Random) -> None:
    content, path = written(tmp_path), tmp_path / "file.safetensors"
    for what, broken in damaged(content, chance):
        path.write_bytes(broken)
        try:
            assert read_meta(path) == META, what
        except ArtifactError as error:
            assert str(path) in str(error), what


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64, b"\x80\x04\x95", b"{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_file_of_tensors_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    for read in (load_tensors, read_meta):
        with pytest.raises(ArtifactError, match=r"file\.safetensors"):
            read(path)


def test_files_without_a_checksum_of_their_metadata_are_still_read(tmp_path: Path) -> None:
    """As they were written before it was introduced."""
    import json

    from safetensors.torch import load_file, save_file

    path = tmp_path / "old.safetensors"
    written(tmp_path)
    content = (tmp_path / "file.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["dd"]
    old = {key: value for key, value in json.loads(header).items() if key != "meta_sha256"}
    save_file(load_file(tmp_path / "file.safetensors"), path, metadata={"dd": json.dumps(old)})
    tensors, meta = load_tensors(path)
    assert meta == META == read_meta(path) and torch.equal(tensors["mean"], TENSORS["mean"])
