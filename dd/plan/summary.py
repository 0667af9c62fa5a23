"""What the report needs beyond the papers' own files: where time went, and an index of every id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.config import canonical
from dd.figures.runs import read
from dd.plan.job import Job
from dd.plan.jobs import Plan

NO_RUN = "no run.json"
NOTHING: dict[str, Any] = {"jobs": 0, "seconds": 0.0, "peak_memory_mb": 0, "peak_gpu_memory_mb": 0, "resumed": 0}


def run_file(job: Job) -> Path:
    """Return where the run.json of a job stands: in the folder that is its own, or beside its first output."""
    first = Path(job.outputs[0])
    if job.stage == "download":
        return Path("data/raw", job.facts["dataset"], "run.json")
    if job.stage in ("prepare", "distill", "artifact"):
        return first.with_name("run.json")
    return first.with_suffix(".run.json")


def run_facts(job: Job) -> dict[str, Any] | None:
    """Return what a job's run.json says, or None where there is none that can be read, or no result that it could be about."""
    if not Path(job.outputs[0]).exists():  # Snakemake removes a result before it makes it anew, and knows nothing of the note
        return None
    path = str(run_file(job))
    facts = read([path]).get(path)
    return None if facts is None else dict(facts)


def cost(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """Return a row for every stage and device: jobs, their seconds, the largest peaks of memory, how many continued an earlier run."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for job in jobs:
        facts = run_facts(job)
        device = NO_RUN if facts is None else str(facts.get("gpu") or facts.get("device") or "not known")
        row = rows.setdefault((job.stage, device), {"stage": job.stage, "device": device, **NOTHING})
        row["jobs"] += 1
        if facts is not None:
            row["seconds"] += facts.get("seconds") or 0.0
            row["resumed"] += bool(facts.get("resumed"))
            for key in ("peak_memory_mb", "peak_gpu_memory_mb"):
                row[key] = max(row[key], facts.get(key) or 0)
    return [{**row, "seconds": round(row["seconds"], 1)} for row in rows.values()]


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
    runs = {paper: [str(run_file(job)) for job in plan.of([paper])] for paper in papers}
    write_report(
        folders, out, scale=plan.scale.scale, scale_notes=f"{plan.scale.title}. {plan.scale.notes}".strip(), cost=cost(plan.of(papers)),
        runs=runs,
    )  # fmt: skip
    write_index(index(plan, papers), out.with_name("index.csv"))
