"""A checkout with the paper of faulty.yaml, whose jobs run one by one without Snakemake."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

from project import Project
from zygote import Ended, Zygote

from dd.plan import Plan
from dd.plan.command import DEVICED, LONG, arguments
from dd.plan.job import Job
from dd.plan.papers import load_settings

PAPER = Path(__file__).with_name("faulty.yaml")
REPORT = "results/report.html"


# What is killed, starved and damaged by itself: the stage of a job, and which of that stage's.
KINDS = {
    "prepare": ("prepare", 0), "whiten": ("whiten", 0), "pretrain": ("pretrain", 0), "next milestone": ("pretrain", 1), "experts": ("experts", 0),
    "generator": ("generator", 0), "quality": ("quality", 0), "distill, steps": ("distill", 0), "distill, experts": ("distill", 1),
    "distill, generator": ("distill", 2), "distill, guided": ("distill", -1), "evaluate": ("evaluate", 0), "choose": ("choose", 0),
    "analyse": ("analyse", 0), "artifact": ("artifact", 0), "report": ("report", 0),
}  # fmt: skip


class Faulty(Project):
    """The paper `faulty` and no other. made: the folder is there already."""

    def __init__(self, root: Path, zygote: Zygote, *, made: bool = False) -> None:
        self.root, self.zygote = root, zygote
        self.writes: dict[str, int] = {}  # first output of a job -> how often it touched the disk when nothing stopped it
        if made:
            return
        super().__init__(root, papers=())
        (root / "workflow/papers/mini.yaml").unlink()
        shutil.copy(PAPER, root / "workflow/papers/faulty.yaml")
        self.config("scale: paper\npapers: [faulty]\ndevice: cpu\n")

    @cached_property
    def plan(self) -> Plan:
        return Plan(load_settings(self.root / "config.yaml"), self.root / "workflow")

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs, in an order in which they can run; the report comes last."""
        found = self.plan.of(["faulty"])
        return [*found, self.plan.report(["faulty"])]

    def first(self, stage: str) -> Job:
        """Return the first job of a stage."""
        return next(job for job in self.jobs if job.stage == stage)

    def do(self, job: Job, **plan: Any) -> Ended:
        """Run a job, as the plan of `zygote.Zygote.run` has it."""
        argv, config = [job.stage, "--config", "-"], job.text
        if job.stage in ("artifact", "report"):
            config = self.plan.drawing_settings(["faulty"])
        argv += arguments(job) + (["--code", job.code] if job.stage in LONG else [])
        if job.stage in DEVICED:
            argv += ["--device", "cpu", "--threads", "1"]
        return self.zygote.run(self.root, argv, config, **plan)

    def bytes_of(self, job: Job) -> dict[str, bytes]:
        """Return what there is of a job's results; the report, which says how long things took, only as far as it is there."""
        found = {path: (self.root / path).read_bytes() for path in job.outputs if (self.root / path).exists()}
        return {path: b"" if path == REPORT else content for path, content in found.items()}

    def unmake(self, job: Job) -> None:
        """Take the results of a job away, with all that was made on the way."""
        for path in job.outputs:
            full = self.root / path
            full.unlink(missing_ok=True)
            shutil.rmtree(full.parent / ".resume", ignore_errors=True)
            for left in full.parent.glob(".*.tmp"):
                left.unlink()

    def strays(self) -> list[str]:
        """Return temporary files that nobody will ever name."""
        return sorted(str(path.relative_to(self.root)) for base in ("data", "results") for path in (self.root / base).rglob(".*.tmp"))

    def leftovers(self) -> list[str]:
        """Return files in folders that finished jobs should have emptied."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob(".resume/**/*") if path.is_file())

    def begin(self, quick: Path, *args: str) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own; the zygote runs its jobs. quick: of `zygote.python_instead`."""
        env = {**self.env, "PATH": f"{quick}{os.pathsep}{self.env['PATH']}"}
        said = (self.root / "said").open("w")
        with said:
            return subprocess.Popen(["snakemake", *args], cwd=self.root, env=env, process_group=0, stdout=said, stderr=said, text=True)

    def snake(self, quick: Path, *args: str, timeout: float = 280) -> tuple[int, str]:
        """Run Snakemake to its end; return its status and what it said."""
        run = self.begin(quick, *args)
        try:
            return run.wait(timeout), (self.root / "said").read_text()
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            raise

    def done(self) -> int:
        """Return how many jobs have left a result."""
        return sum((self.root / job.outputs[0]).exists() for job in self.jobs)

    def same(self, other: Faulty) -> dict[str, str]:
        """Return how the results differ from those of another; nothing if they are the same bytes."""
        mine, theirs = (
            {name: content for name, content in each.results().items() if not name.startswith("results/code/")} for each in (self, other)
        )  # the plan notes its code there, and jobs alone need none
        wrong = {name: "missing" for name in theirs if name not in mine} | {name: "more" for name in mine if name not in theirs}
        return wrong | {name: "differs" for name in mine if name in theirs and mine[name] != theirs[name]}


def job_of(project: Faulty, kind: str) -> Job:
    """Return the job of one of `KINDS`."""
    stage, number = KINDS[kind]
    return [job for job in project.jobs if job.stage == stage][number]
