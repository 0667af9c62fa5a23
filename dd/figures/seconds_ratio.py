"""Seconds of distilling, of one thing over another that was measured on the same device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from dd.artifacts import read_json
from dd.config import Frozen, parse
from dd.errors import ConfigError, nearest
from dd.figures.reported import Reported, find
from dd.figures.results import same, text
from dd.figures.seconds import MISSING
from dd.figures.sheets import Sheet, changes, word

SAID = (
    "Seconds of distilling one set: mean over sets, and over what a row does not tell apart. Not in them: the training of networks, "
    "experts and generators, evaluations, and sets that are distilled for a choice on held-out images only. Ratios are of runs on one and "
    "the same device (of a CPU: the same machine, as many threads), which were not continued from a checkpoint."
)
PRINTED = "The paper's seconds have lost their unit: only their ratios compare, and they are of its own device and numbers of updates."
HEADER = (
    "seconds", "ratio", "reason", "distillations", "sets", "not_measured", "continued", "device", "reported", "reported_ratio",
    "reported_certainty", "scaled", "ids",
)  # fmt: skip
Key = tuple[str, ...]


class Fields(Frozen):
    """What `fields` of the artifact may say. over: what seconds are divided by, as coordinates, such as {space: glad}."""

    over: dict[str, str | int | float] = Field(min_length=1)


@dataclass
class Group:
    """The distillations of one row and one column. runs: the facts of each set's run.json, by distillation; None where there is none."""

    runs: dict[str, list[Mapping[str, Any] | None]] = field(default_factory=dict)
    scaled: list[str] = field(default_factory=list)
    printed: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def facts(self) -> list[Mapping[str, Any]]:
        """The run.json that there are."""
        return [run for runs in self.runs.values() for run in runs if run is not None]

    @property
    def missing(self) -> int:
        """Number of sets without a run.json."""
        return sum(run is None for runs in self.runs.values() for run in runs)

    @property
    def continued(self) -> int:
        """Number of runs whose seconds are those of their last part alone."""
        return sum(bool(run.get("resumed")) for run in self.facts)

    @property
    def devices(self) -> dict[Key, str]:
        """What runs were on, each once: what makes it one device, and its name."""
        return {_identity(run): _device(run) for run in self.facts}

    @property
    def seconds(self) -> float | None:
        """Mean over distillations of the mean over their sets; None where a set was not measured, or not from its start to its end."""
        if self.missing or self.continued or not self.runs:
            return None
        return fmean(fmean(float(run["seconds"]) for run in runs if run) for runs in self.runs.values())

    @property
    def lacks(self) -> str:
        """Why there are no seconds, in words."""
        count = sum(map(len, self.runs.values()))
        if not self.runs:
            return "no cell"
        if self.missing:
            return MISSING + (f" ({self.missing} of {count} sets)" if self.missing < count else "")
        return f"continued from a checkpoint ({self.continued} of {count} sets)" if self.continued else ""


