"""The repairs of the SLURM plugin, on a stand-in for it and on the plugin itself, without a cluster."""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import types

import pytest

from dd.slurm import guard


class Job:
    def __init__(self, external_jobid):
        self.external_jobid, self.aux = external_jobid, {}


class Logger:
    def __init__(self):
        self.said = []

    def warning(self, text):
        self.said.append(text)


def plugin(states):
    """Return a module as the plugin is: it asks for states and forgets all jobs if there are none. states: job -> what SLURM says, or None."""

    class Executor:
        def __init__(self):
            self.logger, self.success, self.error = Logger(), [], []

        def report_job_success(self, job):
            self.success.append(job.external_jobid)

        def report_job_error(self, job, msg=None):
            self.error.append((job.external_jobid, msg))

        async def check_active_jobs(self, active_jobs):
            found, _ = await module.query_job_status("squeue", self.logger)
            for job in active_jobs if found is not None else ():
                match found.get(job.external_jobid):
                    case "COMPLETED":
                        self.report_job_success(job)
                    case "CANCELLED":
                        self.report_job_error(job, msg="cancelled")
                    case _:
                        yield job

    async def query_job_status(command, logger):
        return states, 0.1

    module = types.SimpleNamespace(Executor=Executor, query_job_status=query_job_status)
    return module


def still_active(executor, jobs):
    async def all_of():
        return [job async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(all_of())


def test_jobs_are_kept_when_nobody_tells_their_states():
    module = plugin(None)
    jobs = [Job("1"), Job("2")]
    assert still_active(module.Executor(), jobs) == [], "the fault itself"
    guard.repair(module)
    executor = module.Executor()
    assert still_active(executor, jobs) == jobs
    assert "1, 2" in executor.logger.said[0]
    assert executor.success == executor.error == []


def test_what_is_told_is_believed_and_each_job_is_answered_once():
    module = plugin({"1": "COMPLETED", "2": "RUNNING", "3": "CANCELLED by 1000", "4": "COMPLETED+"})
    guard.repair(module)
    executor = module.Executor()
    jobs = [Job(name) for name in "12345"]
    assert [job.external_jobid for job in still_active(executor, jobs)] == ["2", "5"], "5 has not reached the queue's list yet"
    assert executor.success == ["1", "4"]
    assert executor.error == [("3", "cancelled")]
    assert executor.logger.said == []
    assert still_active(executor, []) == []
    executor.report_job_success(jobs[4])
    assert executor.success == ["1", "4", "5"], "outside of a round the object reports as before"


class Real:
    """What the plugin's own check of jobs uses of its executor."""

    def __init__(self):
        self.status_rate_limiter, self.run_uuid, self.logger = contextlib.nullcontext(), "run", logging.getLogger("test")
        settings = types.SimpleNamespace(init_seconds_before_status_checks=40, status_attempts=1, keep_successful_logs=True, requeue=False)
        self.workflow = types.SimpleNamespace(executor_settings=settings)
        self.next_seconds_between_status_checks, self._preemption_warning, self._failed_nodes = 40, False, set()
        self._status_query_calls = self._status_query_failures = self._status_query_total_seconds = 0
        self._status_query_min_seconds = self._status_query_max_seconds = 0.0
        self._status_query_cycle_rows, self.ended = [], {}

    def get_status_command(self):
        return "squeue"

    def report_job_success(self, job):
        self.ended[job.external_jobid] = "good"

    def report_job_error(self, job, msg=None, aux_logs=()):
        self.ended[job.external_jobid] = "bad"


# Every state in which SLURM leaves a job, and some of those in which it does not.
STATES = {
    "COMPLETED": "good", "BOOT_FAIL": "bad", "CANCELLED": "bad", "DEADLINE": "bad", "FAILED": "bad", "NODE_FAIL": "bad", "OUT_OF_MEMORY": "bad",
    "PREEMPTED": "bad", "TIMEOUT": "bad", "RUNNING": None, "PENDING": None, "SUSPENDED": None, "COMPLETING": None, "REQUEUED": None,
}  # fmt: skip


def test_every_final_state_ends_a_job_in_the_plugin_itself(tmp_path, monkeypatch):
    real = pytest.importorskip("snakemake_executor_plugin_slurm")
    monkeypatch.setattr(real, "query_job_status", real.query_job_status)  # put back afterwards
    monkeypatch.setattr(real.Executor, "check_active_jobs", real.Executor.check_active_jobs)
    answers = {"squeue": [f"{number}|{state}" for number, state in enumerate(STATES)], "scontrol": ["MinJobAge = 300 sec"], "sacct": []}
    for name, lines in answers.items():
        (tmp_path / name).write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines), ""]))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    guard.repair(real)
    executor = Real()
    jobs = [Job(str(number)) for number in range(len(STATES))]

    async def all_of():
        return [job async for job in real.Executor.check_active_jobs(executor, jobs)]

    lasting = {list(STATES)[int(job.external_jobid)] for job in asyncio.run(all_of())}
    assert {state: executor.ended.get(str(number)) for number, state in enumerate(STATES)} == STATES
    assert lasting == {state for state, end in STATES.items() if end is None}


def test_an_unknown_version_is_left_alone_and_that_is_said(monkeypatch, capsys):
    real = pytest.importorskip("snakemake_executor_plugin_slurm")
    check = real.Executor.check_active_jobs
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    assert not guard.install()
    assert real.Executor.check_active_jobs is check
    assert capsys.readouterr().err.count("99.0") == 1


def test_the_plugin_that_is_locked_is_one_that_was_tested(monkeypatch):
    """Newer versions must be tried on a cluster first: whoever upgrades the lock file is reminded here."""
    real = pytest.importorskip("snakemake_executor_plugin_slurm")
    assert importlib.metadata.version(guard.PLUGIN) in guard.TESTED
    monkeypatch.setattr(real.Executor, "check_active_jobs", real.Executor.check_active_jobs)  # put back afterwards
    monkeypatch.setattr(real, "query_job_status", real.query_job_status)
    before = real.Executor.check_active_jobs
    assert guard.install()
    assert real.Executor.check_active_jobs is not before
