"""Progress for a person who waits: a bar on a terminal, otherwise one line now and then with rate and time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType

EVERY = 15.0  # seconds between lines when not on a terminal


class Progress:
    """Report how far a long job is, on standard error."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._start, self._done = what, total, done, done
        self._began = self._told = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=what)

    def update(self, done: int) -> None:
        """Say that `done` of the total are done."""
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done
            return
        self._done = done
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            rate = (done - self._start) / (now - self._began)
            left = (self._total - done) / rate if rate else float("inf")
            print(f"{self._what}: {done}/{self._total}, {rate:.3g}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        if self._bar is not None:
            self._bar.close()
