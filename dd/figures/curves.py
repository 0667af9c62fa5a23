"""The log of a distillation, curve.csv, as numbers."""

from __future__ import annotations

import csv
from pathlib import Path

from dd.errors import ArtifactError, nearest

Curve = dict[int, dict[str, float]]  # by the number of updates before a row


def read_curve(path: Path) -> Curve | None:
    """Return the rows of a curve.csv by their steps, or None where there is none.

    Raises:
        ArtifactError: a row lacks its step or holds what is no number.
    """
    if not path.exists():
        return None
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {int(row["step"]): {name: float(value) for name, value in row.items() if name != "step"} for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: is not the log of a distillation ({error!r}); delete its folder and run again") from None


def column(curve: Curve, name: str, path: Path) -> dict[int, float]:
    """Return one column by the steps.

    Raises:
        ArtifactError: the log has no such column.
    """
    known = dict.fromkeys(key for row in curve.values() for key in row)
    if curve and name not in known:
        raise ArtifactError(f"{path}: has no column {name!r}{nearest(name, known)}")
    return {step: row[name] for step, row in curve.items()}
