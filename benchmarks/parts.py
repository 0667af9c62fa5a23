"""Print where the time of our units goes, kind of operation by kind: what is between them and the floor.

    python -m benchmarks.parts [--units dm_iteration ...] [--threads 2] [--calls 3]

JSON: for each unit its seconds (profiled, so a little longer than they are), and the parts of them in convolutions, in matrix products, in
all other operations on tensors (normalisation, activation, pooling, augmentation, optimizers: bound by memory), and outside of operations
(Python, the autograd engine). Run it with nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul")


def kind(name: str) -> str:
    """Return what an operation counts as."""
    if "convolution" in name or "conv2d" in name:
        return "convolutions"
    return "products" if name in PRODUCTS else "memory"


def parts(unit: str, calls: int) -> dict[str, Any]:
    """Return the parts of `calls` calls of a unit, after three for warming up."""
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.textbook import Data, Sizes
    from benchmarks.units import UNITS

    made = UNITS[unit](Sizes(), Data(Sizes(), "cpu"))
    for _ in range(3):
        made.work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        for _ in range(calls):
            made.work()
        seconds = time.perf_counter() - began
    sums = dict.fromkeys(("convolutions", "products", "memory"), 0.0)
    for event in seen.key_averages():
        if event.key.startswith("aten::"):
            sums[kind(event.key)] += event.self_cpu_time_total / 1e6
    shares = {name: round(value / seconds, 3) for name, value in sums.items()}
    return {"seconds": seconds / calls / made.per_call, **shares, "outside": round(1 - sum(shares.values()), 3)}


def main() -> None:
    """Measure every unit and print the table."""
    from benchmarks.textbook import UNITS
    from dd.device import prepare_process

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", nargs="+", choices=list(UNITS), default=list(UNITS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--calls", type=int, default=3)
    args = parser.parse_args()
    prepare_process(args.threads)
    print(json.dumps({unit: parts(unit, args.calls) for unit in args.units}, indent=1))


if __name__ == "__main__":
    main()
