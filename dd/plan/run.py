"""Planned jobs one after the other, without Snakemake: for machines that have only `dd`, and for a limited time."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType

from dd.errors import ConfigError, DDError, nearest
from dd.plan.atwork import LOGS, PATIENCE, locked, snakemake_at_work
from dd.plan.code import write_codes
from dd.plan.command import DEVICED, LONG, arguments
from dd.plan.job import Job
from dd.plan.jobs import Plan
from dd.plan.pack import ARCHIVE, HEAVY, RESUME, is_weights, load, pack, unpack
from dd.stopping import CONTINUE, SIGNALS

WORKER = (sys.executable, "-m", "dd.plan.worker")
THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR"))
RESERVE = (2.0, 60.0)  # seconds, at least and at most, to save in: a tenth of the budget
PACKED = 50e6  # bytes that are packed in a second, on a slow disk


def run(
    plan: Plan,
    papers: Sequence[str],
    *,
    budget: float,
    resume: Path,
    only: Sequence[str] = (),
    device: str = "auto",
    threads: int = 1,
    keep: Sequence[str] = (),
) -> int:
    """Do the jobs of papers whose files are not there, in the current folder, and print a line about each.

    What a job makes has the same bytes as under Snakemake. Only whether files are there is looked at, never whether configuration or
    code has changed since; papers are drawn each time. A job that fails is told, what depends on it is left out, the rest goes on.

    Args:
        budget: seconds, above 0, for all, packing included. A long job saves its state in time; another one is ended, and made anew.
        resume: folder; what an earlier run packed there is unpacked first, and at the end all is packed there (`dd.plan.pack`).
        only: names of tables and figures, or patterns of files; these and what they need. None: the papers.
        keep: folders of results/ whose weights are packed too, although nothing that is left to do needs them.

    Returns:
        0: all is there. 1: jobs failed. 75: time was over, or a signal came (SIGTERM, SIGUSR1, Ctrl-C), and work is left.

    Raises:
        ConfigError: a pattern that matches nothing, or an unknown folder to keep. ArtifactError: what was packed is damaged, or it cannot
            be packed now. DDError: another run is at work in this folder or on `resume`, or a Snakemake in this folder.
    """
    began = time.monotonic()
    if strange := [kind for kind in keep if kind not in HEAVY]:
        raise ConfigError(f"run: keep: value {strange[0]!r}{nearest(strange[0], HEAVY)}")
    order = plan.of(papers)
    wanted = _wanted(plan, papers, order, only)
    root, archive = Path.cwd(), resume / ARCHIVE
    came: set[str] = set()
    with ExitStack() as stack:
        locks = [stack.enter_context(locked(folder)) for folder in (root / LOGS, resume)]
        if busy := snakemake_at_work(root):
            raise DDError(f"{busy}; nothing was done")
        if new := unpack(archive, root, came):
            print(f"{archive}: {new} files unpacked")
        _forget(order)
        todo = _todo(order, wanted)
        write_codes(todo)
        crew = stack.enter_context(Crew(began + budget, min(max(budget / 10, RESERVE[0]), RESERVE[1]), locks, threads))
        packing = _Measured(lambda: load(root, _needed(plan, papers, order, came), keep) / PACKED)
        crew.reserve(packing())
        if todo and crew.over():
            print(f"budget: {budget:g} seconds are too few to begin a job: {crew.reserved:.0f} are for saving and packing")
        tally = _work(plan, todo, crew, device, threads, packing)
        left = [job for job in _todo(order, wanted) if job.stage != "artifact" or job not in tally.done]
        sizes = pack(root, archive, _needed(plan, papers, order, came), keep)
    listed = ", ".join(f"{kind} {size / 2**20:.1f}" for kind, size in sorted(sizes.items())) or "nothing"
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB packed, of {listed} MiB")
    print(f"{len(tally.done)} jobs done, {len(left)} left, {len(tally.failed)} of them failed, {time.monotonic() - began:.0f} s")
    if tally.stopped:
        return CONTINUE
    return 1 if left else 0


def _wanted(plan: Plan, papers: Iterable[str], order: Iterable[Job], only: Sequence[str]) -> set[str]:
    """Return the files that are asked for."""
    artifacts = {name: cells for paper in papers for name, cells in plan.cells[paper].items()}
    paths = [path for job in order for path in job.outputs]
    if not only:
        return {path for job in order if job.stage == "artifact" for path in job.outputs}
    wanted: set[str] = set()
    for pattern in only:
        found = {path for path in paths if fnmatchcase(path, pattern)}
        for paper in papers:
            for cell in plan.cells[paper].get(pattern, ()):
                found |= {*cell.scores, *(f"{folder}/grid.png" for folder in cell.sets)}
                found |= {path for path in (cell.analysis, cell.choice) if path}
        if not found:
            raise ConfigError(f"run: only: value {pattern!r} is no table or figure{nearest(pattern, artifacts)}; and it matches no file")
        wanted |= found
    return wanted


def _needed(plan: Plan, papers: Sequence[str], order: Sequence[Job], came: Iterable[str]) -> set[str]:
    """Return the files that must travel on.

    These are what any job rests on that is left of the papers, whatever this run was to make of them, and the weights that came in the
    archive, unless these papers make them and need them no more.
    """
    needed = {path for job in _todo(order, _wanted(plan, papers, order, ())) for path in job.inputs}
    made = {path for job in order for path in job.outputs}
    return needed | {name for name in came if is_weights(name) and name not in made}


class _Measured:
    """Seconds that packing would take, measured anew when they are asked for, but for no more than a hundredth of the time."""

    def __init__(self, measure: Callable[[], float]) -> None:
        self._measure, self._value, self._again = measure, 0.0, 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        now = time.monotonic()
        if now >= self._again:
            self._value = self._measure()
            took = time.monotonic() - now
            self._again = now + 100 * took
        return self._value


def _forget(order: Iterable[Job]) -> None:
    """Remove the saved states of jobs that are done: one that an older archive brought back would be continued if its job ran again."""
    for job in order:
        if job.stage in LONG and all(Path(path).exists() for path in job.outputs):
            for path in map(Path, job.outputs):
                for name in (path.name, f"{path.name}.job.json"):  # the state, and whose it is (dd.states)
                    (path.parent / RESUME / name).unlink(missing_ok=True)
            if job.stage == "distill":
                shutil.rmtree(Path(job.outputs[0]).parent / RESUME, ignore_errors=True)


def _todo(order: Sequence[Job], wanted: Iterable[str]) -> list[Job]:
    """Return the jobs to do for the files that are wanted, in order: what is there needs nothing, but for drawings, made from what is."""
    needed, todo = set(wanted), []
    for job in reversed(order):
        asked = not needed.isdisjoint(job.outputs)
        if asked and (job.stage == "artifact" or not all(Path(path).exists() for path in job.outputs)):
            todo.append(job)
            needed.update(job.inputs)
    return todo[::-1]


@dataclass
class Tally:
    """How a run went. stopped: time was over, or somebody asked, with work left."""

    done: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)
    stopped: bool = False


def _work(plan: Plan, todo: Sequence[Job], crew: Crew, device: str, threads: int, packing: Callable[[], float]) -> Tally:
    tally, missing = Tally(), set[str]()
    for number, job in enumerate(todo, start=1):
        what = f"{number}/{len(todo)} {job.stage} {job.outputs[0]}"
        if lacking := next((path for path in job.inputs if path in missing), None):
            print(f"{what}: left out, for want of {lacking}", flush=True)
            missing.update(job.outputs)
            continue
        crew.reserve(packing())
        if crew.over():
            tally.stopped = True
            break
        at = time.monotonic()
        status = crew.do(_argv(plan, job, device, threads, crew.left()), _config(plan, job))
        seconds = f"{time.monotonic() - at:.1f} s"
        lacks = [path for path in job.outputs if not Path(path).exists()]
        if status == CONTINUE and (lacks or job.stage == "artifact"):
            print(f"{what}: stopped after {seconds}", flush=True)
            tally.stopped = True
            break
        if status not in (0, CONTINUE) or lacks:
            why = f"status {status}" if status else f"{lacks[0]} was not made"
            print(f"{what}: FAILED after {seconds}, {why}", flush=True)
            tally.failed.append(job)
            missing.update(job.outputs)
            continue
        tally.done.append(job)
        print(f"{what} {seconds}", flush=True)
    return tally


def _argv(plan: Plan, job: Job, device: str, threads: int, left: float) -> list[str]:
    where = ["--device", device, "--threads", str(threads)] if job.stage in DEVICED else []
    stop = ["--stop-after", f"{left:.3f}", "--code", plan.code_of(job)] if job.stage in LONG else []
    return [job.stage, "--config", "-", *where, *stop, *arguments(job)]


def _config(plan: Plan, job: Job) -> str:
    return plan.drawing_settings([job.facts["paper"]]) if job.stage == "artifact" else job.text


class Crew:
    """The process that does the jobs, started anew after a failure, and what ends it in time.

    finish: when all must be over, on the monotonic clock. saving: seconds before that at which a job is asked to stop; when half of them
    are over, it must have. files: locks that hold as long as the process lives. threads: of numerical libraries other than torch, as
    under Snakemake.
    """

    def __init__(self, finish: float, saving: float, files: Sequence[int], threads: int = 1) -> None:
        self._finish, self._saving, self._files = finish, saving, tuple(files)
        self._end, self._kill, self._asked = finish, finish, False
        self.reserve(0)
        self._env = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
        self._process: subprocess.Popen[bytes] | None = None
        self._before: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Crew:
        self._before = [(number, signal.signal(number, self._ask)) for number in SIGNALS]
        return self

    def __exit__(self, *error: object) -> None:
        self._dismiss()
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # as it was

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on, once; what comes while results are packed changes nothing."""
        if not self._asked:
            self._asked = True
            self._end = time.monotonic()
            self._kill = min(self._kill, self._end + RESERVE[1] / 2)

    def reserve(self, packing: float) -> None:
        """Have jobs end so many seconds earlier, so that there is time to pack."""
        self.reserved = self._saving + packing
        if not self._asked:
            self._end, self._kill = self._finish - self.reserved, self._finish - self._saving / 2 - packing

    def left(self) -> float:
        """Return the seconds until jobs are asked to stop, at least a few thousandths."""
        return max(0.001, self._end - time.monotonic())

    def over(self) -> bool:
        """Tell whether no other job is to begin."""
        return time.monotonic() >= self._end

    def do(self, argv: Sequence[str], config: str) -> int:
        """Do one job; return its exit status, 75 for one that was ended for want of time, or below 0 the signal that killed it."""
        request = json.dumps({"argv": list(argv), "config": config}) + "\n"
        if not self._sent(request):  # the process ended after the job before, for which this one is not to pay
            self._dismiss()
            if not self._sent(request):
                return self._dismiss() or 1
        process = self._started()
        assert process.stdout is not None
        termed = killed = False
        while not select.select([process.stdout], [], [], self._pause())[0]:
            if self.over() and not termed:
                process.terminate()
                termed = True
            if time.monotonic() >= self._kill and not killed:
                process.kill()
                killed = True
        line = process.stdout.readline()
        if line.strip() and int(line) in (0, CONTINUE):
            return int(line)
        status = self._dismiss()  # also after a mistake that was told: a GPU's context may be broken
        if termed:
            return CONTINUE
        return int(line) if line.strip() else status or 1

    def _sent(self, request: str) -> bool:
        """Hand a job over; tell whether there was a process to take it."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(request.encode())
            process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def _pause(self) -> float:
        return min(1.0, max(0.01, self._end - time.monotonic()))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=self._files, env=self._env,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on
            )  # fmt: skip
        return self._process

    def _dismiss(self) -> int:
        """End the process; return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
