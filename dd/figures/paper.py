"""Draw one paper: every table and figure as csv, md, png and pdf, and the verdicts on its claims."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import write_json, write_text
from dd.errors import ConfigError, nearest
from dd.figures import (
    cams,
    classes,
    features,
    gains,
    gates,
    heat,
    listings,
    losses,
    measures,
    models,
    normalised,
    pictures,
    plots,
    seconds,
    seconds_ratio,
    sheets,
    spaces,
    tables,
    transition,
)
from dd.figures.checks import judge
from dd.figures.claims import Claim, Listed, load_claims
from dd.figures.reported import Reported, compare, find, load_gains, load_reported, load_times
from dd.figures.results import SPREADS, Point, read_cell
from dd.figures.sheets import Drawn, Sheet, Waiting
from dd.figures.style import save, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# kind -> (table for people, figure); without a figure of its own, the table is drawn as a picture
OVER_CELLS: dict[str, tuple[Callable[[Drawn], Sheet], Callable[[Drawn], Figure] | None]] = {
    "bars": (sheets.cells, plots.bars),
    "line": (sheets.cells, plots.line),
    "table": (tables.pivot, None),
    "grid": (pictures.grid_sheet, pictures.grid),
    "tsne": (spaces.tsne_sheet, spaces.tsne),
    "models": (models.models_sheet, models.models),
    "classes": (classes.classes_sheet, classes.heat),
    "heatmap": (heat.heat_sheet, heat.heatmap),
    "transition": (transition.transition_sheet, transition.transition),
    "cams": (cams.cams_sheet, cams.cams),
    "losses": (losses.losses_sheet, losses.losses),
    "normalised": (normalised.normalised_sheet, normalised.normalised),
}
LONG: dict[str, Callable[[Drawn], str]] = {
    "models": models.models_csv, "tsne": spaces.tsne_csv, "table": gains.table_csv, "classes": classes.classes_csv,
    "transition": transition.transition_csv, "cams": cams.cams_csv, "losses": losses.losses_csv, "normalised": normalised.normalised_csv,
}  # fmt: skip  # with more than accuracies of cells in them
TIMES = {"cost": listings.cost, "seconds": seconds.seconds, "features": features.features}  # what was measured with a clock
OTHERS = ("settings", "parameters", "class_names", "design", *TIMES, "seconds_ratio", "absent")


def draw_paper(job: Mapping[str, Any], out_dir: Path) -> None:
    """Write {artifact}.csv, .md, .png, .pdf of every artifact, paper.json (what the report needs), and claims.json.

    Equal inputs give equal bytes, but for tables of cost, of seconds, their ratios, and of features.

    Args:
        job: what `Plan.drawing` returns: paper, title, scale, spread (all | sets | nets), reported and claims (paths, or None), and
            artifacts, each with name, title, kind, its looks and its cells (at, printed, scaled, id, score_id, config, scores, sets,
            analysis, run_files, choice, generators); printed are the coordinates as the reported file writes them.

    Raises:
        ConfigError: an unknown kind or spread, an artifact whose looks do not fit its cells, a mistake in the claims or reported rows.
        ArtifactError: a damaged score, image or embedding file. Files that are not there are shown as not run.
    """
    spread = job.get("spread", "all")
    if spread not in SPREADS:
        raise ConfigError(f"paper {job['paper']}: spread {spread!r}{nearest(spread, SPREADS)}")
    path = job.get("reported")
    elsewhere = {str(name) for artifact in job["artifacts"] for name in artifact.get("reported") or ()}
    known = Path(path) if path and Path(path).exists() else None  # an experiment of ours prints nothing
    reported = load_reported(known, elsewhere) if known else []
    printed_gains, times = (load_gains(known), load_times(known)) if known else ([], [])
    listed: list[Listed] = []
    claims: list[Claim] = []
    if job.get("claims"):
        listed, claims = load_claims(Path(job["claims"])).of(job["paper"])
    out_dir.mkdir(parents=True, exist_ok=True)
    drawn = [_read(artifact, job["scale"], spread, reported, printed_gains) for artifact in job["artifacts"]]
    pages = []
    with styled():
        for one in drawn:
            pages.append(_artifact(one, job["artifacts"], times, out_dir))
    cells = [(str(one.artifact["name"]), point) for one in drawn for point in one.points]
    verdicts = [_verdict(claim, cells if claim.measure == "accuracy" else _measured(drawn, claim.measure)) for claim in claims]
    about = {key: job[key] for key in ("paper", "title", "scale")}
    runs, behind = _run_files(job["artifacts"]), gates.page(job["artifacts"])
    write_json(out_dir / "paper.json", {**about, "artifacts": pages, "counts": _counts(drawn), "listed": _listed(listed, job["artifacts"]),
                                        "scaled": sheets.changes(point.scaled for _, point in cells), "runs": runs,
                                        "generators": behind})  # fmt: skip
    write_json(out_dir / "claims.json", verdicts)


def _read(
    artifact: Mapping[str, Any], scale: str, spread: str, reported: Sequence[Reported], printed_gains: Sequence[Reported] = ()
) -> Drawn:
    if artifact["kind"] not in (*OVER_CELLS, *OTHERS):
        raise ConfigError(f"artifact {artifact['name']}: kind {artifact['kind']!r}{nearest(artifact['kind'], (*OVER_CELLS, *OTHERS))}")
    over_cells = artifact["kind"] in OVER_CELLS and not artifact.get("absent")
    cells = artifact["cells"] if over_cells else []
    names = artifact.get("reported") or [artifact["name"]]
    printed = [find(reported, names, cell.get("printed") or cell["at"]) for cell in cells]
    later = [
        Waiting(one["at"], one["reason"], one["place"], find(reported, names, one.get("printed") or one["at"]))
        for one in artifact.get("pending") or ()
    ]
    return Drawn(artifact, scale, spread, [read_cell(cell) for cell in cells], printed, later, printed_gains)


def _artifact(drawn: Drawn, artifacts: Sequence[Mapping[str, Any]], times: Sequence[Reported], out_dir: Path) -> dict[str, Any]:
    """Write the four files of an artifact; return what the report shows of it. times: the seconds that the paper prints."""
    artifact = drawn.artifact
    kind = "absent" if artifact.get("absent") else artifact["kind"]
    made: Figure | None = None
    if kind in OVER_CELLS and not drawn.points:
        raise ConfigError(f"artifact {artifact['name']}: kind {kind} has no cells to draw; give it a matrix, use, or absent")
    if kind in OVER_CELLS:
        sheet_of, figure_of = OVER_CELLS[kind]
        sheet, table = sheet_of(drawn), LONG.get(kind, sheets.long_csv)(drawn)
        sheet.notes.extend(gates.notes([point.below for point in drawn.points]))
        made = figure_of(drawn) if figure_of else None
    elif kind in TIMES:
        sheet, header, rows = TIMES[kind](artifact)
        table = sheets.to_csv(header, rows)
    elif kind == "seconds_ratio":
        sheet, header, rows = seconds_ratio.seconds_ratio(artifact, times)
        table = sheets.to_csv(header, rows)
    else:
        sheet = _listing(kind, drawn, artifacts)
        table = sheets.to_csv(sheet.columns or ["absent"], sheet.rows or ([[str(artifact.get("absent"))]] if kind == "absent" else []))
    save(made or pictures.table(drawn.title, sheet), out_dir / artifact["name"])
    write_text(out_dir / f"{artifact['name']}.csv", table)
    write_text(out_dir / f"{artifact['name']}.md", sheet.markdown(drawn.title, _chosen(artifact)))
    return {"name": artifact["name"], "title": drawn.title, "kind": kind, "picture": made is not None, "columns": sheet.columns,
            "rows": sheet.rows, "notes": sheet.notes, "chosen": _chosen(artifact)}  # fmt: skip


def _listing(kind: str, drawn: Drawn, artifacts: Sequence[Mapping[str, Any]]) -> Sheet:
    if kind == "settings":
        return listings.settings(drawn.artifact, drawn.scale)
    if kind == "parameters":
        return listings.parameters(drawn.artifact, drawn.scale)
    if kind == "class_names":
        return listings.class_names(drawn.artifact)
    if kind == "design":
        return listings.design(drawn.artifact, artifacts)
    if not drawn.get("absent"):
        raise ConfigError(f"artifact {drawn.artifact['name']}: kind absent needs absent, the reason")
    return listings.absent(drawn.artifact)


def _chosen(artifact: Mapping[str, Any]) -> dict[str, str]:
    chosen = artifact.get("chosen") or {}
    return {str(key): str(reason) for key, reason in chosen.items()}


def _measured(drawn: Sequence[Drawn], measure: str) -> list[tuple[str, Point]]:
    return [(str(one.artifact["name"]), point) for one in drawn for point in measures.measured(one, measure)]


def _verdict(claim: Claim, cells: Sequence[tuple[str, Point]]) -> dict[str, Any]:
    found = judge(claim, cells)
    chosen = [leaf.chosen for leaf in claim.leaves() if leaf.chosen]
    return {"id": claim.id, "claim": claim.claim, "artifact": claim.artifact, "verdict": found.verdict, "reason": found.reason,
            "scaled": found.scaled, "chosen": chosen, "note": claim.note}  # fmt: skip


def _counts(drawn: Sequence[Drawn]) -> dict[str, int]:
    """Return numbers for the scorecard; a result that stands in several artifacts counts once, and so does a printed number beside it."""
    cells: dict[str, tuple[Point, Reported | None, str]] = {}
    for one in drawn:
        shown = one.artifact["cells"] if one.points else []  # listings and times have cells, but no accuracies
        for cell, point, row in zip(shown, one.points, one.reported, strict=True):
            if "members" in cell and row is None:
                continue  # a mean of others is no result of its own, unless the paper prints it
            key = json.dumps([point.id, point.score_id, row and [row.mean, row.std]])
            cells.setdefault(key, (point, row, one.spread))
    own = {key: None if row and row.elsewhere else row for key, (_, row, _) in cells.items()}  # what other papers print is none of it
    compared = [found for key, (point, _, spread) in cells.items() if (found := compare(point, own[key], spread))]
    points = [point for point, _, _ in cells.values()]
    return {
        "cells": len(points),
        "run": sum(bool(point.n) for point in points),
        "diverged": sum(bool(point.diverged) for point in points),
        "scaled": sum(bool(point.scaled) for point in points),
        "reported": sum(row is not None for row in own.values()),
        "compared": len(compared),
        "within": sum(near for _, near in compared),
    }


def _listed(listed: Sequence[Listed], artifacts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return what became of every artifact of the paper: drawn, settings only, or absent with its reason."""
    drawn = {artifact["name"]: artifact for artifact in artifacts}
    found = []
    for one in listed:
        artifact = drawn.get(one.name)
        reason = one.absent or "the paper file has no artifact of this name"
        if artifact is not None:
            reason = artifact.get("absent") or ""
        listing = artifact is not None and artifact["kind"] in ("settings", "parameters", "class_names", "design")
        state = "absent" if reason else "settings only" if listing else "drawn"
        found.append({"name": one.name, "title": one.title, "state": state, "reason": reason})
    return found


def _run_files(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where the run.json of every evaluation and distillation lies, if it is there."""
    scores = {str(Path(path).with_suffix(".run.json")) for artifact in artifacts for cell in artifact["cells"] for path in cell["scores"]}
    sets = {str(Path(folder) / "run.json") for artifact in artifacts for cell in artifact["cells"] for folder in cell["sets"]}
    return sorted(scores | sets)
