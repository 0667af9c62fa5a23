"""What Snakemake does before its first job (`onstart` in the Snakefile): what is wrong is better said now than by a job in the night."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.plan import Job, Plan
from dd.plan.atwork import run_at_work
from dd.slurm import guard, head
from dd.slurm.preflight import Ask, preflight
from dd.slurm.restart import left, listed


def start(workflow: Any, plan: Plan) -> None:
    """Become the head of this folder; if jobs go to SLURM, repair its plugin and check what they will need.

    workflow: Snakemake's, as it stands in a Snakefile.

    Raises:
        HeadError: another Snakemake or a `dd run` works here, or jobs of an earlier one still do, or SLURM does not tell.
        PreflightError: something is missing, or the cluster would refuse it.
    """
    folder, submits = Path.cwd(), workflow.executor_plugin.name == "slurm"
    killed = head.ended(folder)
    if submits or (killed and killed.submits):  # jobs of a local run have died with it
        _alone(folder, killed)
    head.take(folder, submits)
    if busy := run_at_work(folder):
        raise head.HeadError(busy)
    if not submits:
        return
    guard.install()
    waiting = list(workflow.dag.needrun_jobs())
    preflight(plan, _planned(plan, waiting), _asks(waiting), workflow.executor_settings.init_seconds_before_status_checks, _profile())


def _alone(folder: Path, killed: head.Head | None) -> None:
    """Raise where jobs of an earlier run of this folder are still in the queue: each of them would meet its own successor."""
    try:
        jobs = left(folder)
    except head.HeadError as error:
        if killed is None:
            raise
        raise head.HeadError(
            f"{error}. The earlier Snakemake here, {killed}, was killed, and its SLURM jobs may live on. If they have ended for certain, "
            f"delete {folder / head.FILE}"
        ) from None
    if jobs:
        some = listed(dict(list(jobs.items())[:20]))
        raise head.HeadError(
            f"{len(jobs)} jobs of an earlier run in this folder are still in the queue ({some}), and would write the same "
            "files; use `python -m dd restart wait -- ...` with the arguments of this run, or `restart cancel`"
        )


def _profile() -> str:
    """Name the profile that the run was given, as Snakemake finds it: its settings do not keep the name."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--profile", action="append")
    given, _ = parser.parse_known_args()
    names = given.profile or [name for name in (os.environ.get("SNAKEMAKE_PROFILE"),) if name]
    inside = [[name, *(str(path) for path in (Path(name, "config.yaml"), Path(name, "profile.yaml")) if path.is_file())] for name in names]
    return " and ".join(paths[-1] for paths in inside) or "the command line"


def _planned(plan: Plan, waiting: Iterable[Any]) -> list[Job]:
    """Return the plan's jobs for those of Snakemake."""
    found = [plan.jobs[str(path)] for job in waiting for path in job.output if str(path) in plan.jobs]
    return list({id(job): job for job in found}.values())


def _asks(waiting: Iterable[Any]) -> list[Ask]:
    """Return what each rule asks for in its first and in its last attempt."""
    one_of = {job.rule.name: job for job in waiting if not job.is_local}
    asks = []
    for name, job in one_of.items():
        for attempt in sorted({1, 1 + job.restart_times}):
            found = job.rule.expand_resources(job.wildcards_dict, job.input, attempt, skip_evaluation={"tmpdir"})
            asks.append(Ask(name, attempt, dict(found.items())))
    return asks
