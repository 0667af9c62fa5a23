"""The numbers that papers print, found by coordinates."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.errors import ConfigError, nearest
from dd.figures.results import Point, same

COLUMNS = (
    "dataset", "resolution", "ipc", "method", "variant", "guidance", "n_m", "n_a", "extractor", "extractor_mode", "extractor_epochs",
    "source_domain", "distill_network", "eval_network", "eval_protocol",
)  # fmt: skip
VALUES = ("paper", "artifact", "metric", "mean", "std", "source", "certainty", "note")
SIGNS = {"top1_percent": "", "top1_percent_upper_bound": "<=", "top1_percent_lower_bound": ">="}  # what may stand beside an accuracy
GAINS = ("gain_pp", "avg_gain_pp")  # what may stand beside a difference of accuracies, or a mean of differences
TIMES = ("distill_time_unit_lost",)  # what may stand beside seconds of distilling, as ratios
CERTAINTIES = {"exact", "inferred", "recovered_internal", "doubtful", "derived", "derived_external", "external_probable"}
ELSEWHERE = "external_probable"  # what other papers print


@dataclass(frozen=True)
class Reported:
    """A printed accuracy in percent, or a gain in points. sign: "", or "<=" or ">=" for a bound. at: only coordinates that the paper gives.

    note: what is odd about it, in words. averaged: whether it is a mean of gains.
    """

    artifact: str
    at: dict[str, str]
    sign: str
    mean: float
    std: float | None
    certainty: str
    note: str = ""
    averaged: bool = False

    @property
    def elsewhere(self) -> bool:
        """Tell whether other papers print it, of the same baseline; this paper's own number is not known then."""
        return self.certainty == ELSEWHERE

    @property
    def low(self) -> float:
        """Smallest accuracy that fits what is printed."""
        return -math.inf if self.sign == "<=" else self.mean

    @property
    def high(self) -> float:
        """Largest accuracy that fits what is printed."""
        return math.inf if self.sign == ">=" else self.mean

    def __str__(self) -> str:
        """Return it as a table shows it."""
        spread = "" if self.std is None else f" ± {self.std:g}"
        return f"{self.sign}{' ' if self.sign else ''}{self.mean:g}{spread}"


def load_reported(path: Path, elsewhere: Iterable[str] = ()) -> list[Reported]:
    """Read what a paper itself prints of accuracies.

    Left out: rows of certainty `derived*` or `external_probable`, which the paper does not print, and other metrics.

    Args:
        elsewhere: artifacts whose `external_probable` rows are read all the same.

    Raises:
        ConfigError: no such file, an unknown or missing column, a number that is none, an unknown certainty.
    """
    rows = _rows(path)
    named = {row["artifact"] for _, row in rows}
    wanted = set(elsewhere)
    for name in sorted(wanted - named):
        raise ConfigError(f"{path}: has no rows of artifact {name!r}{nearest(name, named)}")
    return [_row(row, where) for where, row in rows if row["metric"] in SIGNS and _printed(row, wanted)]


def load_gains(path: Path) -> list[Reported]:
    """Read the differences of accuracies that a paper itself prints, and their means, in points; see `load_reported` for errors.

    A coordinate such as `mean_of_the_4_networks` says that a mean goes over it: it is none of the mean's own.
    """
    rows = [(where, row) for where, row in _rows(path) if row["metric"] in GAINS and _printed(row, set())]
    return [_row({name: "" if item.startswith("mean_of_") else item for name, item in row.items()}, where) for where, row in rows]


def load_times(path: Path) -> list[Reported]:
    """Read what a paper itself prints of the time that distilling takes; see `load_reported` for errors."""
    return [_row(row, where) for where, row in _rows(path) if row["metric"] in TIMES and _printed(row, set())]


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Read all rows of a file, with the place of each in words."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            header = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for name in header:
        if name not in (*COLUMNS, *VALUES):
            raise ConfigError(f"{path}: unknown column {name!r}{nearest(name, (*COLUMNS, *VALUES))}")
    for name in (*COLUMNS, *VALUES):
        if name not in header:
            raise ConfigError(f"{path}: column {name!r} is missing")
    for number, row in enumerate(rows, start=2):
        if row["certainty"] not in CERTAINTIES:
            raise ConfigError(f"{path}: line {number}: certainty {row['certainty']!r}{nearest(row['certainty'], CERTAINTIES)}")
    return [(f"{path}: line {number}", row) for number, row in enumerate(rows, start=2)]


def _printed(row: Mapping[str, str], elsewhere: set[str]) -> bool:
    certainty = row["certainty"]
    known = certainty != ELSEWHERE or row["artifact"] in elsewhere
    return known and not certainty.startswith("derived")


def _row(row: Mapping[str, str], where: str) -> Reported:
    at = {name: row[name] for name in COLUMNS if row[name]}
    try:
        mean, std = float(row["mean"]), float(row["std"]) if row["std"] else None
    except ValueError:
        raise ConfigError(f"{where}: mean {row['mean']!r}, std {row['std']!r}: must be numbers") from None
    return Reported(row["artifact"], at, SIGNS.get(row["metric"], ""), mean, std, row["certainty"], row["note"], row["metric"] == GAINS[1])


def find(rows: Sequence[Reported], artifacts: Sequence[str], at: Mapping[str, Any]) -> Reported | None:
    """Return what is printed for a cell, or None.

    A row fits when each coordinate that it gives equals the cell's. A column that a table of the paper uses in some of its rows means
    "none" where it is empty in others, so that a plain method's number never stands beside its guided variant. Where several fit,
    what this paper prints comes first, then rows of `artifacts` in this order, then the row with the most coordinates. What other papers
    print is found in `artifacts` only. A cell with a coordinate that no reported file knows (a sweep of ours) has no printed number.
    """
    if any(value is not None and name not in COLUMNS for name, value in at.items()):
        return None
    used: dict[str, set[str]] = {}
    for row in rows:
        used.setdefault(row.artifact, set()).update(row.at)
    given = {name for name, value in at.items() if value not in (None, "")}
    place = {name: len(artifacts) - number for number, name in enumerate(artifacts)}
    fitting = [
        row
        for row in rows
        if (not row.elsewhere or row.artifact in place)
        and all(same(at.get(name), value) for name, value in row.at.items())
        and not (used[row.artifact] - set(row.at)) & given
    ]
    return max(fitting, key=lambda row: (not row.elsewhere, place.get(row.artifact, 0), len(row.at)), default=None)


def compare(point: Point, row: Reported | None, spread: str) -> tuple[float, bool] | None:
    """Return (reproduced minus reported, whether that is within max(1.0, 2 std)), or None where the two must not be compared.

    Cells that a scale changed are never compared. std: the printed one, or ours where none is printed. From a bound, the distance is 0
    on its right side.
    """
    if row is None or point.mean is None or point.scaled:
        return None
    std = row.std if row.std is not None else point.spread(spread) or 0.0
    difference = point.mean - min(max(point.mean, row.low), row.high)
    return difference, abs(difference) <= max(1.0, 2 * std)


def as_points(rows: Sequence[Reported]) -> list[tuple[str, Point]]:
    """Return (artifact, point) of every printed number, for checking claims on the paper's own numbers; taken as free of error."""
    facts: list[tuple[Reported, dict[str, Any]]] = [(row, {"std_all": row.std, "error": 0.0, "runs": ((row.mean, False),)}) for row in rows]
    return [(row.artifact, Point(dict(row.at), row.mean, row.low, row.high, **more)) for row, more in facts]
