"""Repairs of Snakemake's SLURM plugin, in the process that watches the jobs.

When every question about the jobs' states fails in one round, as while the controller restarts, the plugin forgets all jobs and waits for
ever. And it takes a job that was preempted, or that accounting calls "CANCELLED by UID", for one that runs. All this is repaired only in
versions in which it was seen.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import AsyncIterator
from typing import Any

PLUGIN = "snakemake-executor-plugin-slurm"
TESTED = ("2.8.0",)


def install() -> bool:
    """Repair the plugin; return whether it is repaired.

    Call it in the process that submits. Says on standard error when the plugin's version is not one of `TESTED`, which is left as it is.
    """
    try:
        import snakemake_executor_plugin_slurm as plugin

        version = importlib.metadata.version(PLUGIN)
    except ImportError:  # PackageNotFoundError is one
        return False
    if version not in TESTED:
        print(
            f"{PLUGIN} {version}: dd/slurm/guard.py repairs {', '.join(TESTED)} only, and leaves this version as it is; should the run "
            "wait for ever after SLURM was away, stop it and use `python -m dd restart wait`",
            file=sys.stderr,
        )
        return False
    repair(plugin)
    return True


def repair(plugin: Any) -> None:
    """Repair a module that has the plugin's `Executor` and `query_job_status`."""
    executor = plugin.Executor
    query, check = plugin.query_job_status, executor.check_active_jobs

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await query(command, logger)
        if states is not None:
            states = {job: _known(state) for job, state in states.items()}
        return states, seconds

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        answered: set[int] = set()

        def noting(report: Any) -> Any:
            def reported(job: Any, *args: Any, **options: Any) -> Any:
                answered.add(id(job))
                return report(job, *args, **options)

            return reported

        # Attributes of the object stand before those of its class, for this round.
        self.report_job_success, self.report_job_error = noting(self.report_job_success), noting(self.report_job_error)
        try:
            async for job in check(self, active_jobs):
                answered.add(id(job))
                yield job
        finally:
            del self.report_job_success, self.report_job_error
        forgotten = [job for job in active_jobs if id(job) not in answered]
        if forgotten:
            names = ", ".join(str(job.external_jobid) for job in forgotten)
            self.logger.warning(f"SLURM does not tell the states of its jobs at the moment; asking again about {names}")
        for job in forgotten:
            yield job

    plugin.query_job_status, executor.check_active_jobs = query_job_status, check_active_jobs


def _known(state: str) -> str:
    """Return a state by a word that the plugin knows: CANCELLED for "CANCELLED by 1000", COMPLETED for "COMPLETED+".

    PREEMPTED is the end of a job that SLURM may not requeue, and no job of the profiles may be: it becomes CANCELLED. 2.8.0 knows all other
    final states but REVOKED, of a federation: such a job runs in another cluster.
    """
    word = (state.split() or [""])[0].rstrip("+")
    return "CANCELLED" if word == "PREEMPTED" else word
