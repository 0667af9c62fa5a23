"""One side of the benchmark in a process of its own: does units of work when it is told to.

    python benchmarks/worker.py ours|textbook --device cpu --threads 2 --dd FOLDER

Reads a JSON object a line from standard input and answers with one on standard output; the end of the input ends it.

- {"do": "setup", "unit", "sizes"}: make the unit; answers {"per_call"}. The one before is forgotten.
- {"do": "count"}: one call, for warming up; answers {"flops"} of a unit.
- {"do": "work", "units"}: at least so many units, in whole calls; answers {"seconds"} and {"cpu"}, processor seconds, of a unit, and
  {"value"}, the sum of what the last call returned (null if it is not finite).
- {"do": "about"}: answers with the device, the peak memory so far, and the precision of convolutions.

A failure is answered with {"error"}, and ends it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Side:
    """What this process does: `ours` or `textbook`."""

    def __init__(self, ours: bool, device: str) -> None:
        from benchmarks import textbook, units

        self._factories: dict[str, Any] = {**units.UNITS, "experts": units.experts} if ours else textbook.UNITS
        self._ours, self._device = ours, device
        self._work: Any = None
        self._per_call = 1

    def setup(self, unit: str, sizes: dict[str, Any]) -> dict[str, Any]:
        """Make a unit."""
        import torch

        from benchmarks.textbook import Data, Sizes

        self._work = None  # first: two units at once would be in the peak
        torch.manual_seed(0)
        wanted = Sizes(**sizes)
        made = self._factories[unit](wanted, Data(wanted, self._device))
        self._work, self._per_call = (made.work, made.per_call) if self._ours else (made, 1)
        return {"per_call": self._per_call}

    def count(self) -> dict[str, Any]:
        """Count the operations of a unit."""
        from benchmarks.floor import flops

        return {"flops": flops(self._work) // self._per_call}

    def work(self, units: int) -> dict[str, Any]:
        """Do units and measure them."""
        from benchmarks.floor import synchronise

        calls = math.ceil(units / self._per_call)
        synchronise(self._device)
        began, busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            last = self._work()
        synchronise(self._device)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        value = float(last.detach().double().sum())
        done = calls * self._per_call
        return {"seconds": seconds / done, "cpu": busy / done, "value": value if math.isfinite(value) else None}

    def about(self) -> dict[str, Any]:
        """Say where this runs, and the largest memory so far, in MB: resident, or allocated on a GPU."""
        import torch

        if self._device == "cuda":
            peak, name = torch.cuda.max_memory_allocated() / 2**20, torch.cuda.get_device_name()
        else:
            peak, name = resident_mb(), ""
        return {"peak_mb": round(peak, 1), "name": name, "tf32": torch.backends.cudnn.allow_tf32, "threads": torch.get_num_threads()}


def resident_mb() -> float:
    """Return the largest resident memory of this process. What getrusage says on Linux may be that of the process which started it."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def start(ours: bool, dd: Path, threads: int) -> None:
    """Begin as `python -m dd` does, or with torch's own defaults; either with so many threads."""
    import torch

    if not ours:
        torch.set_num_threads(threads)
        return
    # What `pip install --editable` left in this process would fill in files that another checkout does not have.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not str(getattr(finder, "__module__", "")).startswith("__editable__")]
    sys.path.insert(0, str(dd))
    import dd as package

    if Path(str(package.__file__)).resolve().parents[1] != dd:
        raise RuntimeError(f"--dd: {dd}: has no package dd; found {package.__file__}")
    try:
        from dd.device import prepare_process
    except ImportError:  # a checkout from before that file
        from dd.verbs.jobs import _threads  # type: ignore[attr-defined]

        _threads(argparse.Namespace(threads=threads))
    else:
        prepare_process(threads)


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("ours", "textbook"))
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dd", type=Path, default=ROOT)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    sys.path[0] = str(ROOT)  # in the place of this folder
    import benchmarks  # noqa: F401  # before another checkout comes first, which has one too

    try:
        start(args.side == "ours", args.dd.resolve(), args.threads)
        side = Side(args.side == "ours", args.device)
        for line in sys.stdin:
            told = json.loads(line)
            print(json.dumps(getattr(side, told.pop("do"))(**told)), file=answers, flush=True)
    except Exception:
        print(json.dumps({"error": traceback.format_exc()}), file=answers, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
