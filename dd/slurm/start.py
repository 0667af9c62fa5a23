"""What Snakemake does before its first job (`onstart` in the Snakefile): what is wrong is better said now than by a job in the night."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.plan import Job, Plan
from dd.slurm import guard, head
from dd.slurm.preflight import Ask, preflight
from dd.slurm.restart import left


def start(workflow: Any, plan: Plan) -> None:
    """Become the head of this folder; if jobs go to SLURM, repair its plugin and check what they will need.

    workflow: Snakemake's, as it stands in a Snakefile.

    Raises:
        HeadError: another Snakemake works here, or jobs of an earlier one still do.
        RestartError: SLURM does not tell.
        PreflightError: something is missing, or the cluster would refuse it.
    """
    folder, submits = Path.cwd(), workflow.executor_plugin.name == "slurm"
    if submits or (head.found(folder) is not None and shutil.which("squeue")):  # the earlier one was killed: its jobs may live
        _alone(folder)
    head.take(folder)
    if not submits:
        return
    guard.install()
    waiting = list(workflow.dag.needrun_jobs())
    preflight(plan, _planned(plan, waiting), _asks(waiting), workflow.executor_settings.init_seconds_before_status_checks)


def _alone(folder: Path) -> None:
    """Raise where jobs of an earlier run of this folder are still in the queue: each of them would meet its own successor."""
    jobs = left(folder)
    if jobs and not ((last := head.found(folder)) and last.alive):  # of a living one `take` speaks
        raise head.HeadError(
            f"{len(jobs)} jobs of an earlier run in this folder are still in the queue ({' '.join(list(jobs)[:20])}), and would write the "
            "same files; use `python -m dd restart wait -- ...` with the arguments of this run, or `restart cancel`"
        )


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
