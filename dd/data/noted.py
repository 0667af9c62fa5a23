"""What stands in for a checksum that nobody published: the sha256 of the first download, noted beside the file."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from dd.artifacts import sha256_file, write_text
from dd.errors import DataError


def note_of(path: Path) -> Path:
    """Return where the checksum of a file is noted: `{file}.sha256`, as `sha256sum` writes it."""
    return path.with_name(path.name + ".sha256")


def noted(path: Path) -> str | None:
    """Return the checksum that was noted for a file, "sha256:...", or None.

    Raises:
        DataError: the note is damaged.
    """
    note = note_of(path)
    if not note.exists():
        return None
    text = note.read_text(encoding="utf-8", errors="replace")
    if not (found := re.fullmatch(r"([0-9a-f]{64})  .*\n?", text)):
        raise DataError(f"{note}: is not a sha256 and the name of a file; if {path.name} is the right one, delete this note")
    return f"sha256:{found[1]}"


def note(path: Path, checksum: str) -> None:
    """Note the checksum ("sha256:...") that is demanded of a file from now on, and tell it to the user."""
    write_text(note_of(path), f"{checksum.removeprefix('sha256:')}  {path.name}\n")
    print(
        f"{path}: nobody publishes a checksum of this file. That of the first one is {checksum}; it is noted in {note_of(path).name} and "
        "demanded from now on: compare it with somebody else's",
        file=sys.stderr,
        flush=True,
    )


def verified(path: Path) -> str:
    """Return the checksum of a file, "sha256:...".

    Raises:
        DataError: the file is missing, or another one is noted.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    found, right = f"sha256:{sha256_file(path)}", noted(path)
    if right not in (None, found):
        raise DataError(
            f"{path}: its checksum is {found}, but that of the first download was {right}. Delete it to download it again, or delete "
            f"{note_of(path)} if this is the right one"
        )
    return found


def whole(archive: Path) -> bool:
    """Return whether a .zip is complete, by its own list of members and their own checksums: not that it is the right one."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return bool(opened.namelist()) and opened.testzip() is None
    except Exception:  # an unpacker's own errors have many names
        return False
