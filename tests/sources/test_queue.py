"""The queue against a literal simulation with dictionaries."""

import pytest
import torch
import torch.nn.functional as F

from dd import networks
from dd.rng import stream
from dd.sources.queue import Queue
from dd.types import Batch

CLASSES = 3
RULE = {"size": 5, "grow_every": 3, "fetch": 2, "train_steps": 2, "train_batch": 6, "reset_every": 4}


def make(number, name="convnet3_in_w8"):
    return networks.build(name, 1, (16, 16), CLASSES, 0, "queue", number)


class Real:
    """Real batches that are a function of the step and the call."""

    def __init__(self, step):
        self.step, self.calls = step, 0

    def real(self, n):
        g = stream(1, self.step, self.calls)
        self.calls += 1
        y = torch.randint(CLASSES, (n,), generator=g)
        return Batch(torch.randn(n, 1, 16, 16, generator=g) + y.view(-1, 1, 1, 1), y)


def run(queue, steps, first=0):
    seen = []
    for step in range(first, steps):
        net = queue.draw(step)
        seen.append((next(net.parameters()).clone(), float(queue.accuracy), net.training))
        queue.advance(net, Real(step))
    return seen


def simulate(steps, seed=0):
    """Do the same with plain lists: which networks there are, their weights, momentum by hand, hits and trials."""
    nets, born, seen = [], 0, []
    for step in range(steps):
        joining = 3 + 1 if step == 0 else int(step % RULE["grow_every"] == 0)
        for _ in range(joining):
            if len(nets) == RULE["size"]:
                del nets[0]
            nets.append({"net": make(born), "v": {}, "hits": 0, "trials": 0})
            born += 1
        one = nets[int(torch.randint(len(nets), (), generator=stream(seed, "queue", step)))]
        seen.append((next(one["net"].parameters()).clone(), one["hits"] / one["trials"] if one["trials"] else 0.0, False))
        real = Real(step)
        for which in torch.randperm(len(nets), generator=stream(seed, "fetch", step))[: RULE["fetch"]].tolist():
            one = nets[which]
            for _ in range(RULE["train_steps"]):
                batch = real.real(RULE["train_batch"])
                one["net"].train()
                logits = one["net"](batch.x)
                grads = torch.autograd.grad(F.cross_entropy(logits, batch.y), list(one["net"].parameters()))
                one["hits"] += int((logits.argmax(1) == batch.y).sum())
                one["trials"] += len(batch.y)
                with torch.no_grad():
                    for p, g in zip(one["net"].parameters(), grads, strict=True):
                        v = 0.9 * one["v"].get(p, torch.zeros_like(p)) + g + 5e-4 * p
                        one["v"][p] = v
                        p -= 0.01 * v
        if (step + 1) % RULE["reset_every"] == 0:
            for one in nets:
                one["hits"] = one["trials"] = 0
    return seen


def test_it_equals_a_literal_simulation():
    found, expected = run(Queue(make, 0, **RULE), 14), simulate(14)
    for (weights, accuracy, training), (wanted, share, _) in zip(found, expected, strict=True):
        torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=1e-6)
        assert accuracy == pytest.approx(share)
        assert not training
    assert {accuracy for _, accuracy, _ in found} > {0.0}, "some that are looked through must have been trained"


def test_it_grows_to_its_size_and_the_oldest_leave():
    queue = Queue(make, 0, **RULE)
    sizes = []
    for step in range(10):
        queue.draw(step)
        sizes.append([member.born for member in queue.members])
        queue.advance(queue.members[0].net, Real(step))
    assert sizes[0] == [0, 1, 2, 3]  # three, and the one that joins in step 0
    assert sizes[3] == [0, 1, 2, 3, 4] and sizes[6] == [1, 2, 3, 4, 5] and sizes[9] == [2, 3, 4, 5, 6]


def test_accuracies_are_forgotten_together():
    queue = Queue(make, 0, **{**RULE, "reset_every": 2, "fetch": 5})
    for step in range(2):
        queue.draw(step)
        queue.advance(queue.members[0].net, Real(step))
        assert all((member.seen > 0) == (step == 0) for member in queue.members)


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8"])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_it_goes_on_from_its_state(name, stop):
    named = lambda number: make(number, name)  # noqa: E731
    whole = run(Queue(named, 0, **RULE), 10)
    first = Queue(named, 0, **RULE)
    run(first, stop)
    state = {key: value.clone() for key, value in first.state_dict().items()}
    second = Queue(named, 0, **RULE)
    second.load_state_dict(state)
    rest = run(second, 10, stop)
    for (weights, accuracy, _), (wanted, share, _) in zip(rest, whole[stop:], strict=True):
        assert torch.equal(weights, wanted) and accuracy == share


def test_nobody_trains_through_the_network_that_is_looked_through():
    queue = Queue(make, 0, **RULE)
    net = queue.draw(0)
    assert not any(p.requires_grad for p in net.parameters())
    queue.advance(net, Real(0))
    assert not any(p.requires_grad for member in queue.members for p in member.net.parameters())
