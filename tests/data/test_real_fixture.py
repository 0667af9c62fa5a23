"""The fixture `real`: where real images are absent, a test skips with the reason, or fails where they are required."""

import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
def test_inner(real):
    assert (real("cifar10") / "here").read_text() == "yes"
"""


@pytest.mark.parametrize(
    ("there", "require", "result", "words"),
    [
        (True, "slurm, real-data", "1 passed", ""),
        (None, "", "1 skipped", "DD_REAL_DATA is not set (a folder that holds cifar10/)"),
        (False, "slurm", "1 skipped", "cifar10 is no folder"),
        (False, "slurm,real-data", "1 failed", "cifar10 is no folder, and DD_REQUIRE asks for real-data"),
        (None, "real-data", "1 failed", "DD_REAL_DATA is not set"),
    ],
)
def test_real(there, require, result, words, tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    (tmp_path / "conftest.py").write_text((root / "conftest.py").read_text())
    (tmp_path / "test_inner.py").write_text(INNER)
    if there:
        (tmp_path / "data" / "cifar10").mkdir(parents=True)
        (tmp_path / "data" / "cifar10" / "here").write_text("yes")
    monkeypatch.setenv("DD_REQUIRE", require)
    monkeypatch.setenv("DD_REAL_DATA", str(tmp_path / "data"))
    if there is None:
        monkeypatch.delenv("DD_REAL_DATA")
    command = [sys.executable, "-m", "pytest", "-rsf", "--tb=short", "-p", "no:cacheprovider", str(tmp_path)]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
    assert result in out and words in out.replace("\n", " "), out
