"""`dd run` makes what Snakemake makes, however often it is interrupted, and Snakemake takes over what it made."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project

pytestmark = pytest.mark.workflow
RUN = (sys.executable, "-m", "dd", "run", "mini", "--resume", "../away", "--device", "cpu", "--budget", "250")


def interrupted(project: Project, jobs: int, number: signal.Signals) -> int:
    """Start a run, send it a signal when so many jobs are done; return its exit status."""
    with subprocess.Popen(RUN, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        done = 0
        while done < jobs:
            line = run.stdout.readline()
            assert line, "it ended before"
            done += line.split("/")[0].isdigit()
        run.send_signal(number)
        try:
            return run.wait(60)
        finally:
            run.kill()


def workers(project: Project) -> list[int]:
    """Return the processes that do jobs in the project's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"dd.plan.worker" in (path / "cmdline").read_bytes() and (path / "cwd").resolve() == project.root.resolve():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def ran(finished, tmp_path_factory):
    """The small pipeline by `dd run`: ended by SIGTERM, moved to an empty folder, killed, and brought to its end."""
    made = Project(tmp_path_factory.mktemp("ran") / "project")
    assert interrupted(made, 3, signal.SIGTERM) == 75
    assert (made.root.parent / "away" / "results.tar.gz").is_file()
    before = made.results()
    for folder in ("data", "results", "logs"):
        shutil.rmtree(made.root / folder)
    assert interrupted(made, 2, signal.SIGKILL) == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while workers(made):
        assert time.monotonic() < deadline, "its worker lives on"
        time.sleep(0.1)
    kept = {name for name in before if not name.startswith("results/pretrained")} & set(made.results())
    assert sum(name.startswith("results/") for name in kept) >= 4  # what travelled, before the second run did its own
    done = made.run(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_interrupted_and_moved_it_gives_snakemakes_bytes(ran, finished):
    wanted, made = finished.results(), ran.results()
    wanted.pop("results/index.csv")  # a report is not what `run` makes
    for name in wanted.keys() - made.keys():
        if name.startswith("results/code/") and b'"dd.figures.report":' in wanted[name]:  # its code
            wanted.pop(name)
    assert made == wanted
    assert not list((ran.root / "results").rglob(".resume/*"))


def test_records_are_written_straight_from_what_travels(ran):
    weights = ran.root / "results" / "pretrained"
    weights.rename(ran.root.parent / "weights")
    done = ran.dd("record", "mini", "--out", "../records")
    (ran.root.parent / "weights").rename(weights)
    assert done.returncode == 0, done.stderr
    assert "methods.csv" in [path.name for path in (ran.root.parent / "records" / "mini-paper").iterdir()]


def test_snakemake_takes_over_what_it_made(ran):
    assert ran.snakemake("--touch", "--forceall", "mini").returncode == 0
    ran.edit("dd/recipes/dm.py", "def build(", "UNUSED = 1\n\n\ndef build(")
    assert ran.planned("mini") == {"distill": 1, "evaluate": 1, "draw_mini": 1, "mini": 1, "total": 4}
