"""The project on the pretended cluster: its profiles, edited as a site must, and its Snakemake, watched from outside."""

import os
import signal
import subprocess
from pathlib import Path

import yaml
from project import Project

# Three levels of jobs are enough, and each costs a look at the clock.
PAPER = """
paper: mini
title: A small pipeline
claims: false
milestones: [1, 2]
defaults:
  sets: 1
  nets: 2
  recipe:
    dm: {iterations: ITERATIONS, batch_real: 16, extractor: {network: convnet3_in_w8}}
  protocol: {dc_short: {epochs: 10}}
at: {dataset: digits, eval_network: convnet3_in_w8, eval_protocol: dc_short}
artifacts:
  methods:
    title: Methods
    kind: table
    matrix: {ipc: [1], method: [random, dm]}
    rows: [method]
    columns: [ipc]
"""


def project(root: Path, iterations: int = 30) -> Project:
    """Return a checkout with one paper, which is planned in no time."""
    made = Project(root, papers=())
    (root / "workflow" / "papers" / "mini.yaml").write_text(PAPER.replace("ITERATIONS", str(iterations)))
    return made


def edited(project: Project, name: str = "slurm", **stages: dict) -> str:
    """Edit a profile that comes with the project as its users must, and look at jobs when the first can have ended (the next look is 25 s later); return its name.

    stages: stage -> resources to change.
    """
    path = project.root / "profiles" / name / "profile.yaml"
    text = path.read_text()
    for word, value in (("CPU_PARTITION", "cpu"), ("GPU_PARTITION", "gpu"), ("ACCOUNT", "toy")):
        assert f": {word} " in text
        text = text.replace(f": {word} ", f": {value} ")
    profile = yaml.safe_load(text)
    profile |= {"slurm-init-seconds-before-status-checks": 15, "latency-wait": 10}
    for stage, resources in stages.items():
        profile["set-resources"].setdefault(stage, {}).update(resources)
    path.write_text(yaml.safe_dump(profile))
    return f"profiles/{name}"


class Watched:
    """A Snakemake that runs beside the test; what it says goes to a file. It is killed at the latest when the block ends."""

    def __init__(self, project: Project, *args: str) -> None:
        self.file = project.root / "said.txt"
        with self.file.open("w") as out:
            self.process = subprocess.Popen(
                ["timeout", "--kill-after=5", "1200", "snakemake", *args], cwd=project.root, env=project.env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def said(self) -> str:
        return self.file.read_text()

    def kill(self) -> None:
        """Kill it as a machine that falls over would: nothing is tidied up."""
        (pid,) = map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())
        os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)
