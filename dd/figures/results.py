"""What was measured in one cell: accuracies in percent, their spreads, and what must be said beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any

from dd.artifacts import read_json, read_meta
from dd.errors import ArtifactError
from dd.figures.gates import missed

SPREADS = {"all": "std_all", "sets": "std_sets", "nets": "std_nets"}


@dataclass(frozen=True)
class Point:
    """A cell with its numbers, in percent.

    at: the paper's coordinates. mean: of `accuracy_last` over all sets and networks, or None when nothing was run. low, high: equal
    to the mean, but for a bound stated in prose. std_all: over all runs; std_sets: over the means of sets; std_nets: over the
    networks of a set (root mean square over sets); all with ddof 0, None where a single value has no spread. error: standard error
    of the mean: over sets where there are several, else over networks; None for a single run. runs: (accuracy, diverged) of each.
    missing: score files that are not there. scaled: what the scale changed. chosen: the value that was picked from results of other
    cells, and what it was picked by, in words; each "" where nothing was. below: its generators that miss a gate, in words.
    """

    at: dict[str, Any]
    mean: float | None
    low: float = math.nan
    high: float = math.nan
    std_all: float | None = None
    std_sets: float | None = None
    std_nets: float | None = None
    error: float | None = None
    best: float | None = None
    runs: tuple[tuple[float, bool], ...] = ()
    missing: int = 0
    scaled: tuple[str, ...] = ()
    id: str = ""
    score_id: str = ""
    chosen: str = ""
    chosen_by: str = ""
    below: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def diverged(self) -> int:
        """Number of runs that diverged."""
        return sum(diverged for _, diverged in self.runs)

    def spread(self, which: str) -> float | None:
        """Return the spread that a paper prints: all, sets or nets."""
        value: float | None = getattr(self, SPREADS[which])
        return value


def text(value: Any) -> str:
    """Return a coordinate as the CSV files write it: nothing for None, 10 for 10.0."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def same(one: Any, other: Any) -> bool:
    """Tell whether two coordinates are equal, whether they came as numbers or as text."""
    one, other = text(one), text(other)
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def read_cell(cell: Mapping[str, Any]) -> Point:
    """Read the scores of a cell of a drawing job, or of the cells that it is the mean of (`members`).

    A run counts as diverged when its evaluation did, or when the distillation of its set did.

    Raises:
        ArtifactError: a score file is damaged, or holds a network twice. A file that is not there is counted as missing.
    """
    if "members" in cell:
        return _mean_of([read_cell(member) for member in cell["members"]], cell["at"])
    broken = {Path(folder).name for folder in cell["sets"] if _distillation_diverged(Path(folder))}
    by_set: dict[int, list[tuple[float, bool]]] = {}
    best: list[float] = []
    seen: set[tuple[int, int]] = set()
    missing = 0
    for path in cell["scores"]:
        if not Path(path).exists():
            missing += 1
            continue
        for score in scores_of(path):
            key = (score["set"], score["net"])
            if key in seen:
                raise ArtifactError(f"{path}: set {key[0]}, net {key[1]} is in another score file of the same cell already")
            seen.add(key)
            diverged = score["status"] == "diverged" or f"seed{score['set']}" in broken
            by_set.setdefault(score["set"], []).append((100 * score["accuracy_last"], diverged))
            best.append(100 * score["accuracy_best_on_test"])
    runs = tuple(run for number in sorted(by_set) for run in by_set[number])
    values = [[accuracy for accuracy, _ in by_set[number]] for number in sorted(by_set)]
    facts: dict[str, Any] = {"at": dict(cell["at"]), "runs": runs, "missing": missing, "scaled": tuple(cell["scaled"]),
                             "id": cell["id"], "score_id": cell["score_id"], "below": missed(cell.get("generators", ())),
                             **_choice(cell.get("choice"))}  # fmt: skip
    if not runs:
        return Point(mean=None, **facts)
    mean = fmean(accuracy for accuracy, _ in runs)
    return Point(mean=mean, low=mean, high=mean, best=fmean(best), **_spreads(values), **facts)


