"""Measure how the memory of unrolling a student grows with its steps, way by way; prints a JSON table.

    python benchmarks/unroll_memory.py [--steps 10 20 40] [--images 100] [--network convnet3_in_w32] [--size 32]

One update's loss and gradient are computed in a process of its own for each cell. `peak_mb` is that process's largest resident memory less
what it held before the update, `seconds` the time of the update. `used_mb` is the same peak in another process, in which the C library
gives large blocks back as soon as they are free (glibc's MALLOC_MMAP_THRESHOLD_): what the arithmetic needs, without what the allocator
keeps in pieces between other blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
WAYS = ("full", "checkpoint", "adjoint", "frozen")


def rss_mb(peak: bool) -> float:
    """Return the resident memory of this process, now or at its largest, in MB."""
    import resource

    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(way: str, steps: int, images: int, network: str, size: int) -> dict[str, float]:
    """Return {peak_mb, seconds} of one update in this process."""
    import torch
    import torch.nn.functional as F

    from dd import networks
    from dd.objectives.unroll import UNROLLS, frozen
    from dd.train.functional import Flat

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, size, size, generator=generator)
    y = torch.arange(images) % 10
    net = networks.build(network, 3, (size, size), 10, 0)
    flat = Flat(net)
    start = flat.flatten(net)
    target = start + 0.01 * torch.randn(flat.size, generator=generator)
    unroll = {**UNROLLS, "frozen": frozen}[way]

    def update(n: int, shown: torch.Tensor) -> None:
        shown = shown.clone().requires_grad_(True)
        alpha = torch.tensor(0.01, requires_grad=True)
        end = unroll(lambda i, theta, all_: F.cross_entropy(flat(theta, all_), y[: len(all_)]), shown, start, alpha, n)
        (end - target).square().sum().backward()

    update(1, x[:1])  # what libraries take when they are first used is no matter of the steps
    before, began = rss_mb(peak=False), time.perf_counter()
    update(steps, x)
    return {"peak_mb": round(rss_mb(peak=True) - before, 1), "seconds": round(time.perf_counter() - began, 2)}


def main() -> None:
    """Measure every cell, each in its own process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--network", default="convnet3_in_w32")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--one", choices=WAYS, help="measure this way in this process, for the first of --steps")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.steps[0], args.images, args.network, args.size)))
        return
    table: dict[str, dict[str, dict[str, float]]] = {}
    for way in WAYS:
        table[way] = {}
        for steps in args.steps:
            command = [sys.executable, __file__, "--one", way, "--steps", str(steps), "--images", str(args.images),
                       "--network", args.network, "--size", str(args.size)]  # fmt: skip
            one, other = (
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **more}).stdout)
                for more in ({}, {"MALLOC_MMAP_THRESHOLD_": "65536"})
            )
            table[way][str(steps)] = {"used_mb": other["peak_mb"], **one}
    print(json.dumps({"network": args.network, "images": args.images, "size": args.size, "ways": table}, indent=1))


if __name__ == "__main__":
    main()
