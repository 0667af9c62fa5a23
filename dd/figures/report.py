"""One page with everything: scorecard, every table and figure, claims with verdicts, how it was made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.artifacts import read_json, write_text
from dd.errors import ArtifactError
from dd.figures.runs import lines_of, mixed, read
from dd.figures.sheets import to_csv
from dd.figures.style import DPI
from dd.figures.template import PAGE
from dd.figures.values import FAILS, HOLDS, NOT_RUN, UNDECIDED

VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)


def write_report(
    papers: Sequence[Path], out: Path, *, scale: str, scale_notes: str = "", cost: Sequence[Mapping[str, Any]] | None = None,
    runs: Mapping[str, Sequence[str]] | None = None,
) -> None:  # fmt: skip
    """Write a self-contained HTML page: nothing in it is loaded from anywhere else.

    Args:
        papers: folders that `draw_paper` filled, in the order of the page.
        cost: rows of measured time, shown as they are, with the keys of the first row as columns.
        runs: paper -> where the run.json of every job that it rests on stands; None: only distillations and evaluations are known, from
            the folders.

    Raises:
        ArtifactError: a folder lacks paper.json, claims.json or a picture; draw that paper again.
    """
    from jinja2 import Environment, StrictUndefined

    pages = [_paper(folder) for folder in papers]
    given = runs or {}
    files = {one["paper"]: list(given.get(one["paper"], one["runs"])) for one in pages}
    found = read(dict.fromkeys(path for paths in files.values() for path in paths))
    for one in pages:
        paths = files[one["paper"]]
        facts = [found[path] for path in paths if path in found]
        which = "all stages" if one["paper"] in given else "distillations and evaluations"
        one |= {"provenance": lines_of(facts, len(paths), which), "mixed": mixed(facts)}
    total = len({path for paths in files.values() for path in paths})
    rows = list(cost or ())
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(PAGE)
    text = page.render(
        scale=scale, scale_notes=scale_notes, verdicts=VERDICTS, papers=pages, scaled=any(paper["scaled"] for paper in pages),
        digits=any("dataset digits" in paper["scaled"] for paper in pages), generators=_generators(pages), cost=rows,
        cost_columns=list(rows[0]) if rows else [], made=lines_of(list(found.values()), total),
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
        return {**page, "claims": claims, "verdicts": verdicts, "chosen": shared, "runs": list(page["runs"])}
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
