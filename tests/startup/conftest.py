"""Toy checkouts, ended with their tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from warmth import Toy


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    made = Toy(tmp_path / "toy")
    yield made
    made.close()
