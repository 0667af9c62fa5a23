"""What the verbs that rules call do: read the configuration, call one function of the library, note the run's facts."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from dd.config import load_yaml, parse
from dd.device import device_of, prepare_process
from dd.errors import ConfigError
from dd.provenance import noted
from dd.states import continued, states_of
from dd.stopping import Stopper

WORKFLOW = Path("workflow")


def _config(path: str) -> dict[str, Any]:
    """Read a configuration: JSON from standard input or a file that ends in .json, or a YAML file."""
    if path != "-" and not path.endswith(".json"):
        return load_yaml(path)
    where = "standard input" if path == "-" else path
    try:  # not as YAML, for which 1e-05 is text
        data = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: must be a JSON object")
    return data


def _required(config: dict[str, Any], key: str) -> Any:
    if key not in config:
        raise ConfigError(f"configuration: {key} is missing; it has {', '.join(config) or 'nothing'}")
    return config[key]


def download(args: Namespace) -> None:
    """Fetch the files of a dataset."""
    from dd.data.download import download as fetch

    config = _config(args.config)
    with noted(args.out / "run.json"):
        fetch(_required(config, "dataset"), args.out)


def prepare(args: Namespace) -> None:
    """Prepare a dataset."""
    from dd.data.config import DatasetConfig
    from dd.data.prepare import prepare as make

    config = parse(DatasetConfig, _config(args.config), f"dataset {args.name}")
    with noted(args.out / "run.json"):
        make(args.name, config, args.raw, args.out)


def whiten(args: Namespace) -> None:
    """Fit the whitening of a prepared dataset."""
    from dd.data.whiten import whiten as fit

    prepare_process(args.threads)
    with noted(args.out.with_suffix(".run.json")):
        fit(args.dataset, args.out)


def teacher(args: Namespace) -> None:
    """Bring a teacher's weights into our own form."""
    from dd.teachers import install

    config = _config(args.config)
    with noted(args.out.with_suffix(".run.json")):
        install(_required(config, "teacher"), args.file, config.get("sha256"), args.out)


def experts(args: Namespace) -> None:
    """Train a block of experts and keep their trajectories."""
    from dd.train.config import ExpertConfig
    from dd.train.experts import experts as train

    config = parse(ExpertConfig, _config(args.config), "experts")
    device, note = device_of(args.device, args.threads), args.out[0].with_suffix(".run.json")
    states = states_of(args.out)
    with Stopper(args.stop_after) as stop, continued(states, args.code) as went, noted(note, device, seeds=args.seeds, **went):
        train(config, args.dataset, args.seeds, args.out, device=device, stop=stop)


def pretrain(args: Namespace) -> None:
    """Train a block of networks from one milestone to the next."""
    from dd.train.config import PretrainConfig
    from dd.train.pretrain import pretrain as train

    config = parse(PretrainConfig, _config(args.config), "pretrain")
    device, note = device_of(args.device, args.threads), args.out[0].with_suffix(".run.json")
    states = states_of(args.out)
    with Stopper(args.stop_after) as stop, continued(states, args.code) as went, noted(note, device, seeds=args.seeds, **went):
        train(
            config, args.dataset, args.epoch, args.seeds, args.out, args.previous or None, args.previous_epoch,
            device=device, stop=stop,
        )  # fmt: skip


def generator(args: Namespace) -> None:
    """Train a generator from one milestone to the next."""
    from dd.train.gan import train
    from dd.train.gan_config import GanConfig

    config = parse(GanConfig, _config(args.config), "generator")
    device = device_of(args.device, args.threads)
    note, states = args.out.with_suffix(".run.json"), states_of([args.out])
    with Stopper(args.stop_after) as stop, continued(states, args.code) as went, noted(note, device, **went):
        train(
            config, args.dataset, args.epoch, args.out, args.previous, args.previous_epoch, device=device, stop=stop,
        )  # fmt: skip


