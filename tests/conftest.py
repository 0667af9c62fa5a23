"""Fixtures of the whole test tree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kills N`, how often the tests of tests/faults kill each thing that they kill."""
    parser.addoption("--kills", type=int, default=4, metavar="N", help="how often faults are tried (default: 4)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest: one with the demo, the other with the small pipeline. Alone, keep the quick ones first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Let tests side by side not fight for cores, and sums not depend on how many there are."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _memory_is_given_back() -> None:
    """Leave the C library of the tests' own process as it is, whatever verb runs in it: some tests measure or limit its memory."""
    from dd import device

    device.keep_memory = lambda: False


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Return `real(name)`, the folder `$DD_REAL_DATA/{name}`; it skips where that is absent, unless DD_REQUIRE has real-data."""

    def find(name: str) -> Path:
        root = os.environ.get("DD_REAL_DATA")
        path = Path(root) / name if root else None
        if path is not None and path.is_dir():
            return path
        reason = f"{path} is no folder" if path else f"DD_REAL_DATA is not set (a folder that holds {name}/)"
        if "real-data" in map(str.strip, os.environ.get("DD_REQUIRE", "").split(",")):
            pytest.fail(f"{reason}, and DD_REQUIRE asks for real-data")
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the prepared digits."""
    from dd.data.config import load_datasets
    from dd.data.prepare import prepare

    out = tmp_path_factory.mktemp("prepared") / "digits"
    prepare("digits", load_datasets({}, "test")["digits"], out, out)
    return out
