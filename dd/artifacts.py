"""Files that appear atomically or not at all, and tensors that are never unpickled.

Result files hold only what follows from configuration and inputs; whatever may differ between two honest runs (time, host,
device, commit) goes to a `run.json` beside them (`dd.provenance`), which nothing takes as input.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.config.canonical import canonical
from dd.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

META_KEY = "dd"  # one key only: safetensors writes several keys in random order
ABANDONED = 86_400  # seconds after which nobody writes to a temporary file any more, whatever machine it is of


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is renamed to `path` when the block ends well, and removed when not.

    What a process left that was killed while it wrote `path` is removed as well.

    Raises:
        ArtifactError: the file could not be written (disk full, read-only, no permission); nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors writes 0600, which would hide results from a group
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from error
    finally:
        with suppress(OSError):  # a file system that became read-only says so even of a file that is not there
            temporary.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove temporary files for `path` of processes that are gone; of other machines, those that are abandoned."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        host, _, process = left.name[len(path.name) + 2 : -len(".tmp")].rpartition("-")
        with suppress(OSError):
            if (host == platform.node() and not _runs(process)) or time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def discard(path: Path | str) -> None:
    """Remove a state that is no longer needed, if it is there, and what killed processes left of it."""
    Path(path).unlink(missing_ok=True)
    _clear(Path(path))


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write canonical JSON atomically (sorted keys, no NaN, no trailing newline: the bytes that ids are hashed from)."""
    write_text(path, canonical(value))


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is not readable JSON ({error}); delete it and run again") from error


def _content_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over names, types, shapes and bytes; safetensors itself would not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(_bytes()).numpy().data)
    return digest.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def _header(meta: Mapping[str, Any] | None, content: str) -> str:
    """Return what stands under `META_KEY`: the metadata, and the sha256 of the tensors and of the metadata."""
    plain = json.loads(canonical(dict(meta or {})))  # as readers will see it: with keys that are text
    return canonical({"meta": plain, "meta_sha256": _meta_digest(plain), "sha256": content})


def _meta_digest(meta: Any) -> str:
    return hashlib.sha256(canonical(meta).encode()).hexdigest()


def _read_header(path: Path | str, text: str | None) -> tuple[dict[str, Any], str]:
    """Return the metadata and the sha256 of the tensors from what stands under `META_KEY`.

    Raises:
        ArtifactError: there is nothing, or it was changed since it was written (older files have no sha256 of the metadata).
    """
    if text is None:
        raise ArtifactError(f"{path}: was not written by dd (no {META_KEY!r} metadata)")
    try:
        header = json.loads(text)
        meta, content, own = header["meta"], header["sha256"], header.get("meta_sha256")
        if not isinstance(meta, dict) or (own is not None and own != _meta_digest(meta)):
            raise ValueError("its metadata do not match their own sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: is damaged ({error}); delete it and run again") from None
    return meta, content


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically; equal content gives equal bytes.

    Raises:
        ArtifactError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = _header(meta, _content_digest(plain))
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata={META_KEY: header})
        except SafetensorError as error:
            raise ArtifactError(f"{path}: cannot be written: {error}; nothing was changed") from error


@dataclass(frozen=True)
class Stream:
    """A tensor too large for the memory, in blocks along its first axis.

    shape: of the whole. dtype: of every block, one of int64, float32, uint8. blocks: gives the blocks from the first to the last, every
    time it is called (twice: for the digest, and for the file).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[NDArray[Any]]]


# How safetensors calls them, in the order in which it writes tensors: by falling alignment, then by name.
_STREAMED = {"int64": "I64", "float32": "F32", "uint8": "U8"}


def save_streams(path: Path | str, streams: Mapping[str, Stream], meta: Mapping[str, Any] | None = None) -> None:
    """Write the bytes that `save_tensors` would write of the same tensors, with one block in memory at a time.

    The form: 8 bytes that say how long the header is, little endian; the header, JSON, with spaces up to a multiple of 8 bytes; the
    tensors' bytes, row by row, without gaps.

    Raises:
        ArtifactError: the file cannot be written. ValueError: another type, or blocks that do not make up the shape.
    """
    if strange := [name for name, stream in streams.items() if stream.dtype.name not in _STREAMED]:
        raise ValueError(f"{path}: {strange[0]}: {streams[strange[0]].dtype} cannot be streamed; allowed: {', '.join(_STREAMED)}")
    content = hashlib.sha256()
    for name in sorted(streams):
        content.update(f"{name}:torch.{streams[name].dtype.name}:{tuple(streams[name].shape)}\n".encode())
        for data in _contiguous(path, name, streams[name]):
            content.update(data)
    header: dict[str, Any] = {"__metadata__": {META_KEY: _header(meta, content.hexdigest())}}
    names, end = sorted(streams, key=lambda name: (list(_STREAMED).index(streams[name].dtype.name), name)), 0
    for name in names:
        stream, start = streams[name], end
        end += math.prod(stream.shape) * stream.dtype.itemsize
        header[name] = {"dtype": _STREAMED[stream.dtype.name], "shape": list(stream.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for data in _contiguous(path, name, streams[name]):
                file.write(data)


def _contiguous(path: Path | str, name: str, stream: Stream) -> Iterator[memoryview]:
    """Yield the bytes of a stream's blocks, and check that together they are what it says."""
    import numpy as np

    rows = 0
    for block in stream.blocks():
        if block.dtype != stream.dtype or block.shape[1:] != tuple(stream.shape[1:]):
            raise ValueError(f"{path}: {name}: a block is {block.dtype} {block.shape}, the whole {stream.dtype} {stream.shape}")
        rows += len(block)
        yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
    if rows != stream.shape[0]:
        raise ValueError(f"{path}: {name}: the blocks have {rows} rows, the whole has {stream.shape[0]}")


def load_tensors(path: Path | str, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read (tensors, metadata) of a file that `save_tensors` or `save_streams` wrote, and check every byte of it.

    On the CPU the tensors are mapped from the file: checking it reads it all once, but takes no memory that the system cannot have
    back. Whoever writes into a tensor gets a copy of that page; the file stays.

    Raises:
        ArtifactError: missing, truncated, changed since it was written, or not one of our files.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(META_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: is damaged or not a safetensors file ({error}); delete it and run again") from error
    meta, content = _read_header(path, header)
    if content != _content_digest(tensors):
        raise ArtifactError(f"{path}: is damaged (its content does not match its own sha256); delete it and run again")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, meta


def read_meta(path: Path | str) -> dict[str, Any]:
    """Return only the metadata of a file that `save_tensors` wrote, without reading its tensors.

    Raises:
        ArtifactError: missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        with safe_open(path, framework="np") as file:
            header = (file.metadata() or {}).get(META_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: is damaged or not a safetensors file ({error}); delete it and run again") from error
    return _read_header(path, header)[0]


def set_file(folder: Path, step: int | None, last: int | None = None) -> Path:
    """Return where a distilled set stands in its folder: after so many updates, or, with None or with `last`, after the last one."""
    return folder / "distilled.safetensors" if step is None or step == last else folder / "steps" / f"{step}.safetensors"
