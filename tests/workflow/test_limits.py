"""Time limits and other resources: a profile sets them by stage, jobs stop by themselves before them, and they rerun nothing."""

import re

import pytest

pytestmark = pytest.mark.workflow


def planned(project, *args):
    """Return what a dry run says of each rule: name -> its text."""
    done = project.snakemake("-n", "-p", *args)
    assert done.returncode == 0, done.stderr
    jobs = re.split(r"\n(?:local)?rule ", done.stdout + done.stderr)[1:]
    return {job.split(":")[0]: job for job in jobs}


def test_a_profile_sets_resources_and_threads_of_all_rules_of_a_stage(project):
    jobs = planned(project, "--set-resources", "pretrain:runtime=10", "pretrain:mem_mb=777", "evaluate:runtime=2", "--set-threads", "distill=2")
    trained = next(job for name, job in jobs.items() if name.startswith("pretrain_seeds"))
    assert "mem_mb=777" in trained and "runtime=10" in trained
    assert "--stop-after 480 " in trained  # ten minutes less two
    assert "--stop-after 60 " in jobs["evaluate"]  # of two minutes, half
    assert "--stop-after" not in jobs["distill"] and "threads: 2" in jobs["distill"] and "--threads 2 " in jobs["distill"]
    assert "mem_mb" not in jobs["distill"]


def test_what_a_profile_sets_for_one_rule_comes_before_what_it_sets_for_its_stage(project):
    (name,) = {name for name in planned(project) if name.startswith("pretrain_seeds")}
    jobs = planned(project, "--set-resources", "pretrain:runtime=10", f"{name}:runtime=20")
    assert "runtime=20" in jobs[name]


def test_limits_threads_and_devices_rerun_nothing(finished):
    args = ("--default-resources", "runtime=30", "mem_mb=500", "--set-resources", "distill:runtime=600", "--set-threads", "evaluate=2")
    assert finished.planned(*args) == {}
    assert finished.planned("--config", "device=auto") == {}

