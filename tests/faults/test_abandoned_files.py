"""Temporary files of processes that were killed go with the next write of the same file; those of the living stay."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dd.artifacts import ABANDONED, atomic, write_text
from dd.errors import ArtifactError


def gone() -> int:
    """Return the number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(timeout=60)
    return done.pid


def left(folder: Path, name: str, age: float = 0.0) -> Path:
    path = folder / name
    path.write_text("half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    here = platform.node()
    dead = left(tmp_path, f".a.json.{here}-{gone()}.tmp")
    old = left(tmp_path, ".a.json.another-1.tmp", ABANDONED + 60)
    nameless = left(tmp_path, ".a.json.77.tmp", ABANDONED + 60)
    living = left(tmp_path, f".a.json.{here}-{os.getppid()}.tmp", ABANDONED / 2)
    elsewhere = left(tmp_path, ".a.json.another-2.tmp", ABANDONED / 2)
    foreign = [left(tmp_path, name, ABANDONED + 60) for name in (".b.json.another-1.tmp", "a.json.another-1.tmp", ".a.json", ".a.json.tmp")]
    write_text(tmp_path / "a.json", "whole")
    assert [path.exists() for path in (dead, old, nameless)] == [False] * 3
    assert [path.exists() for path in (living, elsewhere, *foreign)] == [True] * 6
    assert (tmp_path / "a.json").read_text() == "whole"


def test_a_name_that_is_a_pattern(tmp_path: Path) -> None:
    other = left(tmp_path, f".a1.json.{platform.node()}-{gone()}.tmp")
    write_text(tmp_path / "a[1].json", "whole")
    assert other.exists()


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    """Each writes a file of its own; the last one stays, whole."""
    path = tmp_path / "a.json"
    with atomic(path) as first:
        first.write_text("first")
        code = "import sys; from dd.artifacts import write_text; write_text(sys.argv[1], 'second')"
        subprocess.run([sys.executable, "-c", code, path], check=True, timeout=120)
        assert path.read_text() == "second"
    assert path.read_text() == "first" and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_failure_that_cannot_be_cleaned_up_is_told_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    with pytest.raises(ArtifactError, match=r"a\.json: cannot be written: Read-only file system"), atomic(tmp_path / "a.json"):
        monkeypatch.setattr(Path, "unlink", fail)
        fail()
