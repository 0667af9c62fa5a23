"""Compare the fast path with the plain one (`dd.fast.plain`), network by network: what layouts were chosen by. Prints JSON.

    python -m benchmarks.paths [--networks convnet3_in:3:32 ...] [--images 10 100] [--threads 1] [--memory kept|default]

Milliseconds of both paths, in turns, medians: a forward pass without gradients, one with the weights' gradients, and one with the images'
gradient of the squared norm of these (what DSA and MTT differentiate). A network is NAME:CHANNELS:SIDE. `--memory default` leaves the C
library as it is (`dd.device.keep_memory`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F

from dd import device, fast, networks

NETWORKS = [
    "convnet3_in_w32:1:16", "convnet3_in:1:28", "convnet3_in_w32:3:32", "convnet3_in:3:32", "convnet4_in:3:64",
    "convnet3_bn:3:32", "resnet18_in_w16:3:32", "resnet18_bn_w16:3:32", "vgg11_in_small:3:32",
]  # fmt: skip


def in_turns(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return medians in ms of both paths, after two rounds for warming up, and their ratio."""
    seen: dict[str, list[float]] = {"plain": [], "fast": []}
    for number in range(rounds + 2):
        for name, times in seen.items():
            with fast.plain() if name == "plain" else nullcontext():
                began = time.perf_counter()
                work()
            if number > 1:
                times.append(time.perf_counter() - began)
    plain, fast_ = (statistics.median(times) * 1e3 for times in seen.values())
    return {"plain_ms": round(plain, 2), "fast_ms": round(fast_, 2), "ratio": round(plain / fast_, 2)}


def compare(name: str, channels: int, side: int, images: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the comparison of one network."""
    net = networks.build(name, channels, (side, side), 10, 0)
    weights = list(net.parameters())
    x = torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(0))
    y = torch.arange(images) % 10

    def forward() -> None:
        with torch.no_grad():
            net(x)

    def twice() -> None:
        seen = x.clone().requires_grad_(True)
        gradients = torch.autograd.grad(F.cross_entropy(net(seen), y), weights, create_graph=True)
        torch.autograd.grad(torch.stack([gradient.square().sum() for gradient in gradients]).sum(), seen)

    works = {"forward": forward, "gradient": lambda: torch.autograd.grad(F.cross_entropy(net(x), y), weights), "twice": twice}
    return {what: in_turns(work, rounds) for what, work in works.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--images", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", choices=["kept", "default"], default="kept")
    args = parser.parse_args()
    if args.memory == "kept":
        device.prepare_process(args.threads)
    torch.set_num_threads(args.threads)
    found = {}
    for network in args.networks:
        name, channels, side = network.split(":")
        for images in args.images:
            found[f"{network}, {images} images"] = compare(name, int(channels), int(side), images, args.rounds)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
