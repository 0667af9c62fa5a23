"""Snakemake when something outside of it goes wrong: a clear error, and the next run finishes with the same bytes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from faulty import Faulty, job_of
from zygote import Zygote

pytestmark = [pytest.mark.workflow, pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def project(tmp_path: Path, zygote: Zygote) -> Faulty:
    return Faulty(tmp_path / "project", zygote)


def until(project: Faulty, jobs: int, run: subprocess.Popen[str]) -> None:
    """Wait until so many jobs have left a result."""
    end = time.monotonic() + 280
    while project.done() < jobs:
        assert run.poll() is None and time.monotonic() < end, (project.root / "said").read_text()
        time.sleep(0.02)


def finished(project: Faulty, quick: Path, whole: Faulty) -> None:
    code, text = project.snake(quick)
    assert code == 0, text
    assert project.same(whole) == {}
    assert project.strays() == [] and project.leftovers() == []


def test_a_job_by_itself_is_what_the_shell_would_have_run(copy: Faulty, whole: Faulty) -> None:
    """The server that forks is no other program: one job, in a Python of its own."""
    from dd.plan.command import arguments

    job = job_of(whole, "distill, generator")
    copy.unmake(job)
    done = copy.dd("distill", "--config", "-", *arguments(job), "--device", "cpu", "--threads", "1", stdin=job.text)
    assert done.returncode == 0, done.stderr
    assert copy.bytes_of(job) == whole.bytes_of(job)


def test_two_heads_at_once(project: Faulty, whole: Faulty, quick_python: Path) -> None:
    first = project.begin(quick_python)
    until(project, 2, first)
    env = {**project.env, "PATH": f"{quick_python}{os.pathsep}{project.env['PATH']}"}
    second = subprocess.run(["snakemake"], cwd=project.root, env=env, capture_output=True, text=True, timeout=280)
    text = second.stdout + second.stderr
    assert second.returncode != 0 and "Traceback" not in text, text
    assert "lock" in text and str(project.root) in text and "--unlock" in text, text
    assert first.wait(280) == 0, (project.root / "said").read_text()
    assert project.same(whole) == {}


def test_a_head_that_is_killed_alone(project: Faulty, whole: Faulty, quick_python: Path, chance: random.Random) -> None:
    """Its jobs live on, while the next head starts some of them again."""
    head = project.begin(quick_python)
    until(project, chance.randint(1, 12), head)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    shutil.rmtree(project.root / ".snakemake/locks")
    for _ in range(3):
        code, text = project.snake(quick_python)
        assert "Traceback" not in text, text
        if code == 0:
            break
    finished(project, quick_python, whole)


def test_a_job_that_is_killed_alone(project: Faulty, whole: Faulty, quick_python: Path, chance: random.Random) -> None:
    """The head goes on with what does not need it, says which job failed, and the next run makes the rest."""
    head = project.begin(quick_python)
    until(project, chance.randint(1, 12), head)
    end = time.monotonic() + 60
    while True:
        jobs = [one for one in psutil.process_iter() if one.pid != head.pid and _group(one.pid) == head.pid and "zygote" in " ".join(_words(one))]
        workers = [one for one in jobs if one.ppid() in {other.pid for other in jobs}]
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
            break
        assert time.monotonic() < end, "no job runs"
    assert head.wait(280) == 1
    text = (project.root / "said").read_text()
    assert "Error in rule" in text and "Traceback" not in text, text
    finished(project, quick_python, whole)


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_dataset_that_vanishes_while_jobs_run(project: Faulty, whole: Faulty, quick_python: Path, chance: random.Random) -> None:
    head = project.begin(quick_python)
    until(project, chance.randint(3, 12), head)
    shutil.rmtree(project.root / "data/prepared/digits")
    assert head.wait(280) == 1
    text = (project.root / "said").read_text()
    said = re.search(r"data/prepared/digits/\S+:? \(?(no such file|missing locally)", text)  # by a job, or by Snakemake before it began one
    assert said, text
    made = {path for job in project.jobs for path in job.outputs if path.startswith("results/") and (project.root / path).exists()}
    wrong = [path for path in made if path != "results/report.html" and (project.root / path).read_bytes() != (whole.root / path).read_bytes()]
    assert made and wrong == []
    finished(project, quick_python, whole)


def test_results_that_become_read_only_while_jobs_run(project: Faulty, whole: Faulty, quick_python: Path, chance: random.Random) -> None:
    folder = project.root / "results"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", folder, folder], capture_output=True, timeout=30).returncode:
        pytest.skip("mounting needs root")
    try:
        head = project.begin(quick_python)
        until(project, chance.randint(3, 12), head)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, timeout=30)
        assert head.wait(280) == 1
        text = (project.root / "said").read_text()
        assert "Read-only file system" in text and "results/" in text, text
        subprocess.run(["mount", "-o", "remount,bind,rw", folder], check=True, timeout=30)
        finished(project, quick_python, whole)
    finally:
        subprocess.run(["umount", folder], check=True, timeout=30)
