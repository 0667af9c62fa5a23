"""When a long job must save its state and stop: its time is over, or somebody asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

CONTINUE = 75  # exit status of a job that saved its state and wants to be started again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # the end of an allocation, a warning before it, Ctrl-C
MARGIN = 120  # seconds before a scheduler's limit at which a job saves and stops


class Stopper:
    """Say, when it is called inside its `with` block, whether to stop.

    after: seconds from now; None for no limit. SLURM's own end of the job, less `MARGIN`, counts too where it names one: `after` knows
    nothing of the time that passed before this process began. In the block SIGTERM, SIGUSR1 and Ctrl-C only set a mark (in the main
    thread; Python takes no signals elsewhere), so that the job can finish its step, save, and end with status 75. A second Ctrl-C ends
    it at once.
    """

    def __init__(self, after: float | None) -> None:
        self._end = None if after is None else time.monotonic() + after
        if after is not None and (ends := os.environ.get("SLURM_JOB_END_TIME", "")).isdigit():
            self._end = min(time.monotonic() + after, time.monotonic() + int(ends) - time.time() - MARGIN)
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self._asked or (self._end is not None and time.monotonic() > self._end)

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