def quality(args: Namespace) -> None:
    """Measure one milestone of a generator."""
    from dd.analysis.gan_config import QualityConfig
    from dd.analysis.gan_job import measure

    config = parse(QualityConfig, _config(args.config), "quality")
    device = device_of(args.device, args.threads)
    with noted(args.out.with_suffix(".run.json"), device):
        measure(config, args.generator, args.classifier, args.dataset, args.out, device=device)


def generator_file(args: Namespace) -> None:
    """Check a generator that its user converted, and install it."""
    from dd.generators.files import install

    config = _config(args.config)
    with noted(args.out.with_suffix(".run.json")):
        install(_required(config, "generator"), args.file, config.get("sha256"), args.out)


def distill(args: Namespace) -> None:
    """Distil one set."""
    from dd.analysis.gates import demand
    from dd.artifacts import read_json
    from dd.config.stages import DistillConfig
    from dd.distill import distill as descend

    config = parse(DistillConfig, _config(args.config), "distill")
    demand(args.quality)
    device = device_of(args.device, args.threads)
    epoch = None if args.choice is None else int(read_json(args.choice)["value"])
    states = [args.out / ".resume" / "state.safetensors"]
    with Stopper(args.stop_after) as stop, continued(states, args.code) as went, noted(args.out / "run.json", device, **went) as facts:
        facts["resumed"] = descend(
            config, args.dataset, args.need, args.seed, args.out, epoch=epoch,
            device=device, stop=stop, save_every=args.save_every,
        )  # fmt: skip


def evaluate(args: Namespace) -> None:
    """Train networks on one set and write their scores."""
    from dd.artifacts import discard
    from dd.choose import chosen_step
    from dd.config.stages import EvaluateConfig
    from dd.evaluation import config_of
    from dd.evaluation.io import check_identity, read_distilled, write_scores
    from dd.evaluation.run import evaluate as judge

    config = parse(EvaluateConfig, _config(args.config), "evaluate")
    settings = parse(config_of(config.protocol), config.settings, f"protocol {config.protocol}")
    device = device_of(args.device, args.threads)
    first, last = args.nets
    note, (state,) = args.out.with_suffix(".run.json"), states_of([args.out])
    with Stopper(args.stop_after) as stop, continued([state], args.code) as went, noted(note, device, **went):
        path = chosen_step(args.distilled, config.step, args.choice)
        check_identity(path, config.distilled)
        distilled = read_distilled(path, args.dataset)
        scores = judge(
            distilled, config.network, config.protocol, settings, args.dataset, args.set, range(first, last + 1), split=config.split,
            needs=args.need, device=device, stop=stop, state=state,
        )  # fmt: skip
        write_scores(args.out, config.model_dump(mode="json"), scores)
        discard(state)


def choose(args: Namespace) -> None:
    """Pick a value from the results of its candidates."""
    from dd.choose import choose as pick

    config = _config(args.config)
    for key in ("files", "criterion", "split"):
        _required(config, key)
    with noted(args.out.with_suffix(".run.json")):
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
    device = device_of(args.device, args.threads)
    with noted(args.out.with_suffix(".run.json"), device):
        make = {"embeddings": embeddings, "models": models, "accuracy": accuracy, "cams": cams}[config.kind]
        make(config, args.dataset, args.distilled, args.checkpoint, args.out, device=device)


def artifact(args: Namespace) -> None:
    """Draw one paper."""
    from dd.figures.paper import draw_paper
    from dd.plan import Plan
    from dd.plan.papers import Settings

    plan = Plan(parse(Settings, _config(args.config), "config.yaml"), WORKFLOW)
    with noted(args.out / "run.json"):
        draw_paper(plan.drawing(args.paper), args.out)


def report(args: Namespace) -> None:
    """Write the report and the index."""
    from dd.plan import Plan
    from dd.plan.papers import Settings
    from dd.plan.summary import write

    plan = Plan(parse(Settings, _config(args.config), "config.yaml"), WORKFLOW)
    with noted(args.out.with_suffix(".run.json")):
        write(plan, args.out)
