"""Training's configuration: checked before anything heavy is imported."""

import subprocess
import sys

import pytest

from dd.config import digest, hashed, parse
from dd.errors import ConfigError
from dd.train.config import ExpertConfig, Experts, PretrainConfig, Training, expert_need


def test_nothing_heavy_is_imported():
    code = "import sys, dd.train.config; assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("fields", "key", "word"),
    [
        ({"strategy": "colr_crop", "augment": "oneof"}, "strategy", "'color'"),
        ({"strategy": ""}, None, None),
        ({"strategy": "", "augment": "stack"}, "strategy", "policy 'none'"),
        ({"schedule": "multistep"}, "epochs", "length"),
        ({"schedule": "thirds"}, "epochs", "length"),
        ({"schedule": "halfway_reset", "epochs": 0}, "epochs", "length"),
        ({"schedule": "halfway_reset", "epochs": 1}, None, None),
        ({"batch": 0}, "batch", "greater than"),
        ({"cutmix": 1.5}, "cutmix", "less than"),
        ({"augment": "dsa"}, "augment", "'oneof'"),
        ({"lr": "1e-2"}, "lr", "0.01"),
        ({"epoch": 3}, "epoch", "'epochs'"),
    ],
)
def test_mistakes_are_named(fields, key, word):
    if key is None:
        parse(Training, fields, "file.yaml")
        return
    with pytest.raises(ConfigError) as caught:
        parse(Training, fields, "file.yaml")
    assert f"file.yaml: {key}:" in str(caught.value)
    assert word in str(caught.value)


def test_every_field_is_part_of_the_id():
    base = {"dataset": {"name": "digits"}, "network": "convnet3_in"}
    variants = [{}, {"lr": 0.02}, {"momentum": 0.5}, {"weight_decay": 0.0}, {"batch": 64}, {"augment": "oneof"}, {"strategy": "crop"},
                {"cutmix": 0.5}, {"schedule": "multistep", "epochs": 3}, {"epochs": 4}, {"align_corners": True}]  # fmt: skip
    assert {key for variant in variants for key in variant} == set(Training.model_fields)
    ids = [digest(hashed(parse(PretrainConfig, {**base, "training": variant}, "test"))) for variant in variants]
    assert len(set(ids)) == len(ids)


def test_what_was_added_does_not_move_ids():
    base = {"dataset": {"name": "digits"}, "network": "convnet3_in"}
    plain = {"stage": "pretrain", "version": 1, "dataset": {"name": "digits", "fingerprint": None}, "network": "convnet3_in"}
    training = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "none", "strategy": None, "cutmix": 0.0,
                "schedule": "constant", "epochs": 0}  # fmt: skip
    assert hashed(parse(PretrainConfig, base, "test")) == {**plain, "training": training}
    ids = {digest(hashed(parse(PretrainConfig, {**base, **more}, "test"))) for more in ({}, {"lineage": "zca"}, {"split": "fit"})}
    assert len(ids) == 3


EXPERT = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "batch": 256, "augment": "oneof", "strategy": None, "cutmix": 0.0,
          "schedule": "constant", "epochs": 0, "align_corners": True}  # fmt: skip


def test_experts_are_the_papers():
    config = parse(ExpertConfig, {"dataset": {"name": "cifar10"}}, "test")
    assert hashed(config) == {
        "stage": "experts", "version": 1, "dataset": {"name": "cifar10", "fingerprint": None}, "network": "convnet3_in", "epochs": 50,
        "images": None, "training": EXPERT, "lineage": "dc", "split": "train",
    }  # fmt: skip
    assert hashed(Experts()) == {"network": "convnet3_in", "count": 100, "epochs": 50, "images": None, "training": EXPERT}
    only = parse(Experts, {"training": {"lr": 0.02}}, "test")
    assert hashed(only.training) == {**EXPERT, "lr": 0.02}, "what is not given is an expert's, not that of any training"


def test_what_a_recipe_asks_for_is_an_expert_configuration():
    experts = parse(Experts, {"count": 3, "epochs": 4, "images": 20, "network": "convnet3_bn_w8"}, "test")
    need = expert_need(experts, "digits", "zca")
    assert (need.kind, need.dataset, need.network, need.lineage) == ("experts", "digits", "convnet3_bn_w8", "zca")
    assert (need.seeds, need.epochs) == ((0, 1, 2), (4,))
    assert need.config == {"network": "convnet3_bn_w8", "epochs": 4, "images": 20, "training": EXPERT}
    config = parse(ExpertConfig, {"dataset": {"name": "digits"}, "lineage": need.lineage, **need.config}, "test")
    assert hashed(config)["training"] == EXPERT
    more = expert_need(experts.model_copy(update={"count": 9}), "digits", "zca")
    assert more.config == need.config, "more experts are not other experts"


@pytest.mark.parametrize(
    ("wrong", "key"),
    [({"count": 0}, "count"), ({"epochs": 0}, "epochs"), ({"images": 0}, "images"), ({"training": {"momentum": 1.0}}, "training.momentum"),
     ({"training": {"weight_decay": -1.0}}, "training.weight_decay"), ({"training": {"augment": "dsa"}}, "training.augment"),
     ({"imags": 3}, "imags")],
)  # fmt: skip
def test_mistakes_in_experts_are_named(wrong, key):
    with pytest.raises(ConfigError, match=f"here: {key}: "):
        parse(Experts, wrong, "here")
