"""The protocols: what they fix, and that the planner can read them."""

import subprocess
import sys

import pytest

from dd import evaluation
from dd.config import hashed, parse
from dd.errors import ConfigError
from dd.plan import code
from dd.train.config import Training
from dd.train.supervised import rate, resets


def test_listing_them_imports_nothing_heavy():
    program = (
        "import sys; from dd import evaluation\n"
        "for name in evaluation.names(): evaluation.config_of(name)(); evaluation.module_of(name)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_evaluation_sees_no_method():
    for module in ("dd.evaluation.run", "dd.evaluation.io", *map(evaluation.module_of, evaluation.names())):
        parts = {name.split(".")[1] for name in code.closure([module]) if "." in name}
        assert not parts & {"objectives", "sources", "recipes", "distill", "select", "parameterizations", "plan", "figures", "batches"}


def test_importing_evaluation_imports_no_method():
    program = (
        "import sys, dd.evaluation.run, dd.evaluation.io\n"
        "from dd import evaluation; evaluation.names()\n"
        "bad = [m for m in sys.modules if m.startswith(('dd.objectives', 'dd.sources', 'dd.recipes', 'dd.distill', 'dd.select'))]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


LATER = {"align_corners", "optimizer"}  # fields that older protocols' ids have only where they are set
OWN = {
    "elf": {"features", "stage", "task", "front", "rear", "distance", "align_corners"},
    "glad": {"align_corners", "ema"},
    "glad_short": {"align_corners", "ema"},
    **{name: {"optimizer", "teacher", "temperature", "view", "mix"} for name in ("sre2l", "sre2l_cifar", "sre2l_short")},
}


def test_every_protocol_is_a_training_with_readings():
    for name in evaluation.names():
        config = evaluation.config_of(name)()
        assert isinstance(config, Training)
        assert set(hashed(config)) == {*Training.model_fields, "extra_passes", "readings"} - LATER | OWN.get(name, set())
        assert config.learned_lr is False
        assert config.replicas == 1
        assert hashed(parse(type(config), {"learned_lr": True}, "test")) == {**hashed(config), "learned_lr": True}
        assert evaluation.module_of(name).startswith("dd.evaluation.protocols.")


def test_dc_is_the_papers():
    config = evaluation.config_of("dc")()
    assert hashed(config) == {
        "epochs": 1000, "extra_passes": 1, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "oneof",
        "strategy": None, "cutmix": 0.0, "schedule": "halfway_reset", "readings": 1,
    }  # fmt: skip
    passes = range(config.epochs + config.extra_passes)
    assert sum(rate(config, epoch) == 0.01 for epoch in passes) == 502
    assert sum(rate(config, epoch) == pytest.approx(0.001) for epoch in passes) == 499
    assert [epoch for epoch in passes if resets(config, epoch)] == [502]
    assert hashed(evaluation.config_of("dc_short")()) == {**hashed(config), "epochs": 200}


def test_idc_is_the_papers():
    config = evaluation.config_of("idc")()
    assert hashed(config) == {
        "epochs": 1500, "extra_passes": 0, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 64, "augment": "stack",
        "strategy": None, "cutmix": 0.5, "schedule": "multistep", "readings": 4,
    }  # fmt: skip


def test_clom_validate_is_the_released_code():
    config = evaluation.config_of("clom_validate")()
    assert hashed(config) == {
        "epochs": 1000, "extra_passes": 0, "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "oneof",
        "strategy": None, "cutmix": 0.0, "schedule": "constant", "readings": 20,
    }  # fmt: skip
    assert {rate(config, epoch) for epoch in range(1000)} == {0.01}


def test_elf_is_dc_with_features():
    config = evaluation.config_of("elf")()
    assert hashed(config) == {
        **hashed(evaluation.config_of("dc")()), "stage": None, "task": 1.0, "front": 1.0, "rear": 1.0, "distance": "ce",
        "align_corners": True,
        "features": {
            "network": "convnet3_in_w512", "epochs": 100, "stage": None,
            "training": {
                "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256, "augment": "oneof", "strategy": None, "cutmix": 0.0,
                "schedule": "halfway_reset", "epochs": 200, "align_corners": True,
            },
        },
    }  # fmt: skip
    assert {name for name in evaluation.names() if evaluation.config_of(name)().align_corners} == {"elf", "glad", "glad_short"}
    assert hashed(parse(type(config), {"align_corners": False}, "test")) == {**hashed(config), "align_corners": False}
    training = config.features.training
    assert {rate(training, epoch) for epoch in range(102)} == {0.01}, "all epochs that are used are before the rate falls"
    assert rate(training, 102) == pytest.approx(0.001)


@pytest.mark.parametrize("name", sorted(set(evaluation.names()) - {"elf", "sre2l", "sre2l_cifar", "sre2l_short"}))
def test_most_protocols_need_nothing_and_take_any_network(name):
    protocol = evaluation.config_of(name)()
    assert protocol.needs("cifar10", "dc", "train") == []
    assert protocol.check("mlp", (3, 32, 32), 10) is None
    assert protocol.lessons([], {}, lambda index: (index, index), 1, "cpu") is None


@pytest.mark.parametrize("name", evaluation.names())
@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"epochs": -1}, {"batch": 0}, {"readings": 0}, {"extra_passes": -1}, {"cutmix": 2.0}, {"augment": "dsa"},
              {"strategy": "crop_crop"}, {"epoch": 3}]
)  # fmt: skip
def test_mistakes_in_settings_are_named(name, wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}: "):
        parse(evaluation.config_of(name), wrong, "here")


def test_an_unknown_protocol_has_a_nearest():
    with pytest.raises(ConfigError, match="did you mean 'dc_short'"):
        evaluation.config_of("dc_shrt")
    with pytest.raises(ConfigError, match="allowed: clom_validate, dc, dc_short, elf, glad, glad_short, idc"):
        evaluation.module_of("x")
