"""Training's configuration: checked before anything heavy is imported."""

import subprocess
import sys

import pytest

from dd.config import digest, hashed, parse
from dd.errors import ConfigError
from dd.train.config import PretrainConfig, Training


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
                {"cutmix": 0.5}, {"schedule": "multistep", "epochs": 3}, {"epochs": 4}]  # fmt: skip
    assert {key for variant in variants for key in variant} == set(Training.model_fields)
    ids = [digest(hashed(parse(PretrainConfig, {**base, "training": variant}, "test"))) for variant in variants]
    assert len(set(ids)) == len(ids)
