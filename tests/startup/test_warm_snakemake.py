"""A local Snakemake run has its jobs done by one server; what they make has the same bytes as without."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from project import Project
from warmth import until

from dd.plan import Plan
from dd.plan.papers import load_settings

pytestmark = pytest.mark.workflow

WHO = """
    import os

    with open("who", "a") as file:
        file.write(f"{os.getppid()} " + Path(f"/proc/{os.getppid()}/cmdline").read_text().replace("\\0", " ") + "\\n")
"""


def small(root: Path) -> tuple[Project, str]:
    """Return a project whose jobs note who does them, and a score that takes three of them."""
    project = Project(root, papers=())
    project.edit("dd/verbs/jobs.py", "    if not isinstance(data, dict):\n", f"{WHO}    if not isinstance(data, dict):\n")
    jobs = Plan(load_settings(root / "config.yaml"), root / "workflow").of(["mini"])
    images = next(path for job in jobs if job.stage == "distill" for path in job.outputs if "/random/" in path)
    return project, next(job.outputs[0] for job in jobs if job.stage == "evaluate" and images in job.inputs)


def servers(project: Project) -> list[int]:
    """Return the processes that serve a project's runs, or do their jobs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"dd.warm.server" in (folder / "cmdline").read_bytes() and os.readlink(folder / "cwd") == str(project.root):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_run_has_one_server_and_the_same_bytes_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, off in (("with", False), ("without", True)):
        project, score = small(tmp_path / name)
        if off:
            monkeypatch.setenv("DD_WARM", "0")
        else:
            monkeypatch.delenv("DD_WARM", raising=False)
            assert project.snakemake("-n", score).returncode == 0
            assert not (project.root / "who").exists() and servers(project) == []
        done = project.snakemake("--cores", "2", score)
        assert done.returncode == 0, done.stdout + done.stderr
        who = (project.root / "who").read_text().splitlines()
        assert len(who) == 3
        if off:
            assert not any("dd.warm" in line for line in who)
        else:
            assert len(set(who)) == 1 and "-m dd.warm.server" in who[0], who
            assert servers(project) == []
        made.append(project.results())
    served, alone = made
    assert len(alone) > 5
    assert [name for name in served.keys() | alone.keys() if served.get(name) != alone.get(name)] == []


def test_a_run_that_is_killed_with_its_group_leaves_nothing_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DD_WARM", raising=False)
    project, score = small(tmp_path / "project")
    project.edit("dd/verbs/jobs.py", "    if not isinstance(data, dict):\n", "    __import__('time').sleep(100)\n    if not isinstance(data, dict):\n")
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(["snakemake", score], cwd=project.root, env=project.env, process_group=0, stdout=said, stderr=said)
    try:
        until(lambda: (project.root / "who").exists(), (tmp_path / "said").read_text(), 120)
        assert len(servers(project)) == 2
        os.killpg(run.pid, signal.SIGKILL)
        until(lambda: servers(project) == [], "a job lives on", 10)
    finally:
        run.kill()
        run.wait(30)
