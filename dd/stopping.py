"""When a long job must save its state and stop: its time is over, or somebody asked."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # the end of an allocation, a warning before it, Ctrl-C


class Stopper:
    """Say, when it is called inside its `with` block, whether to stop.

    after: seconds from now; None for no limit. In the block SIGTERM, SIGUSR1 and Ctrl-C only set a mark (in the main thread; Python
    takes no signals elsewhere), so that the job can finish its step, save, and end with status 75. A second Ctrl-C ends it at once.
    """

    def __init__(self, after: float | None) -> None:
        self._end = None if after is None else time.monotonic() + after
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
