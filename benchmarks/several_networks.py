"""Does one vectorised step of several networks beat one step of each? Prints JSON.

Run from the project's root as `python -m benchmarks.several_networks [--networks 5] [--width 128] [--threads 1 2]`.

Each step is forward, backward and SGD of ConvNet-3 with instance norm on 100 images of 3x32x32 and their labels, for every network: what
the evaluation of a set with ten images a class repeats. `loop` steps one network after the other, by autograd. `vmap` stacks the weights,
and takes all gradients by `torch.func.vmap` of `torch.func.grad`. Both are warmed and take turns; times are medians, with the range, in
seconds. Both take the plain path of `dd.fast`, and so `vmap` meets torch's own operations; `fast` is the loop as the project runs it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from dd import fast, networks
from dd.device import prepare_process

LR = 0.01
Step = Callable[[], Tensor]


def looped(nets: list[nn.Module], x: Tensor, y: Tensor) -> Step:
    """Return a step of one network after the other; it returns a weight of the first."""
    optimizers = [torch.optim.SGD(net.parameters(), lr=LR) for net in nets]

    def step() -> Tensor:
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        return next(nets[0].parameters()).detach()

    return step


def vectorised(nets: list[nn.Module], x: Tensor, y: Tensor) -> Step:
    """Return a step of all networks at once; it returns a weight of the first."""
    stacked, buffers = stack_module_state(nets)
    weights = {name: value.detach() for name, value in stacked.items()}

    def loss(one: dict[str, Tensor], rest: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(nets[0], (one, rest), (x,)), y)

    gradients = vmap(grad(loss))

    def step() -> Tensor:
        for name, gradient in gradients(weights, buffers).items():
            weights[name].sub_(gradient, alpha=LR)
        return next(iter(weights.values()))[0]

    return step


def taken(step: Step, plain: bool) -> tuple[float, Tensor]:
    """Return how long a step took, in seconds, and what it returned."""
    begun = time.perf_counter()
    if plain:
        with fast.plain():
            weight = step()
    else:
        weight = step()
    return time.perf_counter() - begun, weight


def measured(count: int, width: int, rounds: int) -> dict[str, object]:
    """Return times of all ways, the loop's over vmap's, and how far their weights are apart in the end, relative to their size."""
    x, y = torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(10).repeat(10)
    fresh = lambda: [networks.build(f"convnet3_in_w{width}", 3, (32, 32), 10, number) for number in range(count)]  # noqa: E731
    ways = {"loop": (looped(fresh(), x, y), True), "vmap": (vectorised(fresh(), x, y), True), "fast": (looped(fresh(), x, y), False)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    ends: dict[str, Tensor] = {}
    for number in range(rounds + 2):
        for name, (step, plain) in ways.items():
            seconds, ends[name] = taken(step, plain)
            if number >= 2:  # the first two warm up
                times[name].append(seconds)
    found: dict[str, object] = {f"{name}_s": [statistics.median(of), min(of), max(of)] for name, of in times.items()}
    found["loop_over_vmap"] = statistics.median(times["loop"]) / statistics.median(times["vmap"])
    found["fast_over_vmap"] = statistics.median(times["fast"]) / statistics.median(times["vmap"])
    return {**found, "apart": float((ends["loop"] - ends["vmap"]).norm() / ends["loop"].norm())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.several_networks", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    found: dict[str, object] = {"torch": torch.__version__, "networks": args.networks, "width": args.width}
    for threads in args.threads:
        prepare_process(threads)
        found[f"threads_{threads}"] = measured(args.networks, args.width, args.rounds)
    json.dump(found, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
