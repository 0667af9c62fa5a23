"""What the report needs beyond the papers' own files: where time went, and an index of every id."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.config import canonical
from dd.plan.job import Job
from dd.plan.jobs import Plan


def run_file(job: Job) -> Path | None:
    """Return the run.json of a job, or None for stages that write none."""
    first = Path(job.outputs[0])
    if job.stage == "distill":
        return first.with_name("run.json")
    if job.stage in ("evaluate", "analyse"):
        return first.with_suffix(".run.json")
    if job.stage in ("pretrain", "experts", "generator", "quality"):
        return first.with_suffix(".run.json")
    return None


def run_facts(job: Job) -> dict[str, Any] | None:
    """Return what a job's run.json says, or None where there is none (never made, or pulled without it)."""
    path = run_file(job)
    if path is None or not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def cost(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Return a row for every stage: how many jobs, measured seconds, the largest peak of memory, on which devices."""
    rows: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if run_file(job) is None:
            continue
        row = rows.setdefault(job.stage, {"stage": job.stage, "jobs": 0, "measured": 0, "seconds": 0.0, "peak_memory_mb": 0, "devices": {}})
        row["jobs"] += 1
        facts = run_facts(job)
        if facts:
            row["measured"] += 1
            row["seconds"] += facts.get("seconds", 0.0)
            row["peak_memory_mb"] = max(row["peak_memory_mb"], facts.get("peak_memory_mb", 0))
            row["devices"][facts.get("gpu") or facts.get("device", "?")] = None
    return [{**row, "seconds": round(row["seconds"], 1), "devices": ", ".join(row["devices"])} for row in rows.values()]


def index(plan: Plan, papers: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row for every id: stage, where it lies, and its whole configuration."""
    rows: dict[str, dict[str, Any]] = {}
    for job in plan.of(papers):
        if "id" in job.facts:
            name = f"{job.stage}/{job.facts['id']}"
            rows.setdefault(name, {"id": job.facts["id"], "stage": job.stage, "path": job.outputs[0], "config": canonical(job.config)})
    return list(rows.values())


def write(plan: Plan, out: Path) -> None:
    """Write the report of the papers that config.yaml lists, and index.csv beside it."""
    from dd.figures.report import write_index, write_report

    papers = plan.settings.papers
    folders = [Path("results/papers") / plan.scale.scale / paper for paper in papers]
    jobs = plan.of(papers)
    write_report(
        folders, out, scale=plan.scale.scale, scale_notes=f"{plan.scale.title}. {plan.scale.notes}".strip(), cost=cost(jobs)
    )
    write_index(index(plan, papers), out.with_name("index.csv"))
