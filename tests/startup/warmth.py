"""A toy checkout with the real `dd.warm` and a `main` that does what a test asks, a head that starts its server, and jobs of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from project import ROOT

from dd.warm import NAME
from dd.warm.start import THREADS

START = (ROOT / "dd/__main__.py").read_text().partition("import argparse")[0]
assert "ask(sys.argv[1:])" in START
MAIN = """
import os, signal, subprocess, time

def main(argv=None):
    print("server" if open(f"/proc/{os.getppid()}/cmdline").read().split("\\0")[1:3] == ["-m", "dd.warm.server"] else "alone", flush=True)
    exec(argv[0], globals())
    return 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
HEAD = """
import os, sys
from types import SimpleNamespace
from dd.warm import NAME, start
start.offer(SimpleNamespace(executor_plugin=SimpleNamespace(name=sys.argv[1])))
print(os.environ.get(NAME, "-"), start._server.pid if start._server else 0, flush=True)
sys.stdin.read()
"""


class Toy:
    """The checkout. light: the server loads `json` instead of torch."""

    def __init__(self, root: Path, light: bool = True) -> None:
        self.root, self.heads, self.jobs = root, [], []
        (root / "dd").mkdir(parents=True)
        shutil.copy(ROOT / "dd/__init__.py", root / "dd")
        shutil.copytree(ROOT / "dd/warm", root / "dd/warm", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "dd/__main__.py").write_text(START + MAIN)
        if light:
            path = root / "dd/warm/server.py"
            path.write_text(re.sub(r"^LIBRARIES = \(.*?\)", 'LIBRARIES = ("json",)', path.read_text(), flags=re.DOTALL | re.MULTILINE))
            assert '("json",)' in path.read_text()
        self.env = {name: value for name, value in os.environ.items() if name != NAME}
        self.env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / "dd/warm" / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))

    def head(self, executor: str = "local", **env: str) -> Head:
        self.heads.append(Head(self, executor, env))
        return self.heads[-1]

    def job(self, head: Head | None, code: str, shell: str = "", **env: str) -> subprocess.Popen[str]:
        """Start a job, in a process group of its own, as Snakemake would: in a shell, which does `shell` before."""
        told = {**self.env, **dict.fromkeys(THREADS, "1"), NAME: head.name if head else "0", **env}
        job = subprocess.Popen(
            ["bash", "-c", f'{shell}\nexec python -m dd "$0"', code], cwd=self.root, env=told, process_group=0, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.jobs.append(job)
        return job

    def do(self, head: Head | None, code: str, shell: str = "", stdin: str = "", **env: str) -> tuple[int, str, str]:
        """Do a job; return its status, who did it (and what else it printed), and what it said."""
        job = self.job(head, code, shell, **env)
        out, error = job.communicate(stdin, timeout=60)
        return job.returncode, out, error

    def close(self) -> None:
        for one in [*(head.process for head in self.heads), *self.jobs]:
            one.kill()
            one.wait(30)
            for file in (one.stdin, one.stdout, one.stderr):
                if file:
                    file.close()


class Head:
    """A process that stands for Snakemake's. name: what it puts into the environment. server: the number of the process that it started."""

    def __init__(self, toy: Toy, executor: str, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD, executor], cwd=toy.root, env={**toy.env, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.name, number = self.process.stdout.readline().split()
        self.server = int(number)


def line(job: subprocess.Popen[str]) -> str:
    return job.stdout.readline().strip()


def begun(job: subprocess.Popen[str]) -> tuple[str, int]:
    """Wait for a job that prints its number; return who does it, and the number."""
    return line(job), int(line(job))


def state(process: int) -> str:
    """Return the letter of a process's state, Z for one that is gone or waits for nothing but its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def shown(text: str) -> dict:
    """Return the JSON in the second line of what a job printed."""
    return json.loads(text.splitlines()[1])


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    until(lambda: state(process) == "Z", "it lives on")
