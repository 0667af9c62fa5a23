"""A copy of the project in a temporary folder, with a small paper of its own, and ways to run things in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MINI = """
paper: mini
title: A small pipeline
claims: false
milestones: [1, 2]
defaults:
  sets: 1
  nets: 2
  recipe:
    dm: {iterations: 30, batch_real: 16, extractor: {network: convnet3_in_w8}}
    herding: {features: {network: convnet3_in_w8, epochs: 2}}
  protocol: {dc_short: {epochs: 10}}
at: {dataset: digits, eval_network: convnet3_in_w8, eval_protocol: dc_short}
artifacts:
  methods:
    title: Methods
    kind: table
    matrix: {ipc: [1], method: [random, dm, herding]}
    rows: [method]
    columns: [ipc]
"""


class Project:
    """A checkout of its own: its code, its results.

    papers: those that it has besides `mini`; None for all. Every command plans all that are there, which takes longer than `mini` does.
    """

    def __init__(self, root: Path, papers: tuple[str, ...] | None = ("compare", "extractors")) -> None:
        self.root = root
        for name in ("dd", "workflow", "profiles"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, root / name)
        for path in (root / "workflow" / "papers").iterdir():
            if papers is not None and path.stem not in papers:
                path.unlink()
        (root / "workflow" / "papers" / "mini.yaml").write_text(MINI)
        self.config("scale: paper\npapers: [mini]\ndevice: cpu\n")

    def config(self, text: str) -> None:
        (self.root / "config.yaml").write_text(text)

    @property
    def env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PYTHONPATH": str(self.root), "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *args: str, stdin: str | None = None, timeout: float = 280) -> subprocess.CompletedProcess:
        return subprocess.run(args, cwd=self.root, env=self.env, input=stdin, capture_output=True, text=True, timeout=timeout)

    def dd(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "dd", *args, stdin=stdin)

    def snakemake(self, *args: str, timeout: float = 280) -> subprocess.CompletedProcess:
        return self.run("snakemake", *args, timeout=timeout)

    def planned(self, *args: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run lists."""
        done = self.snakemake("-n", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout + done.stderr
        if "Job stats:" not in text:
            assert "Nothing to be done" in text, text
            return {}
        lines = text.split("Job stats:")[1].splitlines()[3:]
        rows = [line.split() for line in lines]
        table = {}
        for row in rows:
            if len(row) != 2 or not row[1].isdigit():
                break
            table[row[0]] = int(row[1])
        return table

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new, 1))

    def results(self) -> dict[str, bytes]:
        """Return every result file that two honest runs must share: all but run.json, logs, resume folders and the report."""
        files = {}
        for base in ("data/prepared", "results"):
            for path in sorted((self.root / base).rglob("*")):
                name = str(path.relative_to(self.root))
                if path.is_file() and "run.json" not in name and ".resume" not in name and not name.startswith("results/report"):
                    files[name] = path.read_bytes()
        return files