def _mean_of(points: Sequence[Point], at: Mapping[str, Any]) -> Point:
    """Return the mean of cells, taken as independent, where all were run: their runs together, and no spread, since none is of one kind."""
    found: dict[str, Any] = {
        "at": dict(at), "missing": sum(point.missing for point in points), "id": "+".join(dict.fromkeys(point.id for point in points)),
        "scaled": tuple(dict.fromkeys(one for point in points for one in point.scaled)),
        "score_id": "+".join(dict.fromkeys(point.score_id for point in points)),
        "below": tuple(dict.fromkeys(one for point in points for one in point.below)),
    }  # fmt: skip
    means = [point.mean for point in points if point.mean is not None]
    if len(means) < len(points):
        return Point(mean=None, **found)
    mean, errors = fmean(means), [point.error for point in points if point.error is not None]
    error = math.sqrt(sum(one**2 for one in errors)) / len(points) if len(errors) == len(points) else None
    best = [point.best for point in points if point.best is not None]
    runs = tuple(run for point in points for run in point.runs)
    return Point(mean=mean, low=mean, high=mean, error=error, best=fmean(best) if len(best) == len(points) else None, runs=runs, **found)


def facts_of(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return mean, runs, spreads and error of the numbers of each set, as fields of a `Point`; none of them where there are no numbers."""
    runs = tuple((item, False) for one in values for item in one)
    if not runs:
        return {"mean": None}
    mean = fmean(item for item, _ in runs)
    return {"mean": mean, "low": mean, "high": mean, "runs": runs, **_spreads(values)}


def _choice(path: str | None) -> dict[str, str]:
    """Return which value was picked, and what it was picked by, of a file of results/choices; nothing where none was made."""
    if path is None:
        return {}
    if not Path(path).exists():
        return {"chosen": "not chosen yet"}
    facts = read_json(path)
    if not isinstance(facts, dict) or not {"value", "criterion", "split", "candidates"} <= set(facts):
        raise ArtifactError(f"{path}: is not a file of a choice; delete it and run again")
    among = ", ".join(sorted(facts["candidates"], key=lambda item: (len(item), item)))
    return {"chosen": text(facts["value"]), "chosen_by": f"{facts['criterion']} on {facts['split']}, among {among}"}


def _spreads(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    every = [value for one in values for value in one]
    means = [fmean(one) for one in values]
    several = [one for one in values if len(one) > 1]
    error = None
    if len(means) > 1:  # networks of one set share its flaws: only sets are independent
        error = stdev(means) / math.sqrt(len(means))
    elif len(every) > 1:
        error = stdev(every) / math.sqrt(len(every))
    return {
        "std_all": pstdev(every) if len(every) > 1 else None,
        "std_sets": pstdev(means) if len(means) > 1 else None,
        "std_nets": math.sqrt(fmean(pstdev(one) ** 2 for one in several)) if several else None,
        "error": error,
    }


def scores_of(path: str) -> list[dict[str, Any]]:
    """Read a file of scores.

    Raises:
        ArtifactError: it is missing, damaged, or no such file.
    """
    data = read_json(path)
    wanted = {"set", "net", "accuracy_last", "accuracy_best_on_test", "per_class", "status"}
    scores = data.get("scores") if isinstance(data, dict) else None
    if not isinstance(scores, list) or any(not isinstance(score, dict) or not wanted <= set(score) for score in scores):
        raise ArtifactError(f"{path}: is not a file of scores; delete it and run again")
    return scores


def _distillation_diverged(folder: Path) -> bool:
    """Tell whether a set is what was left of a run that diverged (distillation notes it in the set's metadata)."""
    path = folder / "distilled.safetensors"
    return path.exists() and bool(read_meta(path).get("diverged"))