def misfits(artifact: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an artifact's fields and rows."""
    try:
        over = parse(Fields, artifact.get("fields") or {}, "fields").over
    except ConfigError as error:
        yield str(error)
        return
    known = dict.fromkeys(name for cell in artifact["cells"] for name in cell["at"])
    for name in over:
        if artifact["cells"] and name not in known:
            yield f"fields.over: no point has a coordinate {name!r}{nearest(name, known)}"
    if artifact["cells"] and over.keys() <= known.keys() and not any(_is_base(cell, over) for cell in artifact["cells"]):
        yield f"fields.over: no point has {', '.join(f'{name} {text(item)}' for name, item in over.items())}"
    if not artifact.get("rows"):
        yield "kind seconds_ratio needs rows: what is compared agrees in these coordinates"
    if shared := sorted(set(over) & set(artifact.get("rows") or ())):
        yield f"rows: {', '.join(shared)} is what is compared (fields.over), not what agrees"


def seconds_ratio(artifact: Mapping[str, Any], times: Sequence[Reported] = ()) -> tuple[Sheet, list[str], list[list[str]]]:
    """Return the seconds of distilling and their ratios as a table, and as header and rows for machines.

    Rows are values of the coordinates `rows`, columns those of `fields.over`; what a row does not tell apart is averaged, each distillation
    once, however often it is evaluated. A ratio needs all sets of both sides, measured on one and the same device; else its place says
    why there is none.

    Args:
        times: what the paper prints of seconds.

    Raises:
        ConfigError: `fields` or `rows` is wrong.
        ArtifactError: a run.json is damaged.
    """
    for said in misfits(artifact):
        raise ConfigError(f"artifact {artifact['name']}: {said}")
    over = parse(Fields, artifact.get("fields") or {}, "fields").over
    groups, heads = _groups(artifact, list(over))
    base = tuple(text(item) for item in over.values())
    others = [head for head in heads if head != base]
    names = artifact.get("reported") or [artifact["name"]]
    rows, lines = [], []
    for side, found in groups.items():
        shown, ratios = [], []
        low = found.get(base, Group())
        low_row = _printed(low, times, names)
        for head in [base, *others]:
            group = found.get(head, Group())
            row = _printed(group, times, names)
            ratio, reason = (None, group.lacks) if head == base else _ratio(group, low)
            theirs = row.mean / low_row.mean if head != base and row and low_row and low_row.mean else None
            mark = "†" if group.scaled or low.scaled else ""
            shown.append(group.lacks if group.seconds is None else f"{group.seconds:.1f}" + ("†" if group.scaled else ""))
            if head != base:
                own = reason if ratio is None else f"{ratio:.2f}{mark}"
                ratios.append(own + ("" if theirs is None else f" (paper {theirs:.2f})"))
            lines.append([
                *side, *head, _number(group.seconds, 3), _number(ratio, 4), reason, str(len(group.runs)), str(len(group.facts)),
                str(group.missing), str(group.continued), ", ".join(dict.fromkeys(group.devices.values())),
                "" if row is None else f"{row.mean:g}", _number(theirs, 4), "" if row is None else row.certainty,
                "; ".join(dict.fromkeys(group.scaled)), "+".join(group.runs),
            ])  # fmt: skip
        devices = dict.fromkeys(name for group in found.values() for name in group.devices.values())
        rows.append([*side, *shown, *ratios, ", ".join(devices)])
    called = {head: ", ".join(f"{word(name)} {item}" for name, item in zip(over, head, strict=True)) for head in [base, *others]}
    compared = [f"{called[head]} / {', '.join(base)}" for head in others]
    columns = [*map(word, artifact["rows"]), *(f"{name} (s)" for name in called.values()), *compared, "device"]
    changed = changes(group.scaled for found in groups.values() for group in found.values())
    beside = any("(paper" in entry for row in rows for entry in row)
    notes = [*([str(artifact["note"])] if artifact.get("note") else []), SAID, *([PRINTED] if beside else [])]
    sheet = Sheet(columns, rows, [*notes, *([f"† changed by the scale: {changed}."] if changed else [])])
    return sheet, [*artifact["rows"], *over, *HEADER], lines


def _groups(artifact: Mapping[str, Any], over: Sequence[str]) -> tuple[dict[Key, dict[Key, Group]], list[Key]]:
    """Return the distillations by row and column, and the columns."""
    groups: dict[Key, dict[Key, Group]] = {}
    heads: dict[Key, None] = {}
    for cell in artifact["cells"]:
        side, head = (tuple(text(cell["at"].get(name)) for name in names) for names in (artifact["rows"], over))
        heads[head] = None
        group = groups.setdefault(side, {}).setdefault(head, Group())
        group.printed.append(cell.get("printed") or cell["at"])
        if "members" in cell or cell["id"] in group.runs:  # a mean of cells that stand here too; or one set that is judged once more
            continue
        paths = [Path(path) for path in cell["run_files"]["distillation"]]
        group.runs[cell["id"]] = [read_json(path) if path.exists() else None for path in paths]
        group.scaled += cell["scaled"]
    return groups, list(heads)


def _ratio(group: Group, low: Group) -> tuple[float | None, str]:
    """Return a ratio, or why there is none."""
    if group.seconds is None or low.seconds is None:
        return None, group.lacks or low.lacks
    if len({**group.devices, **low.devices}) > 1:
        return None, "measured on different devices"
    return (group.seconds / low.seconds, "") if low.seconds else (None, "no time at all")


def _printed(group: Group, times: Sequence[Reported], names: Sequence[str]) -> Reported | None:
    return next((row for at in group.printed if (row := find(times, names, at))), None)


def _is_base(cell: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return all(same(cell["at"].get(name), item) for name, item in over.items())


def _identity(run: Mapping[str, Any]) -> Key:
    """Return what two runs share that were on one device: the GPU's name; or, of a CPU, the machine and the number of threads."""
    if run.get("gpu"):
        return (str(run["gpu"]),)
    return str(run.get("device") or ""), str(run.get("host") or ""), str(run.get("threads") or "")


def _device(run: Mapping[str, Any]) -> str:
    threads = run.get("threads")
    return str(run.get("gpu") or "") or str(run.get("device") or "unknown") + (f", {threads} threads" if threads else "")


def _number(item: float | None, digits: int) -> str:
    return "" if item is None else f"{item:.{digits}f}"
