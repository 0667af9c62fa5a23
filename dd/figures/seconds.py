"""What guides cost: seconds of training them beside seconds of the distillation that they guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dd.artifacts import read_json
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, changes, varying, word

SAID = (
    "Training of the guides: all networks that the guides of a set are drawn from, up to the epoch that guides (where that is chosen: up "
    "to the last candidate; sets that compete are not counted). Sets share them: they are trained once. One distillation: the mean over "
    "sets."
)
MISSING, NOT_HERE = "not measured", "not trained here"


@dataclass(frozen=True)
class Times:
    """Seconds of one cell. guides: None where they are not known, or where none are trained here; distillation: None where not known."""

    guides: float | None
    distillation: float | None
    runs: int
    missing: int
    devices: str

    @property
    def ratio(self) -> float | None:
        """Seconds of the guides over those of one distillation."""
        return self.guides / self.distillation if self.guides is not None and self.distillation else None


def seconds(artifact: Mapping[str, Any]) -> tuple[Sheet, list[str], list[list[str]]]:
    """Return the seconds of guides and of distillations as a table, and as header and rows for machines.

    One row a guided distillation, however often it is evaluated. A job of pre-training makes several networks: of its seconds, the share
    that went into this cell's guides is taken. What left no run.json here is not measured, never guessed; guides that are not trained
    here (converted weights of others) have no seconds.
    """
    cells = list({cell["id"]: cell for cell in artifact["cells"] if cell["config"].get("guidance")}.values())
    points = [Point(cell["at"], None) for cell in cells]
    names = [name for name in varying(Drawn(artifact, "", "all", points, [None] * len(points))) if not name.startswith("eval_")]
    lines, rows = [], []
    for cell in cells:
        side, times = [text(cell["at"].get(name)) for name in names], _times(cell["run_files"])
        exact = [_number(times.guides, 1), _number(times.distillation, 1), _number(times.ratio, 4)]
        lines.append([*side, *exact, str(times.runs), str(times.missing), times.devices, "; ".join(cell["scaled"]), cell["id"]])
        shown = [exact[0] or (MISSING if times.runs else NOT_HERE), exact[1] or MISSING, _number(times.ratio, 2)]
        rows.append([*side, *shown, times.devices + ("†" if cell["scaled"] else "")])
    marked = changes(cell["scaled"] for cell in cells)
    notes = [*([str(artifact["note"])] if artifact.get("note") else []), SAID, *([f"† changed by the scale: {marked}."] if marked else [])]
    columns = [*map(word, names), "training of guides (s)", "one distillation (s)", "guides / distillation", "device"]
    header = [*names, "seconds_guides", "seconds_distillation", "ratio", "guide_runs", "guide_runs_missing", "device", "scaled", "id"]
    return Sheet(columns, rows, notes), header, lines


def _times(files: Mapping[str, Any]) -> Times:
    guides = trained(files["guides"])
    own = [read_json(path) for path in files["distillation"] if Path(path).exists()]
    distilled = fmean(facts["seconds"] for facts in own) if own else None
    return Times(guides.seconds, distilled, guides.runs, guides.missing, devices([*guides.facts, *own]))


@dataclass(frozen=True)
class Trained:
    """Seconds of the networks that something needs. seconds: None where a run is missing or there are none; facts: of the runs."""

    seconds: float | None
    runs: int
    missing: int
    facts: tuple[Mapping[str, Any], ...]

    @property
    def shown(self) -> str:
        """Return them as a table shows them."""
        return _number(self.seconds, 1) or (MISSING if self.runs else NOT_HERE)


def trained(runs: Sequence[Mapping[str, Any]]) -> Trained:
    """Return the seconds of jobs of pre-training, of each the share that is needed. runs: `run`, a path, and `share`, of a drawing job."""
    found = [(read_json(one["run"]), float(one["share"])) for one in runs if Path(one["run"]).exists()]
    missing = len(runs) - len(found)
    total = sum(facts["seconds"] * share for facts, share in found) if found and not missing else None
    return Trained(total, len(runs), missing, tuple(facts for facts, _ in found))


def devices(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return what runs ran on, each once."""
    return ", ".join(dict.fromkeys(name for facts in runs if (name := str(facts.get("gpu") or facts.get("device") or ""))))


def _number(item: float | None, digits: int) -> str:
    return "" if item is None else f"{item:.{digits}f}"
