"""Tables that hold no accuracy: settings, classes, the design of experiments, the cost of pre-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.artifacts import read_json
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest
from dd.figures.results import text
from dd.figures.sheets import Sheet, changes, word

ABSENT = "-"
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
    return Sheet(["setting", "value"], rows, _said(artifact, scale))


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


def parameters(artifact: Mapping[str, Any], scale: str) -> Sheet:
    """Return settings of the resolved configurations, one row for each combination of `rows`, one column for each of `fields`.

    A field is a dotted path, or several of which a cell has one; "-" stands where it has none. Rows whose settings are equal are one, with
    all their values of the last of `rows`.

    Raises:
        ConfigError: no rows or no fields, a path that no cell has (where a scale may have left out those that do, its column is empty),
            or cells of one row that differ.
    """
    name, cells, names = artifact["name"], artifact["cells"], list(artifact.get("rows") or ())
    fields = {label: [value] if isinstance(value, str) else list(value) for label, value in (artifact.get("fields") or {}).items()}
    if not fields or not names:
        raise ConfigError(f"artifact {name}: kind parameters needs rows and fields")
    found: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        side = tuple(text(cell["at"].get(one)) for one in names)
        values = [_first(cell["config"], paths) for paths in fields.values()]
        if found.setdefault(side, values) != values:
            raise ConfigError(f"artifact {name}: two cells of row {side} have other settings; name what differs in rows")
    for number, (label, paths) in enumerate(fields.items()):
        if not any(cell["scaled"] for cell in cells) and all(values[number] == ABSENT for values in found.values()) and cells:
            raise ConfigError(f"artifact {name}: fields.{label}: no cell has {' or '.join(paths)}")
    rows: dict[tuple[str, ...], list[str]] = {}
    for (*front, last), values in found.items():
        rows.setdefault((*front, *values), []).append(last)
    wide = len(names) - 1
    lines = [[*key[:wide], ", ".join(dict.fromkeys(last)), *key[wide:]] for key, last in rows.items()]
    return Sheet([*map(word, names), *fields], lines, _said(artifact, scale))


def _first(config: Mapping[str, Any], paths: Sequence[str]) -> str:
    """Return the value of the first of several paths that a configuration has."""
    for path in paths:
        place: Any = config
        for part in path.split("."):
            place = place.get(part, ABSENT) if isinstance(place, Mapping) else ABSENT
        if place != ABSENT:
            return text(place) or "null"
    return ABSENT


def class_names(artifact: Mapping[str, Any]) -> Sheet:
    """Return the classes of registered datasets, one row a dataset, as their own order has them; fields: a label -> a dataset's name.

    Raises:
        ConfigError: no fields, or a dataset that is not registered.
    """
    fields, where = artifact.get("fields") or {}, f"artifact {artifact['name']}: fields"
    if not fields:
        raise ConfigError(f"{where}: kind class_names needs them: a label for each dataset")
    for label, name in fields.items():
        if name not in DATASETS:
            raise ConfigError(f"{where}.{label}: no dataset {name!r} is registered{nearest(str(name), DATASETS)}")
    known = {label: DATASETS[name].classes for label, name in fields.items()}
    wide = max(len(classes) for classes in known.values())
    rows = [[label, *classes, *[""] * (wide - len(classes))] for label, classes in known.items()]
    return Sheet(["dataset", *map(str, range(wide))], rows, _note(artifact))


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


def _said(artifact: Mapping[str, Any], scale: str) -> list[str]:
    """Return the note of a listing of settings, and what the scale changed in them."""
    said = changes(cell["scaled"] for cell in artifact["cells"])
    return [*_note(artifact), *([f"† {scale}: {said}. Not the paper's setting."] if said else [])]
