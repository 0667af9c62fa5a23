"""The process in which `dd run` has its jobs done, one after the other: torch is imported once, not thousands of times.

A line of JSON on standard input is a job, `{"argv": [...], "config": "..."}`; a line on standard output is its exit status. What jobs
print goes to standard error. When the input ends, because `dd run` ended or was killed, so does this process, at once: files appear
atomically or not at all.
"""

from __future__ import annotations

import gc
import io
import json
import os
import queue
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Any

from dd.__main__ import main
from dd.errors import Stopped
from dd.stopping import CONTINUE, SIGNALS


def serve() -> None:
    """Do jobs until the input ends."""
    import torch

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    fresh = torch.get_rng_state()
    try:
        while True:
            request = requests.get()
            torch.set_rng_state(fresh)  # as in a process of its own
            print(_call(request["argv"], request["config"]), file=replies, flush=True)
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    except Stopped:
        pass  # between two jobs


def _listen(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.__stdin__ or ():
        requests.put(json.loads(line))
    os._exit(0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End a job that does not save its state; those that do have their own way (`dd.stopping`)."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)  # once is enough
    raise Stopped(f"{signal.Signals(number).name}: stopped; start again to make it anew")


def _call(argv: list[str], config: str) -> int:
    """Run one verb; return its exit status, 1 for a mistake of the program."""
    sys.stdin = io.StringIO(config)
    try:
        return main(argv)
    except Stopped:
        return CONTINUE
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    serve()
