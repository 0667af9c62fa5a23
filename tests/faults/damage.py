"""Ways to ruin a file. Tests ruin copies only."""

from __future__ import annotations

import os
import random
from pathlib import Path


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def leave(path: Path, chance: random.Random) -> None:
    """Leave what a process leaves that is killed in the middle of writing `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stray = path.with_name(f".{path.name}.{os.uname().nodename}-4194305.tmp")  # no process has this number
    stray.write_bytes(chance.randbytes(chance.randrange(1000)))
