"""The fused per-class step against the loop that it stands for."""

import pytest
import torch

from dd.optim import PerClassSGD

CLASSES, EACH = 10, 3


def losses(s, targets, labels):
    """Return one loss a class, each of its own rows only, with curvature that differs by class."""
    return [((s[labels == c] - targets[labels == c]) ** 2 * (1 + c)).sum() + s[labels == c].prod() for c in range(CLASSES)]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_it_equals_one_sgd_step_a_class_on_the_shared_tensor(momentum):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    start = torch.randn(CLASSES * EACH, 2, 2, 1, dtype=torch.float64, generator=g)
    targets = torch.randn(20, *start.shape, dtype=torch.float64, generator=g)

    literal = start.clone().requires_grad_(True)
    sgd = torch.optim.SGD([literal], lr=0.003, momentum=momentum)
    for step in range(20):
        with torch.no_grad():
            literal.clamp_(-0.8, 0.8)  # as the loop does: before the first class
        for c in range(CLASSES):
            sgd.zero_grad(set_to_none=True)
            losses(literal, targets[step], labels)[c].backward()
            sgd.step()

    fused = start.clone().requires_grad_(True)
    ours = PerClassSGD([{"params": [fused], "lr": 0.003}], labels, CLASSES, momentum)
    for step in range(20):
        with torch.no_grad():
            fused.clamp_(-0.8, 0.8)
        ours.begin()
        ours.zero_grad(set_to_none=True)
        sum(losses(fused, targets[step], labels)).backward()
        ours.step()

    assert (literal - start).abs().max() > 0.05
    torch.testing.assert_close(fused, literal, rtol=1e-10, atol=1e-10)


def test_a_joint_step_is_another_algorithm():
    labels = torch.arange(2)
    results = []
    for make in (lambda p: PerClassSGD([{"params": [p], "lr": 0.1}], labels, 2, 0.5), lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.5)):
        p = torch.ones(2, 1, requires_grad=True)
        optimizer = make(p)
        for _ in range(3):
            if hasattr(optimizer, "begin"):
                optimizer.begin()
            optimizer.zero_grad()
            (p**2).sum().backward()
            optimizer.step()
        results.append(p.detach())
    assert not torch.allclose(*results, atol=1e-2)


def test_its_long_run_step_is_twice_the_rate():
    """With momentum 0.5 and a constant gradient, ten classes move by 2 * lr * gradient an iteration (specification 9.2)."""
    labels = torch.arange(10)
    p = torch.zeros(10, 1, dtype=torch.float64, requires_grad=True)
    optimizer = PerClassSGD([{"params": [p], "lr": 0.1}], labels, 10, 0.5)
    for _ in range(30):
        before = p.detach().clone()
        optimizer.begin()
        optimizer.zero_grad()
        p.sum().backward()
        optimizer.step()
    torch.testing.assert_close(before - p.detach(), torch.full_like(p, 0.2), rtol=2e-3, atol=0)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_outside_its_range_is_refused(momentum):
    with pytest.raises(ValueError, match="momentum must be in"):
        PerClassSGD([torch.zeros(1)], torch.zeros(1), 1, momentum)
