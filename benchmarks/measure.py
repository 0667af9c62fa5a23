"""Both sides of a unit, each in a process of its own, working in turns: one waits while the other is measured."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.textbook import Sizes
from dd.errors import DDError

TURN = 1.0  # seconds that a turn should take about, or more, so that the clock and the pipes do not matter
LEAST, MOST = 3, 5  # rounds, where nobody says how many


class Worker:
    """A process that does units of one side; see `benchmarks.worker`."""

    def __init__(self, ours: bool, device: str, threads: int, dd: Path) -> None:
        self.ours = ours
        script = Path(__file__).with_name("worker.py")
        side = "ours" if ours else "textbook"
        command: list[str | Path] = [sys.executable, script, side, "--device", device, "--threads", str(threads), "--dd", dd]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (progress and warnings, of interest if it fails)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said, text=True, env=env)

    def ask(self, do: str, **told: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            DDError: the process failed, or was killed (out of memory).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **told}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = self._process.stdout.readline()  # why it ended
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._why()}
        if "error" in answer:
            side = "our path" if self.ours else "the textbook path"
            raise DDError(f"benchmarks: {side}: {do} {told.get('unit', '')}: {answer['error']}")
        return answer

    def _why(self) -> str:
        """Return how the process ended that did not answer."""
        status = self._process.wait()
        self._said.seek(0)
        return f"it ended with status {status} (-9: killed, as a rule for want of memory); it said: {self._said.read()[-2000:]}"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it is gone
            self._process.stdin.close()
        self._process.stdout.close()
        self._said.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Machine:
    """Where both sides run: device `cpu` or `cuda`, threads of each, and the folder of the checkout whose `dd` is measured."""

    device: str
    threads: int
    dd: Path

    @contextmanager
    def pair(self) -> Iterator[tuple[Worker, Worker]]:
        """Yield two new processes, ours and the textbook's."""
        workers = [Worker(ours, self.device, self.threads, self.dd) for ours in (True, False)]
        try:
            yield workers[0], workers[1]
        finally:
            for worker in workers:
                worker.close()


@dataclass
class Measured:
    """What was seen of a unit, first ours, then the textbook: seconds and processor seconds by round, operations, peak memory in MB."""

    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    cpu: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    flops: tuple[int, int] = (0, 0)
    peaks: tuple[float, float] = (0.0, 0.0)
    finite: bool = True

    def row(self, rate: float) -> dict[str, Any]:
        """Return the numbers of the report; rate: operations a second of a large matrix product."""
        ours, textbook = self.seconds
        ratios = [b / a for a, b in zip(ours, textbook, strict=True)]
        ours_s, textbook_s, floor_s = statistics.median(ours), statistics.median(textbook), min(self.flops) / rate
        return {
            "ours_s": ours_s, "textbook_s": textbook_s, "speedup": textbook_s / ours_s, "floor_s": floor_s, "of_floor": floor_s / ours_s,
            "peak_mb": self.peaks[0], "textbook_peak_mb": self.peaks[1], "ours_range_s": [min(ours), max(ours)],
            "textbook_range_s": [min(textbook), max(textbook)], "speedup_range": [min(ratios), max(ratios)], "rounds": len(ours),
            "ours_cpu_s": statistics.median(self.cpu[0]), "textbook_cpu_s": statistics.median(self.cpu[1]),
            "ours_flops": self.flops[0], "textbook_flops": self.flops[1], "finite": self.finite,
        }  # fmt: skip


def measure(
    workers: Sequence[Worker], unit: str, sizes: Sizes, until: float, rounds: int | None, *, count: bool = True, turn_s: float = TURN
) -> Measured:
    """Measure a unit on one side or on both, in turns whose order changes from round to round.

    until: value of `time.monotonic` after which no further round begins, from the third on. rounds: so many, whatever the time. count:
    whether operations are counted, in the call that warms up. turn_s: seconds that a turn of a short unit takes, about.
    """
    found, flops, turn = Measured(), [0, 0], 1
    for worker in workers:
        turn = max(turn, worker.ask("setup", unit=unit, sizes=asdict(sizes))["per_call"])
    for worker in workers:
        began = time.monotonic()
        if count:
            flops[not worker.ours] = worker.ask("count")["flops"]
        if time.monotonic() - began < TURN:  # the first call of a short unit says nothing of the others
            turn = max(turn, min(50, int(turn_s / worker.ask("work", units=1)["seconds"])))
    done = 0
    while done < (rounds or MOST) and (rounds or done < LEAST or time.monotonic() < until):
        for worker in workers if done % 2 == 0 else reversed(workers):
            answer = worker.ask("work", units=turn)
            found.seconds[not worker.ours].append(answer["seconds"])
            found.cpu[not worker.ours].append(answer["cpu"])
            found.finite &= answer["value"] is not None
        done += 1
    peaks = {worker.ours: worker.ask("about")["peak_mb"] for worker in workers}
    found.flops, found.peaks = (flops[0], flops[1]), (peaks.get(True, 0.0), peaks.get(False, 0.0))
    return found
