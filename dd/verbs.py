"""What each verb of the command line does: read the configuration, call one function of the library, note the run's facts."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dd.config import load_yaml, parse
from dd.errors import ConfigError, DDError

WORKFLOW = Path("workflow")


def _config(path: str) -> dict[str, Any]:
    """Read a configuration: JSON from standard input, or a JSON or YAML file (JSON is YAML)."""
    if path != "-":
        return load_yaml(path)
    try:
        data = json.load(sys.stdin)
    except ValueError as error:
        raise ConfigError(f"standard input: is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError("standard input: must be a JSON object")
    return data


def _required(config: dict[str, Any], key: str) -> Any:
    if key not in config:
        raise ConfigError(f"configuration: {key} is missing; it has {', '.join(config) or 'nothing'}")
    return config[key]


def _device(args: Namespace) -> str:
    """Set the threads, choose the device, and make the arithmetic repeatable."""
    import torch

    torch.set_num_threads(args.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's matrix products are not repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid, slow
    if args.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = args.device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device: value {args.device!r}; allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: value {args.device!r}: this machine has no CUDA device; allowed here: auto, cpu")
    return str(args.device)


@contextmanager
def _noted(path: Path, device: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Time the block and write its run.json when it ends well; what the block adds to the yielded dict goes in as well."""
    from dd.artifacts import write_run

    began = time.perf_counter()
    more: dict[str, Any] = {}
    yield more
    if device.startswith("cuda"):
        import torch

        facts |= {"gpu": torch.cuda.get_device_name(), "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() // 2**20}
    write_run(path, device=device, seconds=round(time.perf_counter() - began, 3), **facts, **more)


def _stopper(args: Namespace) -> Callable[[], bool]:
    """Return a function that says when `--stop-after` is over."""
    if args.stop_after is None:
        return lambda: False
    end = time.monotonic() + args.stop_after
    return lambda: time.monotonic() > end


def download(args: Namespace) -> None:
    """Fetch the files of a dataset."""
    from dd.data.download import download as fetch

    fetch(_config(args.config)["dataset"], args.out)


def prepare(args: Namespace) -> None:
    """Prepare a dataset."""
    from dd.data.config import DatasetConfig
    from dd.data.prepare import prepare as make

    make(args.name, parse(DatasetConfig, _config(args.config), f"dataset {args.name}"), args.raw, args.out)


def whiten(args: Namespace) -> None:
    """Fit the whitening of a prepared dataset."""
    from dd.data.whiten import whiten as fit

    _device(args)
    fit(args.dataset, args.out)


def teacher(args: Namespace) -> None:
    """Bring a teacher's weights into our own form."""
    from dd.teachers import install

    config = _config(args.config)
    install(_required(config, "teacher"), args.file, config.get("sha256"), args.out)


def experts(args: Namespace) -> None:
    """Train a block of experts and keep their trajectories."""
    from dd.train.config import ExpertConfig
    from dd.train.experts import experts as train

    config = parse(ExpertConfig, _config(args.config), "experts")
    device = _device(args)
    with _noted(args.out[0].with_suffix(".run.json"), device, seeds=args.seeds):
        train(config, args.dataset, args.seeds, args.out, device=device, stop=_stopper(args))


def pretrain(args: Namespace) -> None:
    """Train a block of networks from one milestone to the next."""
    from dd.train.config import PretrainConfig
    from dd.train.pretrain import pretrain as train

    config = parse(PretrainConfig, _config(args.config), "pretrain")
    device = _device(args)
    with _noted(args.out[0].parent / f"seed{args.seeds[0]}.run.json", device, seeds=args.seeds):
        train(
            config, args.dataset, args.epoch, args.seeds, args.out, args.previous or None, args.previous_epoch,
            device=device, stop=_stopper(args),
        )  # fmt: skip


def generator(args: Namespace) -> None:
    """Train a generator from one milestone to the next."""
    from dd.train.gan import train
    from dd.train.gan_config import GanConfig

    config = parse(GanConfig, _config(args.config), "generator")
    device = _device(args)
    with _noted(args.out.with_suffix(".run.json"), device):
        train(
            config, args.dataset, args.epoch, args.out, args.previous, args.previous_epoch, device=device, stop=_stopper(args),
        )  # fmt: skip


def quality(args: Namespace) -> None:
    """Measure one milestone of a generator."""
    from dd.analysis.gan_config import QualityConfig
    from dd.analysis.gan_job import measure

    config = parse(QualityConfig, _config(args.config), "quality")
    device = _device(args)
    with _noted(args.out.with_suffix(".run.json"), device):
        measure(config, args.generator, args.classifier, args.dataset, args.out, device=device)


def generator_file(args: Namespace) -> None:
    """Check a generator that its user converted, and install it."""
    from dd.generators.files import install

    config = _config(args.config)
    install(_required(config, "generator"), args.file, config.get("sha256"), args.out)


def distill(args: Namespace) -> None:
    """Distil one set."""
    from dd.analysis.gates import demand
    from dd.artifacts import read_json
    from dd.config.stages import DistillConfig
    from dd.distill import distill as descend

    config = parse(DistillConfig, _config(args.config), "distill")
    demand(args.quality)
    device = _device(args)
    epoch = None if args.choice is None else int(read_json(args.choice)["value"])
    with _noted(args.out / "run.json", device) as facts:
        facts["resumed"] = descend(
            config, args.dataset, args.need, args.seed, args.out, epoch=epoch,
            device=device, stop=_stopper(args), save_every=args.save_every,
        )  # fmt: skip


def evaluate(args: Namespace) -> None:
    """Train networks on one set and write their scores."""
    from dd.choose import chosen_step
    from dd.config.stages import EvaluateConfig
    from dd.evaluation import config_of
    from dd.evaluation.io import check_identity, read_distilled, write_scores
    from dd.evaluation.run import evaluate as judge

    config = parse(EvaluateConfig, _config(args.config), "evaluate")
    settings = parse(config_of(config.protocol), config.settings, f"protocol {config.protocol}")
    device = _device(args)
    first, last = args.nets
    with _noted(args.out.with_suffix(".run.json"), device):
        path = chosen_step(args.distilled, config.step, args.choice)
        check_identity(path, config.distilled)
        distilled = read_distilled(path, args.dataset)
        scores = judge(
            distilled, config.network, config.protocol, settings, args.dataset, args.set, range(first, last + 1), split=config.split,
            needs=args.need, device=device,
        )  # fmt: skip
        write_scores(args.out, config.model_dump(mode="json"), scores)


def choose(args: Namespace) -> None:
    """Pick a value from the results of its candidates."""
    from dd.choose import choose as pick

    config = _config(args.config)
    for key in ("files", "criterion", "split"):
        _required(config, key)
    pick(config, args.out)


def analyse(args: Namespace) -> None:
    """Run networks over a finished set."""
    from dd.analysis.accuracy import accuracy
    from dd.analysis.cams import cams
    from dd.analysis.embeddings import embeddings
    from dd.analysis.models import models
    from dd.config.stages import AnalyseConfig
    from dd.evaluation.io import check_identity

    config = parse(AnalyseConfig, _config(args.config), "analyse")
    if config.kind == "cams" and len(args.checkpoint) != 1 + len(config.earlier):
        raise ConfigError(f"analyse: {1 + len(config.earlier)} epochs, with {len(args.checkpoint)} files of --checkpoint")
    if config.kind != "cams" and len(args.checkpoint) != config.models:
        raise ConfigError(f"analyse: models: value {config.models}, with {len(args.checkpoint)} files of --checkpoint")
    check_identity(args.distilled, config.distilled)
    device = _device(args)
    with _noted(args.out.with_suffix(".run.json"), device):
        make = {"embeddings": embeddings, "models": models, "accuracy": accuracy, "cams": cams}[config.kind]
        make(config, args.dataset, args.distilled, args.checkpoint, args.out, device=device)


def artifact(args: Namespace) -> None:
    """Draw one paper."""
    from dd.figures.paper import draw_paper
    from dd.plan import Plan
    from dd.plan.papers import Settings

    plan = Plan(parse(Settings, _config(args.config), "config.yaml"), WORKFLOW)
    draw_paper(plan.drawing(args.paper), args.out)


def report(args: Namespace) -> None:
    """Write the report and the index."""
    from dd.plan import Plan
    from dd.plan.papers import Settings
    from dd.plan.summary import write

    write(Plan(parse(Settings, _config(args.config), "config.yaml"), WORKFLOW), args.out)


def _settings(args: Namespace) -> Any:
    from dd.plan.papers import load_settings

    settings = load_settings(args.settings)
    return settings.model_copy(update={"scale": args.scale}) if args.scale else settings


def plan(args: Namespace) -> None:
    """List the jobs of papers."""
    from dd.plan import Plan
    from dd.plan.cost import table
    from dd.plan.papers import load_paper

    settings = _settings(args)
    for name in args.papers:
        load_paper(WORKFLOW, name, "plan")
    print(table(Plan(settings, WORKFLOW, str(args.settings)), args.papers or settings.papers, args.rate, every=args.all))


def check(args: Namespace) -> int:
    """Check all papers at all scales; print every mistake."""
    from dd.data.config import check_paths, load_datasets
    from dd.figures.looks import mistakes
    from dd.plan import Plan
    from dd.plan.fits import misfits
    from dd.plan.papers import paper_names

    settings = _settings(args)
    wrong: dict[str, None] = {}
    try:
        check_paths(load_datasets(settings.datasets, f"{args.settings}: datasets"), f"{args.settings}: datasets")
    except DDError as error:
        wrong[str(error)] = None
    for kind, files in (("teachers", settings.teachers), ("generators", settings.generators)):
        for name, file in files.items():
            if not Path(file.path).is_file():
                wrong[f"{args.settings}: {kind}.{name}.path: value {file.path!r}: no such file (docs/{kind}.md says how to get it)"] = None
    scales = sorted(path.stem for path in (WORKFLOW / "scales").glob("*.yaml"))
    for scale in {settings.scale, *scales}:
        for paper in sorted({*paper_names(WORKFLOW), *settings.papers}):
            try:
                made = Plan(settings.model_copy(update={"scale": scale, "papers": ()}), WORKFLOW, str(args.settings), only=[paper])
                file = str(WORKFLOW / "papers" / f"{paper}.yaml")
                if scale == "paper":  # where no point is left out
                    wrong |= dict.fromkeys(mistakes(made.drawing(paper), file))
                if scale == "paper" or paper in settings.papers:  # a record's own paper may be made for one scale only
                    wrong |= dict.fromkeys(misfits(made, f"{file} at scale {scale}"))
            except DDError as error:
                wrong[str(error)] = None
    if wrong:
        raise DDError("\n".join(wrong))
    print(f"{args.settings}: {len(paper_names(WORKFLOW))} papers at {len(scales)} scales: no mistakes found")
    return 0


def record(args: Namespace) -> None:
    """Keep measured numbers in records/."""
    from dd.plan import Plan
    from dd.plan.record import write

    print(write(Plan(_settings(args), WORKFLOW, str(args.settings)), args.paper, args.out))


def show(args: Namespace) -> None:
    """Write a distilled set as an image."""
    from dd.data.load import load, manifest
    from dd.data.normalise import raw
    from dd.evaluation.io import read_distilled
    from dd.images import write_grid

    distilled = read_distilled(args.file, args.dataset)
    images, labels = distilled.images, distilled.labels
    if distilled.stored is not None:
        images, labels = distilled.stored, labels[:: len(labels) // len(distilled.stored)]
    elif not len(images):
        if args.dataset is None:
            raise ConfigError(f"{args.file}: holds positions, not images; name its prepared dataset with --dataset")
        images = raw(load(args.dataset, "train")[0][distilled.indices])
    out = args.out or args.file.with_suffix(".png")
    write_grid(out, images, labels, span=manifest(args.dataset)["range"] if args.dataset else (0.0, 1.0))
    print(out)
