"""Members of .zip archives, read in place."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dd.errors import DataError


@contextmanager
def damage(archive: Path) -> Iterator[None]:
    """Make a DataError, which names the archive, of whatever goes wrong while a .zip is read."""
    try:
        yield
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError, ValueError) as error:  # RuntimeError: needs a password
        raise DataError(f"{archive}: is truncated or damaged ({error}); delete it and run again") from None


@contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an archive.

    Raises:
        DataError: it is missing, truncated or damaged.
    """
    if not archive.exists():
        raise DataError(f"{archive}: no such file")
    with damage(archive):
        file = zipfile.ZipFile(archive)
    with file:
        yield file


def regular(file: zipfile.ZipFile) -> list[str]:
    """Return the names of the members that are regular files: no folders, no links."""
    return [
        member.filename
        for member in file.infolist()
        if not member.is_dir() and stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    ]


def member(file: zipfile.ZipFile, archive: Path, name: str, largest: int) -> bytes:
    """Return the bytes of a member, at most `largest`.

    Raises:
        DataError: it is larger, packed in another way than the official archives (whose unpacker could ask for any memory), or damaged.
    """
    facts = file.getinfo(name)
    if facts.file_size > largest:
        raise DataError(f"{archive}: {name}: has {facts.file_size} bytes, too many; allowed: {largest}")
    if facts.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{archive}: {name}: is packed by method {facts.compress_type}; allowed: stored, deflated")
    with damage(archive):
        return file.read(name)  # not more than stated
