"""Every method, the training of experts and of students: the fast path against the plain one, from one seed.

The two differ in rounding alone. In float64 that is all there is to see: three updates report the same losses and norms of gradients to a
relative 1e-9, and change the images alike to 1e-8 of that change (measured: 1e-14 with ConvNets, 1e-10 with ResNets). In float32, where
other kernels run, both are 1e-3 (measured: 1e-5 at the median, 4e-4 at most); but for ResNets only the loss of the first update is compared.
Their last stages have 2x2 pixels here, and rounding grows a hundredfold with each update: a plain run whose images are off by 1e-7 goes astray
by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from dd import evaluation, fast, networks, recipes
from dd.artifacts import load_tensors, read_json, save_tensors, write_json
from dd.config import digest, hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest, pool
from dd.data.pool import RealPool
from dd.distill import Loop
from dd.evaluation.run import evaluate
from dd.sources.trajectories import Trajectories
from dd.train.config import ExpertConfig, PretrainConfig, Training
from dd.train.experts import experts
from dd.train.gan import train
from dd.train.gan_config import GanConfig
from dd.train.pretrain import pretrain
from dd.train.supervised import fit
from dd.types import DistilledSet, Inputs, Need

SELECTING = {"random", "herding", "kcenter", "whole"}  # they update nothing
IN, BN, RESNET = "convnet3_in_w8", "convnet3_bn_w8", "resnet18_in_w8"
DYNAMIC = {"probe": 8, "window": 2, "lambda1": 0.1, "lambda2": 0.04, "updates_max": 2, "inner_max": 2, "lr": 0.1}
EXPERTS = {"network": IN, "count": 1, "epochs": 2, "images": 20, "training": {"lr": 0.05, "batch": 64}}
WALK = {"syn_steps": 3, "expert_span": 1, "max_start": 1, "step_size": 0.05, "experts": EXPERTS}
LATENT = {"settings": {"extractor": {"network": IN}, "batch_real": 16}, "generator": {"name": "mini_w16", "epochs": 0}, "average": 4}
CASES: list[tuple[str, dict[str, Any]]] = [
    *(("dm", {"extractor": {"network": network}}) for network in (IN, BN, RESNET, "resnet18_bn_w8")),
    *((method, {"network": network, "outer": 2, "inner": 2}) for method in ("dc", "dsa") for network in (IN, BN)),
    *(("mtt", {**WALK, "unroll": unroll}) for unroll in ("adjoint", "checkpoint", "full")),
    ("mtt", {**WALK, "experts": {**EXPERTS, "network": "resnet18_bn_w8"}, "syn_steps": 2}),
    ("tesla", {**WALK, "soft_labels": True}),
    ("idm", {"network": IN, "size": 2, "train_steps": 2, "train_batch": 32}),
    ("m3d", {"network": IN, "lr_img": 1.0}),
    ("m3d", {"network": RESNET, "lr_img": 0.1}),
    *(("dsdm", {"extractor": {"network": network, "epochs": 0}, "history_start": 0}) for network in (IN, BN)),
    ("dsdm", {"extractor": {"network": IN, "epochs": 1, "pool": 2}, "lr_img": 0.1}),
    ("cafe", {"extractor": {"network": IN, **DYNAMIC}}),
    ("cafe_dsa", {"extractor": {"network": BN, **DYNAMIC}}),
    ("sre2l", {"squeeze": {"network": BN, "epochs": 1, "training": {"lr": 0.05, "batch": 64, "epochs": 1}}}),
    ("glad", {**LATENT, "cut": 2}),
    ("hpd", {**LATENT, "cuts": [0, 3], "keep": "last"}),
]


@contextmanager
def float64() -> Iterator[None]:
    """Let everything be computed in float64: pixels, draws, networks, and from where experts start."""
    pixels, rows = RealPool.raw, Trajectories._rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RealPool, "raw", lambda self, index: pixels(self, index).double())
        patch.setattr(Trajectories, "_rows", lambda self, *which: [row.double() for row in rows(self, *which)])
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def computed(precision: str) -> AbstractContextManager[None]:
    return float64() if precision == "float64" else nullcontext()


def supply(need: Need, dataset: Path, folder: Path) -> list[Path]:
    """Make the files of a need once, on the fast path: both runs look through the same ones."""
    about = {"dataset": {"name": "digits"}, "lineage": need.lineage}
    seeds = list(need.seeds or (0,))
    files = [folder / f"{need.kind}-{need.network}-{digest(need.config)}-{seed}.safetensors" for seed in seeds]
    if all(file.exists() for file in files):
        return files
    if need.kind == "generator":
        train(GanConfig(dataset=Dataset(name="digits"), generator=need.network), dataset, *need.epochs, files[0])
    elif need.kind == "experts":
        experts(parse(ExpertConfig, {**about, **need.config}, "experts"), dataset, seeds, files)
    else:
        pretrain(
            parse(PretrainConfig, {**about, "network": need.network, "training": need.config}, "test"), dataset, *need.epochs, seeds, files
        )
    return files


@pytest.fixture(scope="module")
def colours(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return digits of three channels: networks take images of one channel on the plain path."""
    out = tmp_path_factory.mktemp("colours")
    facts = {**read_json(digits_dir / "manifest.json"), "channels": 3}
    facts["lineages"] = {name: {key: value * 3 for key, value in both.items()} for name, both in facts["lineages"].items()}
    for split in ("train", "test"):
        tensors, meta = load_tensors(digits_dir / f"{split}.safetensors")
        images = tensors["images"]
        save_tensors(out / f"{split}.safetensors", {**tensors, "images": torch.cat([images, 255 - images, images // 2], 1)}, meta)
    write_json(out / "manifest.json", facts)
    return out


@pytest.fixture(scope="module")
def needed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("needed")


def descended(
    method: str, fields: dict[str, Any], precision: str, dataset: Path, needed: Path, state: Path
) -> tuple[list[dict[str, float]], Tensor, Tensor]:
    """Return what three updates of a method report, and the images before and after them."""
    recipe = recipes.load(method)
    given = {"iterations": 3, "batch_real": 16, **fields}
    given = {key: value for key, value in given.items() if key in recipe.Config.model_fields}
    config = parse(recipe.Config, recipe.complete(given, "digits", 2) if hasattr(recipe, "complete") else given, method)
    about = DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=2, recipe=hashed(config))
    own, _ = recipes.needs_of(about, "digits")
    paths = [supply(need, dataset, needed) for need in own]
    real = pool(dataset, "train", recipes.lineage_of(recipe, config), "cpu")
    with computed(precision):
        run = recipe.build(config, Inputs(dataset, manifest(dataset), 2, 0, "cpu", paths, lambda: real))
        before = run.finish().images.clone()
        loop = Loop(run, state / "state.safetensors", {})
        assert loop.descend(lambda: False, 1e9, lambda step: None) is None
        return loop.rows, before, run.finish().images


def apart(one: Tensor, other: Tensor) -> float:
    """Return how far two tensors are from each other, relative to the size of the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    words = [value for value in (case[1].get("unroll"), *_networks(case[1])) if value]
    return "-".join([case[0], *words])


def _networks(fields: dict[str, Any]) -> Iterator[str]:
    for key, value in fields.items():
        if key == "network":
            yield value
        elif isinstance(value, dict):
            yield from _networks(value)


def test_no_method_is_left_out() -> None:
    assert {method for method, _ in CASES} == set(recipes.names()) - SELECTING


def test_the_two_paths_are_two() -> None:
    images = torch.zeros(1, 1, 4, 4)
    assert fast.active(images)
    with fast.plain():
        assert not fast.active(images)
    assert fast.active(images)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_three_updates_are_the_same_on_both_paths(
    case: tuple[str, dict[str, Any]], precision: str, colours: Path, needed: Path, tmp_path: Path
) -> None:
    rows, start, images = descended(*case, precision, colours, needed, tmp_path)
    with fast.plain():
        plain_rows, plain_start, plain_images = descended(*case, precision, colours, needed, tmp_path)
    assert images.dtype == getattr(torch, precision)
    assert len(rows) == len(plain_rows) == 3
    assert torch.allclose(start, plain_start, rtol=0, atol=1e-5)
    assert not torch.equal(images, start)
    if precision == "float32" and "resnet" in name_of(case):
        assert rows[0]["loss"] == pytest.approx(plain_rows[0]["loss"], rel=1e-4)
        return
    close, alike = (1e-9, 1e-8) if precision == "float64" else (1e-3, 1e-3)
    for row, plain in zip(rows, plain_rows, strict=True):
        for fact in ("loss", "grad_norm"):
            assert row[fact] == pytest.approx(plain[fact], rel=close), (row["step"], fact)
    assert apart(images - start, plain_images - plain_start) < alike
    if IN in name_of(case):
        assert not torch.equal(images, plain_images), "one path was taken twice"


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("network", [IN, BN, RESNET, "resnet18_bn_w8"])
def test_a_training_is_the_same_on_both_paths(network: str, precision: str, colours: Path) -> None:
    real = pool(colours, "train", "dc", "cpu")
    training = parse(Training, {"lr": 0.01, "batch": 32, "augment": "oneof"}, "test")
    epochs = 1 if precision == "float32" and "resnet" in network else 2

    def trained() -> tuple[float, Tensor, Tensor]:
        net = networks.build(network, 3, (16, 16), 10, 0, "test")
        before = parameters_to_vector(net.parameters()).detach().clone()
        ended = fit(
            net, lambda index: (real.x(index), real.y(index)), 96 if epochs == 2 else 32, training, seed=0, names=("test",),
            first_epoch=0, last_epoch=epochs, shape=(3, 16, 16), flip=False,
        )  # fmt: skip
        return ended.loss, before, parameters_to_vector(net.parameters()).detach()

    with computed(precision):
        loss, before, after = trained()
        with fast.plain():
            plain_loss, plain_before, plain_after = trained()
    assert torch.equal(before, plain_before) and after.dtype == getattr(torch, precision)
    close, alike = (1e-9, 1e-6) if precision == "float64" else (1e-4, 1e-3)
    assert loss == pytest.approx(plain_loss, rel=close)
    assert apart(after - before, plain_after - before) < alike


def test_experts_are_the_same_on_both_paths(colours: Path, tmp_path: Path) -> None:
    config, rows = parse(ExpertConfig, {"dataset": {"name": "digits"}, **{k: v for k, v in EXPERTS.items() if k != "count"}}, "experts"), []
    for name in ("fast", "plain"):
        file = tmp_path / f"{name}.safetensors"
        if name == "plain":
            with fast.plain():
                experts(config, colours, [0], [file])
        else:
            experts(config, colours, [0], [file])
        rows.append(load_tensors(file)[0]["trajectory"])
    assert torch.equal(rows[0][0], rows[1][0])
    assert apart(rows[0][1:] - rows[0][0], rows[1][1:] - rows[1][0]) < 1e-3


@pytest.mark.parametrize("protocol", ["dc_short", "idc"])
def test_a_student_is_the_same_on_both_paths(protocol: str, colours: Path) -> None:
    real = pool(colours, "train", "dc", "cpu")
    labels = torch.arange(10).repeat_interleave(2)
    chosen = torch.cat([real.of_class(c)[:2] for c in range(10)])
    distilled = DistilledSet(real.raw(chosen), labels, *real.statistics)
    rules = parse(evaluation.config_of(protocol), {"epochs": 2}, protocol)
    (score,) = evaluate(distilled, IN, protocol, rules, colours, 0, [0])
    with fast.plain():
        (plain,) = evaluate(distilled, IN, protocol, rules, colours, 0, [0])
    assert score.accuracy_last == pytest.approx(plain.accuracy_last, abs=0.003)  # of 360 images one may lie on a border
