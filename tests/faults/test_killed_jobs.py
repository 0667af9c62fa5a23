"""Each kind of job, killed again and again: no half file has a final name, and what comes of it in the end is the same."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import cut, flip
from faulty import KINDS, Faulty, job_of

from dd.artifacts import read_meta
from dd.plan.job import Job


def test_the_kinds_are_all_there_are(whole: Faulty) -> None:
    assert {job.stage for job in whole.jobs} == {stage for stage, _ in KINDS.values()}
    kinds = [job_of(whole, kind) for kind in KINDS]
    assert len({job.outputs[0] for job in kinds}) == len(KINDS)
    settings = [job for job in kinds if job.stage == "distill"]
    assert [(job.config["method"], len(job.outputs) - 4) for job in settings] == [("dm", 1), ("mtt", 0), ("hpd", 2), ("dm", 1)]
    assert settings[-1].facts["choice"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_job_ends_with_the_same_bytes(kind: str, copy: Faulty, whole: Faulty, kills: int, chance: random.Random) -> None:
    job = job_of(whole, kind)
    kills = (kills + 1) // 2 if kind == "artifact" else kills  # it costs as much as several others
    wanted, points, killed, harmed = whole.bytes_of(job), whole.writes[job.outputs[0]], 0, 0
    copy.unmake(job)
    for _ in range(4 * kills):
        if killed == kills:
            break
        point = {"after": chance.uniform(0, 0.3)} if chance.random() < 0.3 else {"write": chance.randint(1, points)}
        ended = copy.do(job, **point)
        assert ended.code in (-9, 0), ended.text
        found = copy.bytes_of(job)
        assert [path for path in found if found[path] != wanted[path]] == [], f"{point}: half a file has a final name"
        killed += ended.code == -9
        if ended.code == -9 and chance.random() < 0.4 and (kept := states(copy)):
            harmed += 1
            chance.choice((flip, cut))(chance.choice(kept), chance)
        elif ended.code == 0 or chance.random() < 0.2:
            finish(copy, job, wanted)
            copy.unmake(job)
    finish(copy, job, wanted)
    print(f"{kind}: {killed} kills at {points} points and between them survived, {harmed} saved states damaged")
    assert killed == kills


def states(project: Faulty) -> list[Path]:
    """Return the files that interrupted jobs have saved."""
    return sorted(path for path in project.root.rglob(".resume/**/*.safetensors") if path.stat().st_size)


def finish(project: Faulty, job: Job, wanted: dict[str, bytes]) -> None:
    ended = project.do(job)
    assert ended.code == 0, ended.text
    assert "Traceback" not in ended.text, ended.text
    found = project.bytes_of(job)
    assert {path for path in wanted if found.get(path) != wanted[path]} == set()
    assert project.strays() == [] and project.leftovers() == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["pretrain", "experts", "generator", "distill, steps", "evaluate"])
def test_a_job_killed_while_it_publishes(kind: str, copy: Faulty, whole: Faulty) -> None:
    """Every point near the end, where states become results: what was kept on the way goes, whenever that was cut short."""
    job = job_of(whole, kind)
    points = whole.writes[job.outputs[0]]
    for point in range(max(1, points - 24), points + 1):
        copy.unmake(job)
        ended = copy.do(job, write=point)
        assert ended.code in (-9, 0), ended.text  # 0: with its folders there, it touches the disk less often
        finish(copy, job, whole.bytes_of(job))


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["pretrain", "experts", "generator", "distill, steps", "distill, experts", "distill, generator", "evaluate"])
def test_a_job_that_is_asked_to_stop_and_goes_on(kind: str, copy: Faulty, whole: Faulty, kills: int, chance: random.Random) -> None:
    job, stopped = job_of(whole, kind), 0
    copy.unmake(job)
    for _ in range(kills):
        ended = copy.do(job, after=chance.uniform(0, 0.4), signal=chance.choice([signal.SIGTERM, signal.SIGUSR1]))
        assert ended.code in (75, 0, -signal.SIGTERM, -signal.SIGUSR1), ended.text  # a signal: it came before the job was listening
        stopped += ended.code == 75
        if ended.code == 0:
            finish(copy, job, whole.bytes_of(job))
            copy.unmake(job)
    finish(copy, job, whole.bytes_of(job))
    print(f"{kind}: stopped {stopped} times in {kills} tries")


@pytest.mark.parametrize("lost", [flip, cut, None])
def test_a_step_that_was_published_on_the_way_is_made_again(
    lost: Callable[[Path, random.Random], None] | None, copy: Faulty, whole: Faulty, chance: random.Random
) -> None:
    """The state is further than the step: continued from there, the step would be a copy of what is damaged, or the final set."""
    job = job_of(whole, "distill, steps")
    wanted, points = whole.bytes_of(job), whole.writes[job.outputs[0]]
    folder = (copy.root / job.outputs[0]).parent / ".resume"
    state, step = folder / "state.safetensors", folder / "steps/2.safetensors"
    for point in range(points // 2, points):
        copy.unmake(job)
        assert copy.do(job, write=point).code == -9
        if step.exists() and state.exists() and read_meta(state)["step"] > 2:
            break
    lost(step, chance) if lost else step.unlink()
    finish(copy, job, wanted)
