"""Generators behind the cells of a paper: what was measured of them, and which are below their gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.analysis.gates import UNMEASURED, below, gate, read

MARK = "‡"  # of a cell that rests on a generator below its gate


def missed(generators: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return in words the generators that are below a gate: "mini of digits, epoch 14: consistency 0.71 < 0.9".

    generators: of a cell of a drawing job: dataset, generator, epoch and quality, the file of its measures. Those without measures, and
    those that are not measured yet, are below none.

    Raises:
        ArtifactError: a file of measures is damaged.
    """
    found = []
    for one in generators:
        if one["quality"] and Path(one["quality"]).exists() and (lines := below(read(one["quality"]))):
            found.append(f"{_name(one)}: {', '.join(lines)}")
    return tuple(found)


def notes(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return what must be said below an artifact, of what `missed` says of each of its cells."""
    found = dict.fromkeys(text for cell in cells for text in cell)
    result = []
    for text in found:
        count = sum(text in cell for cell in cells)
        where = "all cells rest on it" if count == len(cells) else f"{count} of {len(cells)} cells rest on it"
        result.append(f"{MARK} generator below its gate: {text}; {where}.")
    return result


def page(artifacts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the report shows of each generator of a paper: dataset, generator, epoch, its measures with their gates, a note."""
    found = {
        (one["dataset"], one["generator"], one["epoch"], one["quality"]): one
        for artifact in artifacts for cell in artifact["cells"] for one in cell.get("generators", ())
    }  # fmt: skip
    return [_row(one) for _, one in sorted(found.items(), key=lambda item: [str(part) for part in item[0]])]


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    row = {**{key: one[key] for key in ("dataset", "generator", "epoch", "quality")}, "missed": missed([one])}
    if not one["quality"]:
        return {**row, "measures": [], "note": UNMEASURED}
    if not Path(one["quality"]).exists():
        return {**row, "measures": [], "note": "not measured yet"}
    facts = read(one["quality"])
    measures = [
        {"name": name, "value": "no number" if m["value"] is None else f"{m['value']:.3f}", "gate": gate(*m["gate"]), "passed": m["passed"]}
        for name, m in facts["measures"].items()
    ]
    known = facts.get("classifier_accuracy")
    note = f"{facts['samples']} samples" if "samples" in facts else ""
    note += f"; the classifier has {known:.3f} on real test images" if known is not None else ""
    return {**row, "measures": measures, "note": note}


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['generator']} of {one['dataset']}, epoch {one['epoch']}"
