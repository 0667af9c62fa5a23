"""GLaD's schedule against PyTorch's own schedulers, and the average of weights against a float64 version written from the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dd import networks
from dd.config import parse
from dd.errors import ConfigError
from dd.rng import stream
from dd.train.config import Training
from dd.train.ema import Ema, decay
from dd.train.supervised import fit, rate, resets

SHAPE, CLASSES, N = (1, 8, 8), 3, 10


def schedulers(epochs: int, lr: float) -> list[float]:
    """Return the rate of each epoch as GLaD's loop has it: a pass, a step of the scheduler, and after pass E // 2 the other scheduler."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-7, end_factor=1.0, total_iters=epochs // 2)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs // 2)
    scheduler: torch.optim.lr_scheduler.LRScheduler = rise
    rates = []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        if epoch == epochs // 2:
            scheduler = fall
    return rates


@pytest.mark.parametrize(("epochs", "lr"), [(1000, 1e-3), (1000, 1e-4), (200, 1e-3), (7, 0.5), (6, 0.5), (3, 1.0), (2, 1.0)])
def test_the_rate_is_that_of_pytorchs_schedulers(epochs: int, lr: float) -> None:
    training = Training(schedule="warmup_cosine", epochs=epochs, lr=lr)
    assert [rate(training, epoch) for epoch in range(epochs)] == pytest.approx(schedulers(epochs, lr), rel=1e-6, abs=1e-9 * lr)
    assert not any(resets(training, epoch) for epoch in range(epochs))


def test_the_rate_at_1000_epochs_is_the_published_trace() -> None:
    training = Training(schedule="warmup_cosine", epochs=1000, lr=1e-3)
    trace = {0: 1e-10, 250: 5e-4, 500: 1e-3, 501: 1e-3, 750: 5.03e-4, 999: 4e-8}
    assert {epoch: rate(training, epoch) for epoch in trace} == pytest.approx(trace, rel=0.02)
    assert rate(training, 499) < rate(training, 500) == rate(training, 501) == 1e-3 > rate(training, 502)
    assert rate(training, 1001) == rate(training, 2000) == pytest.approx(0, abs=1e-18), "passes beyond the schedule do not rise again"
    assert [rate(training.model_copy(update={"epochs": 1}), epoch) for epoch in range(2)] == pytest.approx([1e-10, 1e-3])


def test_the_schedule_needs_its_length() -> None:
    with pytest.raises(ConfigError, match=r"here: epochs: .*'warmup_cosine' needs its length"):
        parse(Training, {"schedule": "warmup_cosine"}, "here")


def test_the_decay_is_a_plain_mean_at_first_and_then_beta() -> None:
    found = [decay(0.995, update) for update in range(1000)]
    assert found[:4] == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4])
    assert found[:199] == pytest.approx([1 - 1 / (1 + update) for update in range(199)])
    assert found[198] < found[199] == 0.995
    assert set(found[199:]) == {0.995}
    assert decay(0.5, 3) == 0.5


def network(name: str = "convnet2_bn_w4") -> nn.Module:
    return networks.build(name, 1, SHAPE[1:], CLASSES, 0)


def floats(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.double() for key, value in net.state_dict().items() if value.is_floating_point()}


def train(net: nn.Module, training: Training, first: int = 0, last: int = 8, **more: object) -> object:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, *SHAPE, generator=g), torch.randint(CLASSES, (N,), generator=g)
    more = {"seed": 3, "names": ("test",), "shape": SHAPE, "flip": True, **more}
    return fit(net, lambda i: (x[i], y[i]), N, training, first_epoch=first, last_epoch=last, **more)  # type: ignore[arg-type]


TRAINING = Training(batch=4, augment="oneof", align_corners=True, schedule="warmup_cosine", epochs=8, lr=0.1)


@pytest.mark.parametrize("beta", [0.995, 0.6])
def test_the_average_equals_the_sum_written_out(beta: float) -> None:
    net, seen = network(), []
    average = Ema(net, beta)
    assert all(torch.equal(a, b) for a, b in zip(average.net.state_dict().values(), net.state_dict().values(), strict=True))

    def after(epoch: int) -> None:
        seen.append(floats(net))
        average.update(net)

    train(net, TRAINING, on_epoch=after)
    kept = [min(beta, update / (update + 1)) for update in range(8)]
    shares = [(1 - kept[t]) * math.prod(kept[t + 1 :]) for t in range(8)]
    assert sum(shares) == pytest.approx(1)
    if beta == 0.995:
        assert shares == pytest.approx([1 / 8] * 8)
    for key, value in floats(average.net).items():
        expected = sum(share * state[key] for share, state in zip(shares, seen, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    last = floats(net)
    assert any((value - last[key]).abs().max() > 1e-4 for key, value in floats(average.net).items() if "running" not in key)
    assert any((value - last[key]).abs().max() > 1e-3 for key, value in floats(average.net).items() if "running" in key)
    counters = [key for key in net.state_dict() if key.endswith("num_batches_tracked")]
    assert counters
    assert all(average.net.state_dict()[key] == 24 for key in counters), "as many as the network saw"


def test_the_average_is_a_network_of_its_own_that_does_not_train() -> None:
    net = network()
    average = Ema(net, 0.9)
    average.update(net)
    before = floats(average.net)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in floats(average.net).items())
    assert not average.net.training
    assert net.training
    assert not any(p.requires_grad for p in average.net.parameters())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", ["convnet2_bn_w4", "vit_p4_none_d2_w16"])
def test_averaging_does_not_change_the_training(name: str) -> None:
    plain, watched = network(name), network(name)
    average = Ema(watched, 0.995)
    x = torch.randn(4, *SHAPE, generator=stream(0))

    def after(epoch: int) -> None:
        average.update(watched)
        average.net(x)

    state = torch.get_rng_state()
    train(plain, TRAINING)
    train(watched, TRAINING, on_epoch=after)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True))


def test_continuing_under_the_schedule_equals_an_uninterrupted_training_bitwise() -> None:
    whole = network()
    train(whole, TRAINING)
    for milestone in range(1, 8):
        net = network()
        before = train(net, TRAINING, 0, milestone)
        train(net, TRAINING, milestone, 8, momentum=before.momentum)  # type: ignore[attr-defined]
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), whole.state_dict().values(), strict=True)), milestone
