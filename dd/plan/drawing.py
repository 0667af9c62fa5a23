"""What the figures of a paper are drawn from: every artifact with its cells and their files, as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd import networks, recipes
from dd.config import canonical
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest
from dd.plan.generators import behind
from dd.plan.job import PATHS
from dd.plan.papers import AXES, Artifact, Paper, Scalar
from dd.plan.points import waiting

if TYPE_CHECKING:
    from dd.plan.job import Cell
    from dd.plan.jobs import Plan

# Of an artifact; not its looks.
LOGIC = {"matrix", "include", "exclude", "overrides", "every_method", "use", "analysis", "chosen", "pending", "means"}


_Trained = dict[tuple[str, ...], list[dict[str, Any]]]


def drawing(plan: Plan, name: str) -> dict[str, Any]:
    """Return the JSON from which `dd.figures` draws one paper: every artifact with its cells and their files."""
    paper = plan.papers[name]
    axes = {**AXES, **paper.axes, **paper.at}
    trained: _Trained = {}  # by files: many cells look through the same networks
    for axis in paper.printed:
        if axis not in axes:
            raise ConfigError(f"{plan.folder / 'papers' / name}.yaml: printed: unknown axis {axis!r}{nearest(axis, axes)}")
    artifacts = []
    for key, artifact in paper.artifacts.items():
        cells = plan.cells[name][key] or [cell for other in artifact.use for cell in plan.cells[name][other]]
        look = {k: v for k, v in artifact.model_dump(mode="json").items() if k not in LOGIC}
        if artifact.kind == "settings":
            look["fields"] = {label: _setting(value, cells[0]) for label, value in artifact.fields.items()}
        if artifact.kind == "cost":
            look["runs"] = _runs(plan, name)
        if artifact.pending:
            later = waiting(paper, key, artifact, plan.scale)
            look["pending"] = [
                {"at": one.at, "printed": _printed(paper, one.at), "reason": one.reason, "place": one.place} for one in later
            ]
        chosen = {**paper.chosen, **artifact.chosen}
        shown = [{**_cell_json(plan, cell, paper, trained), **(_images(cell) if artifact.kind == "transition" else {})} for cell in cells]
        artifacts.append({"name": key, **look, "chosen": chosen, "cells": [*shown, *_means(artifact, paper, shown)]})
    return {
        "paper": name, "title": paper.title, "scale": plan.scale.scale, "spread": paper.spread, "artifacts": artifacts,
        "reported": reported_file(plan, name), "claims": claims_file(plan, paper),
    }  # fmt: skip


def reported_file(plan: Plan, name: str) -> str:
    """Return where the numbers that a paper prints would be."""
    return str(plan.folder / "reported" / f"{name}.csv")


def claims_file(plan: Plan, paper: Paper) -> str | None:
    """Return where the claims of a paper stand, or None for one that has none."""
    return str(plan.folder / "reported" / "claims.yaml") if paper.claims else None


def _setting(expression: Any, cell: Cell) -> Any:
    """Return a setting of the extractor that a cell really uses: a name, or a product of names such as "mlp_ratio * width"."""
    config = cell.point.config
    known = networks.describe(config["recipe"]["extractor"]["network"])
    if config["dataset"] in DATASETS:
        known["input_size"] = "x".join(map(str, DATASETS[config["dataset"]].size))
    parts = [part.strip() for part in str(expression).split("*")]
    for part in parts:
        if part not in known:
            raise ConfigError(f"fields: unknown setting {part!r}{nearest(part, known)}")
    return known[parts[0]] if len(parts) == 1 else math.prod(known[part] for part in parts)


def _runs(plan: Plan, paper: str) -> list[dict[str, Any]]:
    """Return where the seconds of each pre-training job of a paper stand."""
    paths = {path for artifact in plan.cells[paper].values() for cell in artifact for path in _ancestors(plan, cell)}
    jobs = [plan.jobs[path] for path in sorted(paths)]
    unique = {job.outputs[0]: job for job in jobs if job.stage == "pretrain"}
    return [
        {"network": job.config["network"], "epoch": job.facts["epoch"], "previous_epoch": job.facts["previous_epoch"],
         "seeds": list(job.facts["seeds"]), "run": str(Path(job.outputs[0]).with_suffix(".run.json"))}
        for job in sorted(unique.values(), key=lambda job: (job.config["network"], job.facts["epoch"], job.facts["seeds"]))
    ]  # fmt: skip


def _ancestors(plan: Plan, cell: Cell) -> list[str]:
    """Return every file that a cell is made from."""
    found: dict[str, None] = {}
    open_ = [f"{folder}/distilled.safetensors" for folder in cell.sets]
    while open_:
        path = open_.pop()
        if path not in found and path in plan.jobs:
            found[path] = None
            open_.extend(plan.jobs[path].inputs)
    return list(found)


def _run_files(plan: Plan, cell: Cell, trained: _Trained) -> dict[str, Any]:
    """Return where the seconds of a cell's distillations stand, and those of training its guides, and its protocol's networks."""
    features = [file for path in cell.scores[:1] for group in plan.jobs[path].facts["groups"] for file in group]
    return {
        "distillation": [f"{folder}/run.json" for folder in cell.sets],
        "guides": _training(plan, plan.jobs[f"{cell.sets[0]}/distilled.safetensors"].facts["guides"], trained),
        "features": _training(plan, features, trained),
    }


def _training(plan: Plan, files: Iterable[str], trained: _Trained) -> list[dict[str, Any]]:
    """Return where the seconds of training some networks stand, from their first epoch on.

    A job of pre-training makes a block of seeds; share is the part of its seconds that these networks took. trained: what is known already.
    """
    key = tuple(files)
    if key not in trained:
        trained[key] = _shares(plan, key)
    return trained[key]


def _shares(plan: Plan, files: Iterable[str]) -> list[dict[str, Any]]:
    seen: dict[tuple[str, str], float] = {}
    open_ = list(files)
    while open_:
        path = open_.pop()
        job = plan.jobs[path]
        run = str(Path(job.outputs[0]).with_suffix(".run.json"))
        if job.stage == "pretrain" and (run, path) not in seen:
            seen[run, path] = 1 / len(job.outputs)
            place = job.outputs.index(path)
            open_ += [job.facts["previous"][place]] if job.facts["previous"] else []
    shares: dict[str, float] = {}
    for (run, _), share in seen.items():
        shares[run] = shares.get(run, 0.0) + share
    return [{"run": run, "share": round(share, 6)} for run, share in sorted(shares.items())]


def _cell_json(plan: Plan, cell: Cell, paper: Paper, trained: _Trained) -> dict[str, Any]:
    config = cell.point.config
    return {
        "at": cell.point.at, "printed": _printed(paper, cell.point.at), "scaled": cell.point.scaled, "chosen": sorted(paper.chosen),
        "id": cell.distilled, "score_id": cell.evaluated,
        "config": config, "scores": cell.scores, "sets": cell.sets, "analysis": cell.analysis,
        "run_files": _run_files(plan, cell, trained), "choice": cell.choice, "generators": behind(plan.jobs, cell.sets),
    }  # fmt: skip


def _images(cell: Cell) -> dict[str, Any]:
    """Return what images of a set's steps are drawn with: after how many updates it is published, and where its classes are named."""
    config = cell.point.config
    return {
        "published": recipes.published(config["method"], config["recipe"]),
        "manifest": PATHS["prepare"].format(dataset=config["dataset"]),
    }


def _means(artifact: Artifact, paper: Paper, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a cell for each mean that an artifact asks for, of cells that have all of its values and differ in nothing else.

    Where a scale left out some of them, there is no mean.

    Raises:
        ConfigError: a mean over a coordinate that no cell has.
    """
    found = []
    for axis, named in artifact.means.items():
        if cells and not any(axis in cell["at"] for cell in cells):
            raise ConfigError(f"means: no point has a coordinate {axis!r}")
        for name, values in named.items():
            groups: dict[str, list[dict[str, Any]]] = {}
            for cell in cells:
                if cell["at"].get(axis) in values:
                    rest = {key: value for key, value in cell["at"].items() if key != axis}
                    groups.setdefault(canonical(rest), []).append(cell)
            for members in groups.values():
                if len(members) < len(values):
                    continue
                at = {**members[0]["at"], axis: name}
                scaled = list(dict.fromkeys(one for member in members for one in member["scaled"]))
                found.append({**members[0], "at": at, "printed": _printed(paper, at), "scaled": scaled, "members": members})
    return found


def _printed(paper: Paper, at: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return coordinates as reported/*.csv writes them."""
    return {axis: paper.printed.get(axis, {}).get(str(value), value) for axis, value in at.items()}
