"""Training loads nothing of torch's compiler; who asks for the compiler gets it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from project import ROOT

TRAIN = """
import sys
import torch
from dd.dynamo import without_dynamo
if len(sys.argv) > 1:
    without_dynamo()
    without_dynamo()
from torch.utils.checkpoint import checkpoint
from dd.optim import PerClassSGD
torch.manual_seed(0)
weight = torch.randn(4, 3, requires_grad=True)
for make in (
    lambda: torch.optim.SGD([weight], lr=0.1, momentum=0.5), lambda: torch.optim.Adam([weight]), lambda: torch.optim.AdamW([weight]),
    lambda: PerClassSGD([{"params": [weight], "lr": 0.1}], torch.tensor([0, 0, 1, 1]), 2, 0.5),
):
    optimizer = make()
    for _ in range(2):
        optimizer.zero_grad()
        for reentrant in (True, False):
            checkpoint(lambda x: (x - 1).square().sum().tanh(), weight, use_reentrant=reentrant).backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print(weight.detach().numpy().tobytes().hex(), "torch._dynamo.eval_frame" in sys.modules)
"""
AFTER = """
import inspect
inspect.stack()
assert torch._dynamo is sys.modules["torch._dynamo"] and "torch._dynamo.eval_frame" not in sys.modules
assert callable(torch._dynamo.optimize)
assert type(torch._dynamo).__name__ == "module" and torch._dynamo.disable.__module__.startswith("torch")
from torch._dynamo import config, eval_frame
assert torch._dynamo is sys.modules["torch._dynamo"] and config is torch._dynamo.config
torch.optim.SGD([weight], lr=0.1).step()
"""
FIT = """
import sys
from dd.device import prepare_process
prepare_process(1)
import torch
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
from dd.networks import build
from dd.train.config import Training
from dd.train.supervised import fit
x, y = torch.zeros(8, 3, 32, 32), torch.arange(8) % 2
net = build("convnet3_in_w8", 3, (32, 32), 2, 0, "test")
fit(net, lambda i: (x[i], y[i]), 8, Training(batch=4), seed=0, names=("test",), first_epoch=0, last_epoch=1, shape=(3, 32, 32), flip=True)
print(*({"torch._dynamo.eval_frame", "torch._inductor", "sympy"} & set(sys.modules)), "end")
"""


def run(code: str, *args: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_is_the_same_and_loads_no_compiler_which_is_there_when_asked_for() -> None:
    trained, loaded = run(TRAIN + AFTER, "without").split()
    assert loaded == "False"
    assert run(TRAIN).split() == [trained, "True"]


def test_networks_are_trained_without_it() -> None:
    assert run(FIT).split() == ["end"]


def test_a_torch_that_has_none_or_has_loaded_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from dd import dynamo

    before = sys.modules.get("torch._dynamo")
    monkeypatch.setattr(dynamo, "NAME", "torch._no_such_module")
    dynamo.without_dynamo()
    assert "torch._no_such_module" not in sys.modules
    monkeypatch.setattr(dynamo, "NAME", "torch.nn")
    dynamo.without_dynamo()
    import torch

    assert type(torch.nn).__name__ == "module"
    assert sys.modules.get("torch._dynamo") is before
