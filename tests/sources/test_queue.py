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

    def __init__(self, step, dtype=torch.float32):
        self.step, self.dtype, self.calls = step, dtype, 0

    def real(self, n):
        g = stream(1, self.step, self.calls)
        self.calls += 1
        y = torch.randint(CLASSES, (n,), generator=g)
        return Batch((torch.randn(n, 1, 16, 16, generator=g) + y.view(-1, 1, 1, 1)).to(self.dtype), y)


def run(queue, steps, first=0):
    """Return, for each step, the weights and the accuracy that are looked through."""
    seen = []
    for step in range(first, steps):
        net = queue.draw(step)
        seen.append((torch.cat([value.flatten().float() for value in net.state_dict().values()]), float(queue.accuracy)))
        assert not net.training
        queue.advance(net, Real(step))
    return seen


def simulate(name, steps, seed=0):
    """Yield what each step looks through and leaves behind, with plain lists: networks, momentum by hand, hits and trials."""
    nets, born = [], 0
    for step in range(steps):
        joining = 3 + 1 if step == 0 else int(step % RULE["grow_every"] == 0)
        for _ in range(joining):
            if len(nets) == RULE["size"]:
                del nets[0]
            net = make(born, name).double()
            nets.append({"born": born, "net": net, "v": [torch.zeros_like(p) for p in net.parameters()], "hits": 0, "trials": 0})
            born += 1
        one = nets[int(torch.randint(len(nets), (), generator=stream(seed, "queue", step)))]
        drawn, share = one["born"], one["hits"] / one["trials"] if one["trials"] else 0.0
        real = Real(step, torch.float64)
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
                    for p, v, g in zip(one["net"].parameters(), one["v"], grads, strict=True):
                        v.copy_(0.9 * v + g + 5e-4 * p)
                        p -= 0.01 * v
        if (step + 1) % RULE["reset_every"] == 0:
            for one in nets:
                one["hits"] = one["trials"] = 0
        yield drawn, share, nets


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8"])
def test_it_equals_a_literal_simulation(name):
    queue = Queue(lambda number: make(number, name).double(), 0, **RULE)
    shares, heads = [], set()
    for step, (drawn, share, nets) in enumerate(simulate(name, 14)):
        net = queue.draw(step)
        (member,) = (member for member in queue.members if member.net is net)
        assert member.born == drawn and float(queue.accuracy) == pytest.approx(share)
        assert not net.training
        queue.advance(net, Real(step, torch.float64))
        assert [member.born for member in queue.members] == [one["born"] for one in nets]
        for member, one in zip(queue.members, nets, strict=True):
            assert (int(member.right), member.seen) == (one["hits"], one["trials"])
            torch.testing.assert_close(dict(member.net.state_dict()), dict(one["net"].state_dict()), rtol=1e-10, atol=1e-13)
            torch.testing.assert_close(list(member.momentum().values()), one["v"], rtol=1e-9, atol=1e-12)
        shares.append(share)
        heads.add(nets[0]["born"])
    assert max(shares) > 0 and 0.0 in shares[4:], "some that are looked through must have been trained, and some have forgotten it"
    assert len(heads) > 2, "some must have left"


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
    assert [accuracy for _, accuracy in rest] == [accuracy for _, accuracy in whole[stop:]]
    assert all(torch.equal(weights, wanted) for (weights, _), (wanted, _) in zip(rest, whole[stop:], strict=True))


def test_it_needs_every_part_of_its_state():
    rule = {**RULE, "reset_every": 8}  # so that the accuracies are looked at before they are forgotten
    first = Queue(make, 0, **rule)
    run(first, 5)
    state = {key: value.clone() for key, value in first.state_dict().items()}
    assert set(state) == {"counters", "meters", "weights", "momentum"}
    meters = {"hits": torch.tensor([False, True, False]), "trials": torch.tensor([False, False, True])}
    wanted = run(first, 12, 5)
    for forgotten in ["nothing", *state, *meters]:
        kept = {key: value * (key != forgotten) for key, value in state.items()}
        if forgotten in meters:
            kept["meters"] = kept["meters"] * ~meters[forgotten]
        second = Queue(make, 0, **rule)
        second.load_state_dict(kept)
        rest = run(second, 12, 5)
        same = all(torch.equal(a, b) and x == y for (a, x), (b, y) in zip(rest, wanted, strict=True))
        assert same == (forgotten == "nothing"), forgotten


def test_nobody_trains_through_the_network_that_is_looked_through():
    queue = Queue(make, 0, **RULE)
    net = queue.draw(0)
    assert not any(p.requires_grad for p in net.parameters())
    queue.advance(net, Real(0))
    assert not any(p.requires_grad for member in queue.members for p in member.net.parameters())
