"""What a plan costs: seconds from counted operations and a measured rate, bytes from counted numbers. Estimates, to a factor of two."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from dd import generators, networks, recipes
from dd.config import parse
from dd.config.stages import AnalyseConfig
from dd.data.registry import DATASETS
from dd.generators.depth import PUBLISHED
from dd.generators.files import FILES
from dd.plan.job import Job
from dd.plan.jobs import Plan
from dd.plan.told import decoded
from dd.sources.guides import architecture
from dd.teachers import CHANNELS, TEACHERS

STARTUP = 2.5  # seconds: a process that imports torch, on a warm disk
DRAWING = 8.0  # seconds: all figures of a paper
STEP = 0.002  # seconds: what one step costs beyond its arithmetic, in calls (two CPU cores, ConvNet-3)
GAN_PASSES = 12  # an update of both networks takes about so many passes through a generator, an image
DISTANCE = 5  # operations of a product that a pixel of a distance costs: it is no matrix product
BACKWARD = 2  # a backward pass to weights costs about two forward passes


@cache
def flops(network: str, channels: int, size: tuple[int, int], classes: int) -> tuple[float, int]:
    """Return (floating-point operations of one image's forward pass, number of parameters), counted without computing anything."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = networks.build(network, channels, size, classes)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(2, channels, *size))
    return counter.get_total_flops() / 2, sum(p.numel() for p in net.parameters())


@cache
def generator_flops(name: str, channels: int, size: tuple[int, int], classes: int) -> tuple[float, int]:
    """Return (floating-point operations of making one image, number of parameters), counted without computing anything."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = generators.build(name, channels, size, classes)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(2, net.z_dim), torch.zeros(2, dtype=torch.int64))
    return counter.get_total_flops() / 2, sum(p.numel() for p in net.parameters())


def rate() -> float:
    """Return the floating-point operations per second of one worker here: a ConvNet-3's forward and backward pass, one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net, x = networks.build("convnet3_in", 3, (32, 32), 10, 0), torch.randn(16, 3, 32, 32)
    net(x).sum().backward()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < 0.5:
        net(x).sum().backward()
        done += 1
    torch.set_num_threads(threads)
    return done * 16 * (1 + BACKWARD) * flops("convnet3_in", 3, (32, 32), 10)[0] / (time.perf_counter() - began)


class Sizes:
    """Shape and counts of a dataset: from the registry, or from its manifest once it is prepared."""

    def __init__(self, name: str) -> None:
        if name in DATASETS:
            spec = DATASETS[name]
            self.channels, self.size, self.classes = spec.channels, tuple(spec.size), len(spec.classes)
            self.train, self.test = spec.train, spec.test
            return
        path = Path("data/prepared") / name / "manifest.json"
        from dd.data.load import manifest

        guess: dict[str, Any] = {"channels": 3, "size": [32, 32], "classes": [""] * 10, "counts": {}}
        facts = manifest(path.parent) if path.exists() else guess
        self.channels, self.size, self.classes = facts["channels"], tuple(facts["size"]), len(facts["classes"])
        counts = facts["counts"]
        self.train, self.test = sum(counts.get("train", [50_000])), sum(counts.get("test", [10_000]))

    def shape(self) -> tuple[int, tuple[int, int], int]:
        """Return what `flops` takes beside the network."""
        return self.channels, (self.size[0], self.size[1]), self.classes


def estimate(job: Job, per_second: float) -> tuple[float, float]:
    """Return (seconds, bytes written) of a job, at `per_second` floating-point operations per second."""
    if job.stage in ("artifact", "download"):
        return DRAWING, 2e6
    if job.stage == "choose":
        return 1.0, 1e3
    if job.stage == "teacher":
        return STARTUP, 1.5e8
    if job.stage == "generator_file":  # two samples
        return STARTUP + 30.0, 6e8
    sizes = Sizes(job.facts["dataset"])
    pixels = sizes.channels * sizes.size[0] * sizes.size[1]
    if job.stage == "prepare":
        images = sizes.train + sizes.test
        return STARTUP + images * 4e-4, images * pixels
    if job.stage == "whiten":  # a covariance, and its eigenvectors
        return STARTUP + (2.0 * sizes.train * pixels**2 + 20.0 * pixels**3) / per_second, 8.0 * pixels**2
    if job.stage == "experts":
        one, numbers = flops(job.config["network"], *sizes.shape())
        epochs, seeds, limit = job.config["epochs"], len(job.facts["seeds"]), job.config["images"]
        images = sizes.train if limit is None else min(sizes.train, limit * sizes.classes)
        work = epochs * images * ((1 + BACKWARD) * one / per_second + STEP / job.config["training"]["batch"])
        return STARTUP + seeds * work, seeds * (epochs + 1) * numbers * 4.0
    if job.stage == "generator":
        one, numbers = generator_flops(job.config["generator"], *sizes.shape())
        epochs = job.facts["epoch"] - job.facts["previous_epoch"]
        return STARTUP + epochs * sizes.train * GAN_PASSES * one / per_second, numbers * 24.0
    if job.stage == "quality":
        return STARTUP + _measuring(job, sizes) / per_second, 5e3
    if job.stage == "pretrain":
        one, numbers = flops(job.config["network"], *sizes.shape())
        epochs, seeds = job.facts["epoch"] - job.facts["previous_epoch"], len(job.facts["seeds"])
        steps = epochs * sizes.train / job.config["training"]["batch"]
        work = epochs * sizes.train * (1 + BACKWARD) * one
        return STARTUP + seeds * (work / per_second + steps * STEP), seeds * numbers * 8.0
    if job.stage == "distill":
        method, ipc = job.config["method"], job.config["ipc"]
        recipe = recipes.load(method)
        config = parse(recipe.Config, job.config["recipe"], method)
        passes: dict[str, float] = getattr(recipe, "work", lambda config, classes, train, ipc: {})(config, sizes.classes, sizes.train, ipc)
        work = sum(images * _look(network, sizes) for network, images in passes.items())
        made: dict[str, float] = getattr(recipe, "generator_work", lambda config, classes, ipc: {})(config, sizes.classes, ipc)
        work += sum(images * _making(name, sizes) for name, images in made.items())
        work += _guidance(job, sizes)
        images = decoded(job.config) + (ipc if decoded(job.config) != ipc else 0)  # and what is stored, where it is something else
        sets = 1 + len(recipes.published(method, job.config["recipe"]))
        return STARTUP + work / per_second + job.facts["iterations"] * STEP, sets * sizes.classes * images * pixels * 4.0
    if job.stage == "evaluate":
        one, _ = flops(job.config["network"], *sizes.shape())
        images = sizes.classes * job.facts["images"] or sizes.train
        settings: dict[str, Any] = job.config["settings"]
        first, last = job.facts["nets"]
        steps = settings["epochs"] * -(-images // settings["batch"])
        # about half of a student sees the features too; a teacher is asked with one more forward pass
        twice = 1.5 if "features" in settings else 4 / 3 if "teacher" in settings else 1.0
        work = (settings["epochs"] * images * (1 + BACKWARD) * twice + sizes.test) * one
        return STARTUP + (last - first + 1) * (work / per_second + steps * STEP), 2e3
    one, _ = flops(job.config["network"], *sizes.shape())
    looked = parse(AnalyseConfig, job.config, "analyse")
    if looked.kind == "cams":  # forth and back, a few images
        return STARTUP + 1.0 + (1 + len(looked.earlier)) * len(looked.labels) * (1 + BACKWARD) * one / per_second, 1e6
    batches = looked.batch * looked.draws * sizes.classes if looked.kind == "models" else 0
    images = looked.models * (looked.real + sizes.classes * job.facts["ipc"] + batches)
    return STARTUP + 1.0 + images * one / per_second, looked.models * 2e6


def _measuring(job: Job, sizes: Sizes) -> float:
    """Return the operations of measuring a generator: its samples, two trainings of the score's network, distances in pixels."""
    config, pixels = job.config, sizes.channels * sizes.size[0] * sizes.size[1]
    samples, train = max(config["samples"], 8 * sizes.classes), min(sizes.train, config["images"])
    looks, score = (flops(network, *sizes.shape())[0] for network in (job.facts["network"], config["score"]))
    made = samples * generator_flops(job.facts["generator"], *sizes.shape())[0]
    trained = 2 * score * ((1 + BACKWARD) * config["score_epochs"] * samples + sizes.test)
    near = DISTANCE * pixels * train * (samples + min(samples, sizes.test))
    return made + trained + near + looks * (3 * samples + sizes.test)


def _look(network: str, sizes: Sizes) -> float:
    """Return the operations of one image's forward pass of a network, or of a teacher, which sees images of its own size."""
    if network in TEACHERS:
        teacher = TEACHERS[network]
        return flops(teacher.network, CHANNELS, teacher.size, max(1, teacher.classes))[0]
    return flops(network, *sizes.shape())[0]


def _making(generator: str, sizes: Sizes) -> float:
    """Return the operations of making one image, for a generator from a file as the authors' formulas give them; 0 where nobody knows."""
    if generator in FILES:
        return PUBLISHED[generator][1] if generator in PUBLISHED else 0.0
    return generator_flops(generator, *sizes.shape())[0]


def _guidance(job: Job, sizes: Sizes) -> float:
    """Return the operations of looking through guides: all synthetic images forth and back (two passes), and real ones for cclom."""
    guidance = job.config.get("guidance")
    if guidance is None:
        return 0.0
    images = 3.0 * sizes.classes * decoded(job.config) + (guidance["batch"] if guidance["kind"] == "cclom" else 0)
    each = [flops(architecture(network), *sizes.shape())[0] for network in guidance["networks"]]
    return float(job.facts["iterations"] * images * sum(each) / len(each))


def total(jobs: Iterable[Job], per_second: float) -> float:
    """Return the seconds of all jobs, one after the other."""
    return sum(estimate(job, per_second)[0] for job in jobs)


def table(plan: Plan, papers: Iterable[str], per_second: float | None, *, every: bool = False) -> str:
    """Return the plan of some papers as text: jobs by stage, there already or new, hours and disk."""
    measured = per_second is None
    speed = rate() if per_second is None else per_second * 1e9
    rows: dict[str, list[float]] = {}
    lines = []
    jobs = plan.of(papers)
    for job in jobs:
        cached = all(Path(path).exists() for path in job.outputs)
        seconds, size = estimate(job, speed)
        row = rows.setdefault(job.stage, [0, 0, 0.0, 0.0])
        row[1 if cached else 0] += 1
        row[2] += 0 if cached else seconds
        row[3] += 0 if cached else size
        lines.append(f"  {'cached' if cached else 'new':7} {_time(seconds):>9} {job.outputs[0]}")
    head = f"{'stage':14} {'new':>6} {'cached':>7} {'time':>10} {'disk':>9}"
    body = [f"{stage:14} {new:6.0f} {cached:7.0f} {_time(s):>10} {_size(b):>9}" for stage, (new, cached, s, b) in rows.items()]
    sums = [sum(row[i] for row in rows.values()) for i in range(4)]
    end = f"{'all':14} {sums[0]:6.0f} {sums[1]:7.0f} {_time(sums[2]):>10} {_size(sums[3]):>9}"
    source = " (measured here)" if measured else ""
    note = f"{len(jobs)} jobs at scale {plan.scale.scale}; time: one worker at {speed / 1e9:.3g} GFLOP/s{source}"
    return "\n".join([*(lines if every else []), head, *body, end, note])


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
