"""Which of its published steps a cell is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dd.artifacts import read_json, set_file


def own_step(cell: Mapping[str, Any]) -> tuple[Path, int | None] | None:
    """Return the file of a cell's first set at the cell's step, and after how many updates that is (None where no recipe says it).

    None for a step that is picked from results, and is not picked yet.
    """
    folder, step = Path(cell["sets"][0]), cell["config"].get("step")
    last = cell["config"]["recipe"].get("iterations")
    if isinstance(step, Mapping) and cell.get("choice"):
        if not Path(cell["choice"]).exists():
            return None
        step = int(read_json(cell["choice"])["value"])
    if isinstance(step, Mapping):  # a rule without a choice: a scale left nothing to choose from
        step = None
    return set_file(folder, step, last), last if step is None else int(step)
