"""Tables that hold no accuracy: settings, the design of experiments, the cost of pre-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.artifacts import read_json
from dd.errors import ConfigError, nearest
from dd.figures.results import text
from dd.figures.sheets import Sheet, changes, word

DESIGN = ("eval_network", "extractor", "extractor_mode", "extractor_epochs")


def settings(artifact: Mapping[str, Any], scale: str) -> Sheet:
    """Return settings of the resolved configurations: `fields` maps a label to a dotted path in them, or to a literal value.

    Raises:
        ConfigError: no fields, or a path into the configuration that leads nowhere.
    """
    name, cells = artifact["name"], artifact["cells"]
    if not artifact.get("fields"):
        raise ConfigError(f"artifact {name}: kind settings needs fields")
    rows = [[label, _setting(value, cells, f"artifact {name}: fields.{label}")] for label, value in artifact["fields"].items()]
    said = changes(cell["scaled"] for cell in cells)
    return Sheet(["setting", "value"], rows, [*_note(artifact), *([f"† {scale}: {said}. Not the paper's setting."] if said else [])])


def _setting(value: Any, cells: Sequence[Mapping[str, Any]], where: str) -> str:
    if not isinstance(value, str) or not cells:
        return text(value)
    first, *rest = value.split(".")
    if first not in cells[0]["config"] or (rest and any(not part.isidentifier() for part in rest)):
        return value  # a literal, such as "16x16" or "3.2"
    found: dict[str, None] = {}
    for cell in cells:
        place: Any = cell["config"]
        for part in (first, *rest):
            if not isinstance(place, dict) or part not in place:
                known = place if isinstance(place, dict) else ()
                raise ConfigError(f"{where}: {value!r}: no key {part!r} in the configuration{nearest(part, known)}")
            place = place[part]
        found[text(place)] = None
    return ", ".join(found)


def design(artifact: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]) -> Sheet:
    """Return which networks, extractors, modes and epochs were run: one row a group, read from the cells of other artifacts.

    Raises:
        ConfigError: `groups` names an artifact that is not there.
    """
    known = {str(other["name"]): other for other in artifacts}
    rows = []
    for label, name in (artifact.get("groups") or {}).items():
        if name not in known:
            raise ConfigError(f"artifact {artifact['name']}: groups.{label}: no artifact {name!r}{nearest(name, known)}")
        cells = known[name]["cells"]
        rows.append([label, *(", ".join(dict.fromkeys(text(cell["at"].get(column)) for cell in cells)) for column in DESIGN), name])
    said = "The cells of this scale, in the paper's own terms; what a scale changes in them is said where they are drawn."
    return Sheet(["experiment", "network", "extractor", word("extractor_mode"), "epochs", "drawn in"], rows, [*_note(artifact), said])


def cost(artifact: Mapping[str, Any]) -> tuple[Sheet, list[str], list[list[str]]]:
    """Return the seconds of pre-training a milestone as a table, and as header and rows for machines.

    Seconds are those of the run.json beside the networks, from the milestone before, for all seeds of a network and a milestone
    together. A run.json that is not there (made elsewhere, or pulled without it) is counted, never guessed.
    """
    groups: dict[tuple[str, int, int], dict[str, Any]] = {}
    for run in artifact.get("runs") or ():
        group = groups.setdefault(
            (run["network"], run.get("previous_epoch", 0), run["epoch"]), {"jobs": 0, "missing": 0, "seeds": 0, "seconds": 0.0, "where": {}}
        )
        group["jobs"] += 1
        if not Path(run["run"]).exists():
            group["missing"] += 1
            continue
        facts = read_json(run["run"])
        group["seconds"] += facts.get("seconds", 0.0)
        group["seeds"] += len(run.get("seeds") or [0])
        group["where"][str(facts.get("gpu") or facts.get("device") or "")] = None
    header = ["network", "from_epoch", "to_epoch", "networks", "seconds", "seconds_per_network", "jobs", "missing", "device"]
    lines = []
    for (network, before, epoch), group in groups.items():
        each = f"{group['seconds'] / group['seeds']:.2f}" if group["seeds"] else ""
        total = f"{group['seconds']:.1f}" if group["seeds"] else ""
        lines.append([network, str(before), str(epoch), str(group["seeds"]), total, each, str(group["jobs"]), str(group["missing"]),
                      ", ".join(group["where"])])  # fmt: skip
    rows = [[line[0], f"{line[1]} to {line[2]}", line[3], line[4] or "missing", line[5] or "missing", line[8]] for line in lines]
    missing = sum(group["missing"] for group in groups.values())
    said = [f"{missing} of {sum(group['jobs'] for group in groups.values())} jobs left no run.json here."] if missing else []
    sheet = Sheet(["network", "epochs", "networks", "seconds", "seconds a network", "device"], rows, [*_note(artifact), *said])
    return sheet, header, lines


def absent(artifact: Mapping[str, Any]) -> Sheet:
    """Return what stands in place of an artifact that is not drawn: the reason."""
    return Sheet([], [], [f"Not reproduced: {artifact['absent']}", *_note(artifact)])


def _note(artifact: Mapping[str, Any]) -> list[str]:
    return [str(artifact["note"])] if artifact.get("note") else []
