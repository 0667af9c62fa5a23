"""What learning from features costs: the bytes that store them, and the seconds of training the network that makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.figures.results import Point, read_cell, scores_of, text
from dd.figures.seconds import MISSING, Trained, devices, trained
from dd.figures.sheets import Drawn, Sheet, changes, varying, word

SAID = (
    "One row an evaluation with features. Baseline: the same set and network, trained without features at the same rate. Features: what "
    "storing them as float32 would take, and how many times the bytes of the set's own images in float32 that is. Seconds: of training the "
    "feature network up to the epoch that is used; all sets and networks share it."
)
HEADER = (
    "accuracy", "n", "baseline_accuracy", "gain", "feature_network", "feature_epochs", "feature_bytes", "set_bytes", "ratio",
    "seconds_features", "feature_runs", "feature_runs_missing", "device", "scaled", "id", "score_id",
)  # fmt: skip
# Coordinates that other columns say.
SHOWN = ("extractor", "extractor_mode", "extractor_epochs", "eval_protocol", "resolution")


def features(artifact: Mapping[str, Any]) -> tuple[Sheet, list[str], list[list[str]]]:
    """Return bytes and seconds of features beside accuracies as a table, and as header and rows for machines.

    One row an evaluation whose protocol has features, however many artifacts show it. What was not run, or left no run.json here, is
    "not run" or "not measured", never guessed; a feature network that no job makes is not trained here.
    """
    unique: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for cell in artifact["cells"]:
        unique.setdefault((cell["id"], cell["score_id"], str(cell["config"].get("network"))), cell)
    every = list(unique.values())
    cells = [cell for cell in every if _network(cell)]
    if not cells:
        raise ConfigError(f"artifact {artifact['name']}: kind features has no evaluation with features to show; give it use")
    points = [Point(cell["at"], None) for cell in cells]
    names = [name for name in varying(Drawn(artifact, "", "all", points, [None] * len(points))) if name not in SHOWN]
    rows, lines = [], []
    for cell in cells:
        shown, exact = _row(cell, _baseline(cell, every))
        side = [text(cell["at"].get(name)) for name in names]
        rows.append([*side, *shown])
        lines.append([*side, *exact])
    marked = changes(cell["scaled"] for cell in cells)
    notes = [*([str(artifact["note"])] if artifact.get("note") else []), SAID, *([f"† changed by the scale: {marked}."] if marked else [])]
    columns = [*map(word, names), "features of", "epochs", "with features (%)", "baseline (%)", "features", "of the set's bytes",
               "training of the feature network (s)", "device"]  # fmt: skip
    return Sheet(columns, rows, notes), [*names, *HEADER], lines


def _network(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the protocol of a cell says of its features; nothing for a protocol without them."""
    found: Mapping[str, Any] = (cell["config"].get("protocol") or {}).get("features") or {}
    return found


def _baseline(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the evaluation without features of the same set and network, at the same rate; None where there is none, or several."""
    rate = cell["config"]["protocol"].get("lr")
    found = [
        other
        for other in cells
        if not _network(other)
        and other["id"] == cell["id"]
        and other["config"].get("network") == cell["config"].get("network")
        and (other["config"].get("protocol") or {}).get("lr") == rate
    ]
    return found[0] if len(found) == 1 else None


def _row(cell: Mapping[str, Any], other: Mapping[str, Any] | None) -> tuple[list[str], list[str]]:
    """Return the entries of a row for people, and those of HEADER."""
    point, base = read_cell(cell), read_cell(other) if other else None
    network, size, own = _network(cell), _bytes(cell), _set_bytes(cell["config"])
    time: Trained = trained(cell["run_files"].get("features") or ())
    mean, under = point.mean, base.mean if base else None
    ratio = f"{size / own:.3g}" if size is not None and own else ""
    device, scaled = devices(time.facts), "†" if cell["scaled"] else ""
    made = [text(network.get("network")), text(network.get("epochs"))]
    shown = ["not run" if mean is None else f"{mean:.1f}{scaled}", "not run" if base and under is None else _number(under, 1)]
    gain = mean - under if mean is not None and under is not None else None
    exact = [_number(mean, 4), str(point.n), _number(under, 4), _number(gain, 4)]
    kept = MISSING if size is None else units(size)
    return [*made, *shown, kept, ratio and f"{ratio} times", time.shown, device], [
        *exact, *made, "" if size is None else str(size), "" if own is None else str(own), ratio, _number(time.seconds, 1), str(time.runs),
        str(time.missing), device, "; ".join(cell["scaled"]), cell["id"], cell["score_id"],
    ]  # fmt: skip


def _bytes(cell: Mapping[str, Any]) -> int | None:
    """Return what storing the features of a set takes, as the evaluation noted it: the largest, should sets differ; None before it ran."""
    found = [score.get("detail", {}).get("feature_bytes") for path in cell["scores"] if Path(path).exists() for score in scores_of(path)]
    return max((int(one) for one in found if one is not None), default=None)


def _set_bytes(config: Mapping[str, Any]) -> int | None:
    """Return ipc * classes * channels * height * width * 4; None for a dataset that is not known, and for the whole train split."""
    spec, ipc = DATASETS.get(str(config.get("dataset"))), config.get("ipc")
    if spec is None or not ipc:
        return None
    return int(ipc) * len(spec.classes) * spec.channels * spec.size[0] * spec.size[1] * 4


def units(count: int) -> str:
    """Return bytes as people read them, three digits and a unit in powers of ten: 3276800 is "3.28 MB"."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.3g} {unit}"


def _number(item: float | None, digits: int) -> str:
    return "" if item is None else f"{item:.{digits}f}"
