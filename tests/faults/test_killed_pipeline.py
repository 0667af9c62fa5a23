"""Snakemake with all its jobs, killed at random moments, with files damaged in between: the next run finishes, with the same bytes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from damage import cut, flip, leave
from faulty import Faulty
from zygote import Zygote

from dd.artifacts import load_tensors
from dd.errors import ArtifactError

pytestmark = pytest.mark.workflow

RENAMED = ("pretrain", "experts")  # stages whose results are renamed states, so that nobody writes under their names
ADVICE = re.compile(r"^dd \w+: (?P<file>\S+): .*delete (?P<what>it|its folder|\S+) and ", re.MULTILINE)


def kill(project: Faulty, quick: Path, target: int, delay: float) -> int:
    """Kill Snakemake and its jobs a moment after so many jobs have left a result; return how it ended, by itself or not."""
    run = project.begin(quick)
    end = time.monotonic() + 280
    while project.done() < target and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(delay)
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    return run.wait()


def damage(project: Faulty, chance: random.Random) -> str:
    """Do something to a file that is there already; say what. Only files of tensors are watched bit by bit."""
    inputs = {path for job in project.jobs for path in job.inputs} | {f"data/prepared/digits/{split}.safetensors" for split in ("train", "test")}
    found = sorted(path for name in inputs if (path := project.root / name).is_file() and path.is_relative_to(project.root))
    found += sorted(path for path in project.root.rglob(".resume/**/*.safetensors"))
    found = [path for path in found if path.stat().st_size and "workflow" not in path.parts]
    awaited = [path for job in project.jobs for path in job.outputs if job.stage not in RENAMED and not (project.root / path).exists()]
    if not found or (awaited and chance.random() < 0.25):
        path, way = project.root / chance.choice(awaited), leave
    else:
        path = chance.choice(found)
        way = chance.choice((flip, cut) if path.suffix == ".safetensors" else (cut,))
    way(path, chance)
    return f"{way.__name__} {path.relative_to(project.root)}"


def obey(project: Faulty) -> list[str]:
    """Do what Snakemake's last messages ask for, to the letter; return what that was."""
    text = (project.root / "said").read_text()
    assert "Traceback" not in text, text
    advice = {found.group("file"): found.group("what") for found in ADVICE.finditer(text)}
    assert advice, f"it stopped, and nothing says what to do:\n{text}"
    for file, what in advice.items():
        path = project.root / (file if what in ("it", "its folder") else what)
        shutil.rmtree(path.parent, ignore_errors=True) if what == "its folder" else path.unlink(missing_ok=True)
    return [f"{file}: delete {what}" for file, what in advice.items()]


def finish(project: Faulty, quick: Path) -> list[str]:
    """Run Snakemake until it is done, and do what its messages ask for; return what that was.

    What finished results no longer need may be gone by then, such as a score that was to be made again from a set that proved damaged,
    below a table that stands: `everything` makes that again too.
    """
    asked: list[str] = []
    for _ in range(8):
        if project.snake(quick)[0] == 0 and project.snake(quick, "everything")[0] == 0:
            return asked
        asked += obey(project)
    raise AssertionError(f"it does not end, whatever one deletes: {asked}\n{(project.root / 'said').read_text()}")


def test_a_killed_pipeline_with_damaged_files_ends_with_the_same_bytes(
    tmp_path: Path, whole: Faulty, zygote: Zygote, quick_python: Path, kills: int, chance: random.Random
) -> None:
    project, killed, asked, harmed, total = Faulty(tmp_path / "project", zygote), 0, [], 0, len(whole.jobs)
    kills = (kills + 1) // 2  # of all jobs at once: each costs as much as several of one job
    for _ in range(4 * kills):
        if killed == kills:
            break
        done = project.done()
        target = min(total - 1, done + chance.randint(0, 1 + (total - done) * 2 // (kills - killed + 2)))
        delay = chance.uniform(0, 0.5)
        print(f"{done} of {total} jobs done, kill when {target} are, {delay:.2f} s later", end=": ")
        if (ended := kill(project, quick_python, target, delay)) == -signal.SIGKILL:
            killed += 1
            if killed == 3:
                code, text = project.snake(quick_python, "--unlock")
                assert code == 0, text
            shutil.rmtree(project.root / ".snakemake/locks", ignore_errors=True)  # what --unlock does, in no time
            print("killed;", damage(project, chance))
            harmed += 1
        elif ended == 0:
            print("finished; from the start again")
            for name in ("results", "data", ".snakemake"):
                shutil.rmtree(project.root / name)
        else:
            asked += obey(project)
            print("stopped by itself;", asked[-1])
    asked += finish(project, quick_python)
    for name, how in project.same(whole).items():
        if how == "differs" and name.startswith("results/experts/"):  # rows are checked as they are read: nobody read this one
            with pytest.raises(ArtifactError, match="delete it and run again"):
                load_tensors(project.root / name)
            (project.root / name).unlink()
            asked += finish(project, quick_python)
    assert project.same(whole) == {}
    assert project.strays() == [] and project.leftovers() == []
    if kills > 2:
        code, text = project.snake(quick_python, "-n")
        assert code == 0 and "Nothing to be done" in text, text
    print(f"{killed} kills survived, {harmed} files damaged; asked for: {asked}")
    assert killed == kills
