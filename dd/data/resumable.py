"""Images that are decoded once, into a file, however often that is interrupted."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dd.artifacts import read_json, write_json
from dd.errors import ArtifactError, DataError
from dd.progress import Progress

EVERY = 2000  # images between two notes: what is lost when the power fails, some seconds


def decoded(
    base: Path, names: Sequence[str], shape: tuple[int, ...], decode: Callable[[bytes, str], NDArray[np.uint8]], store: Path, form: str
) -> NDArray[np.uint8]:
    """Return images (n, *shape) uint8, mapped from `store`: they are decoded one at a time and never all in memory.

    `store` grows as it goes. Every EVERY images, and when an error or Ctrl-C stops it, what has reached the disk is noted in
    `{store}.json`; the next call continues there if the files before it are the same by name, size and time of change, if `form` and
    Pillow's version are the same, and starts over if not. A file that could not be read may be replaced in between.

    Args:
        base: the folder that `names` are in.
        names: the files, in the order of the result.
        shape: of one image.
        decode: makes an image of the bytes of a file and its name.
        store: the file to write to; its folder is made.
        form: says what `decode` does.

    Raises:
        DataError: a file that cannot be read or that `decode` refuses; `store` cannot be written.
    """
    store.parent.mkdir(parents=True, exist_ok=True)
    note, item = store.with_name(f"{store.name}.json"), math.prod(shape)
    done, seen = _noted(note, store, item, base, names, form)
    try:
        with open(store, "ab") as out, Progress(f"{base.name} (images)", len(names), done) as progress:
            out.truncate(done * item)  # images after the note may not be whole
            try:
                while done < len(names):
                    line, image = _line(base, names[done]), decode(_bytes(base / names[done]), str(base / names[done]))
                    if image.shape != shape or image.dtype != np.uint8:
                        raise ValueError(f"{base / names[done]}: became {image.dtype} {image.shape}; must be uint8 {shape}")
                    out.write(image.tobytes())
                    after = seen.copy()
                    after.update(line)
                    done, seen = done + 1, after
                    progress.update(done)
                    if done % EVERY == 0:
                        _note(note, out, done, seen)
            finally:
                _note(note, out, done, seen)
    except OSError as error:
        raise DataError(f"{store}: cannot be written: {error.strerror or error}; what is done is kept") from None
    return np.memmap(store, dtype=np.uint8, mode="r", shape=(len(names), *shape))


def _noted(note: Path, store: Path, item: int, base: Path, names: Sequence[str], form: str) -> tuple[int, Any]:
    """Return how many images `store` has for certain, and the digest of the files that they were made of."""
    import PIL

    start = hashlib.sha256(f"{form}, {item} bytes, Pillow {PIL.__version__}\n".encode())
    try:
        data = read_json(note)
        done, of = int(data["done"]), str(data["of"])
    except (ArtifactError, KeyError, TypeError, ValueError):
        return 0, start
    if not 0 < done <= len(names) or not store.is_file() or store.stat().st_size < done * item:
        return 0, start
    seen = start.copy()
    for name in names[:done]:
        seen.update(_line(base, name))
    return (done, seen) if seen.hexdigest() == of else (0, start)


def _note(note: Path, out: Any, done: int, seen: Any) -> None:
    out.flush()
    os.fsync(out.fileno())  # first the images, then the note of them
    write_json(note, {"done": done, "of": seen.hexdigest()})


def _line(base: Path, name: str) -> bytes:
    try:
        facts = os.stat(base / name)
    except OSError as error:
        raise DataError(f"{base / name}: cannot be read: {error.strerror or error}") from None
    return f"{name}\t{facts.st_size}\t{facts.st_mtime_ns}\n".encode(errors="surrogateescape")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
