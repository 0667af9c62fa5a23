"""Sources, and extractors of all families, fixed and dynamic, in both modes of normalisation."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.distill import distill
from dd.recipes import dm
from dd.sources.checkpoints import Checkpoints
from dd.sources.extractor import Extractor, needs, source
from dd.sources.population import Population
from dd.train.config import PretrainConfig
from dd.train.pretrain import pretrain
from dd.types import Inputs

FAMILIES = ["convnet3_in_w8", "convnet3_bn_w8", "resnet18_bn_w8", "mlp_w16", "vit_w24_d2"]


def test_a_population_makes_a_network_when_its_first_step_comes():
    made = []
    population = Population(lambda number: made.append(number) or nn.Linear(1, 1), lifetime=3)
    nets = [population.draw(step) for step in range(7)]
    assert made == [0, 1, 2]
    assert nets[0] is nets[2] and nets[2] is not nets[3]
    again = Population(lambda number: made.append(number) or nn.Linear(1, 1), lifetime=3)
    again.draw(5)  # a resumed run starts anywhere
    assert made[-1] == 1


def test_checkpoints_are_drawn_by_seed_and_step_and_loaded_once():
    loaded = []
    files = [Path(str(k)) for k in range(4)]
    draws = lambda seed: [Checkpoints(files, lambda path: path, seed).draw(step) for step in range(40)]  # noqa: E731
    assert draws(0) == draws(0) != draws(1)
    assert set(draws(0)) == set(files)
    source_ = Checkpoints(files, lambda path: loaded.append(path) or path, 0)
    for step in range(40):
        source_.draw(step)
    assert sorted(loaded) == files


@pytest.mark.parametrize(
    ("fields", "seeds"),
    [
        ({"epochs": 0}, "none"),
        ({"epochs": 0, "mode": "fixed"}, "none"),
        ({"epochs": 2, "mode": "fixed"}, None),
        ({"epochs": 2, "pool": 3}, (0, 1, 2)),
        ({"epochs": 2, "supply": "literal"}, "none"),
    ],
)
def test_what_an_extractor_needs(fields, seeds):
    found = needs(Extractor(**fields), "digits")
    if seeds == "none":
        assert found == []
    else:
        (need,) = found
        assert need.seeds == seeds
        assert need.epochs == (2,)


def inputs(digits_dir, paths=()):
    facts = manifest(digits_dir)
    images, labels = load(digits_dir, "train")
    pool = RealPool(images, labels, 10, **facts["lineages"]["dc"])
    return Inputs(digits_dir, facts, 1, 0, "cpu", [list(paths)], lambda: pool)


@pytest.mark.parametrize("norm", ["train", "eval"])
@pytest.mark.parametrize("mode", ["fixed", "dynamic"])
@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("network", FAMILIES)
def test_every_family_works_as_an_extractor(network, epochs, mode, norm, digits_dir, tmp_path):
    extractor = Extractor(network=network, mode=mode, epochs=epochs, norm=norm, pool=2)
    files = []
    if epochs:
        files = [tmp_path / f"{seed}.safetensors" for seed in ((0,) if mode == "fixed" else (0, 1))]
        pretrain(PretrainConfig(dataset=Dataset(name="digits"), network=network), digits_dir, 0, range(len(files)), files)
    drawn = [source(extractor, inputs(digits_dir, files)).draw(step) for step in range(6)]
    assert all(net.training == (norm == "train") for net in drawn)
    assert not any(p.requires_grad for net in drawn for p in net.parameters())
    weights = {round(sum(p.abs().sum().item() for p in net.parameters()), 4) for net in drawn}
    assert len(weights) == {("fixed", 0): 1, ("fixed", 1): 1, ("dynamic", 0): 6, ("dynamic", 1): 2}[mode, epochs]
    recipe = hashed(parse(dm.Config, {"iterations": 2, "batch_real": 4, "extractor": hashed(extractor)}, ""))
    config = DistillConfig(dataset=Dataset(name="digits"), method="dm", ipc=1, recipe=recipe)
    distill(config, digits_dir, [files], 0, tmp_path / "set")
    rows = (tmp_path / "set/curve.csv").read_text().splitlines()
    assert len(rows) == 3 and float(rows[1].split(",")[2]) > 0


def test_a_literal_extractor_is_trained_anew_and_repeatably(digits_dir):
    given = inputs(digits_dir)
    literal = Extractor(network="convnet3_in_w8", epochs=1, supply="literal")
    random = Extractor(network="convnet3_in_w8", epochs=0)
    weight = lambda extractor, step: next(source(extractor, given).draw(step).parameters())  # noqa: E731
    assert not torch.equal(weight(literal, 0), weight(random, 0))  # the same start, trained
    assert not torch.equal(weight(literal, 0), weight(literal, 1))
    assert torch.equal(weight(literal, 1), weight(literal, 1))


def test_a_fixed_extractor_at_epoch_0_is_the_start_of_its_pretraining(digits_dir, tmp_path):
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="mlp_w16"), digits_dir, 0, [0], [tmp_path / "0.safetensors"])
    given = inputs(digits_dir)
    drawn = source(Extractor(network="mlp_w16", mode="fixed"), given).draw(3)
    stored = source(Extractor(network="mlp_w16", mode="fixed", epochs=1), inputs(digits_dir, [tmp_path / "0.safetensors"])).draw(3)
    for one, other in zip(drawn.parameters(), stored.parameters(), strict=True):
        assert torch.equal(one, other)
