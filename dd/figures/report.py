"""One page with everything: scorecard, every table and figure, claims with verdicts, cost."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.artifacts import read_json, write_text
from dd.errors import ArtifactError
from dd.figures.sheets import to_csv
from dd.figures.style import DPI
from dd.figures.template import PAGE
from dd.figures.values import FAILS, HOLDS, NOT_RUN, UNDECIDED

VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)
MADE_WITH = ("commit", "dirty", "device", "gpu", "torch", "python", "threads")


def write_report(
    papers: Sequence[Path], out: Path, *, scale: str, scale_notes: str = "", cost: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Write a self-contained HTML page: nothing in it is loaded from anywhere else.

    Args:
        papers: folders that `draw_paper` filled, in the order of the page.
        cost: rows of measured time, shown as they are, with the keys of the first row as columns.

    Raises:
        ArtifactError: a folder lacks paper.json, claims.json or a picture; draw that paper again.
    """
    from jinja2 import Environment, StrictUndefined

    pages = [_paper(folder) for folder in papers]
    rows = list(cost or ())
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(PAGE)
    text = page.render(
        scale=scale, scale_notes=scale_notes, verdicts=VERDICTS, papers=pages, scaled=any(paper["scaled"] for paper in pages),
        digits=any("dataset digits" in paper["scaled"] for paper in pages), generators=_generators(pages), cost=rows,
        cost_columns=list(rows[0]) if rows else [],
    )  # fmt: skip
    write_text(out, text)


def write_index(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write one line for every id with all of its fields; what is not text is written as JSON."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["id"]
    write_text(out, to_csv(columns, [[_field(row.get(name)) for name in columns] for row in rows]))


def _field(item: Any) -> str:
    if item is None:
        return ""
    return item if isinstance(item, str) else json.dumps(item, sort_keys=True, ensure_ascii=False)


def _paper(folder: Path) -> dict[str, Any]:
    page = read_json(folder / "paper.json")
    claims = read_json(folder / "claims.json")
    try:
        shared = _shared([artifact["chosen"] for artifact in page["artifacts"]])
        for artifact in page["artifacts"]:
            artifact["own_chosen"] = {key: reason for key, reason in artifact["chosen"].items() if shared.get(key) != reason}
            artifact["image"], artifact["width"] = _image(folder / f"{artifact['name']}.png") if artifact["picture"] else (None, None)
        verdicts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}
        return {**page, "claims": claims, "verdicts": verdicts, "chosen": shared, "provenance": _provenance(page["runs"])}
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / 'paper.json'}: lacks {error}; draw this paper again") from None


def _generators(pages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the generators of all papers, each once, with the papers that rest on it."""
    found: dict[str, dict[str, Any]] = {}
    for page in pages:
        for one in page.get("generators", ()):  # pages that were drawn before there were any have none
            key = json.dumps([one["dataset"], one["generator"], one["epoch"], one["quality"]])
            found.setdefault(key, {**one, "papers": []})["papers"].append(page["paper"])
    return list(found.values())


def _shared(every: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the choices of the paper as a whole, shown once: the commonest reason of each that most of its artifacts have."""
    shared = {}
    for key in dict.fromkeys(key for one in every for key in one):
        reasons = [one[key] for one in every if key in one]
        commonest = max(dict.fromkeys(reasons), key=reasons.count)
        if 2 * reasons.count(commonest) > len(every):
            shared[key] = commonest
    return shared


def _image(path: Path) -> tuple[str, int]:
    """Return a PNG as text that stands in the page, and its width in CSS pixels."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; draw this paper again") from error
    width = int.from_bytes(data[16:20], "big")  # of the header, which comes first in every PNG
    return "data:image/png;base64," + base64.b64encode(data).decode(), round(width * 96 / DPI)


def _provenance(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return with what the numbers were made, as far as run.json files are there."""
    paths = list(paths)
    seen: dict[str, dict[str, int]] = {}
    found, seconds = 0, 0.0
    for path in paths:
        facts = _facts(Path(path))
        if facts is None:
            continue
        found += 1
        seconds += facts.get("seconds") or 0.0
        for key in MADE_WITH:
            if facts.get(key) is not None:
                counts = seen.setdefault(key, {})
                counts[str(facts[key])] = counts.get(str(facts[key]), 0) + 1
    lines = [("jobs with a run.json", f"{found} of {len(paths)} (distillations and evaluations)")]
    for key in MADE_WITH:
        if key in seen:
            several = len(seen[key]) > 1
            lines.append((key, ", ".join(f"{value} ({count} jobs)" if several else value for value, count in sorted(seen[key].items()))))
    if found:
        lines.append(("seconds", f"{seconds:.0f}"))
    return lines


def _facts(path: Path) -> dict[str, Any] | None:
    """Return a run.json, or None where there is none that can be read: it is no result, and must not stop the report."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
