"""CAFE's dynamics against a literal simulation: nested loops, plain SGD written out, one image at a time."""

import pytest
import torch
from torch import nn

from dd import networks
from dd.data.pool import RealPool
from dd.rng import stream
from dd.sources.dynamic import Dynamic, Dynamics
from dd.train.config import Training
from dd.types import Batch

CLASSES, SEED = 3, 5


class Pool(RealPool):
    """Images in float64: in float32, rounding grows over a run until a probe differs."""

    def x(self, index):
        return super().x(index).double()


class Images:
    """The batches of one step: synthetic images that are others in every step."""

    def __init__(self, step, pool):
        own = pool.x(torch.arange(len(pool)).reshape(CLASSES, -1)[:, :3].reshape(-1))
        noise = torch.randn(own.shape, generator=stream(1, "images", step)).double()
        self._batch = Batch((own + 0.3 * noise).requires_grad_(True), torch.arange(CLASSES).repeat_interleave(3))

    def synthetic(self, n=None):
        return self._batch


def make(name):
    return lambda number: networks.build(name, 1, (8, 8), CLASSES, 0, "net", number).double()


@pytest.fixture(scope="module")
def pool():
    """Three classes of 40 images: a pattern each, under noise."""
    g = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 1, 1, 8, 8, generator=g)
    data = (128 + 18 * patterns + 60 * torch.randn(CLASSES, 40, 1, 8, 8, generator=g)).clamp(0, 255).byte()
    return Pool(data.flatten(0, 1), torch.arange(CLASSES).repeat_interleave(40), CLASSES, [0.5], [0.25])


def source(pool, rule, name="convnet2_in_w4", count=3, augment="none", **more):
    training = Training(lr=rule.lr, momentum=0.0, weight_decay=0.0, batch=rule.batch, augment=augment, strategy="color_crop")
    return Dynamic(make(name), pool, rule, training, (1, 8, 8), count, SEED, **more)


def simulate(pool, rule, name, count):
    """Return the events of a whole run, as CAFE's loops are written."""
    events, step = [], 0

    def probe(net, names, before):
        total = 0.0
        rows = pool.draw(stream(SEED, "probe", *names), rule.probe)
        for c in range(CLASSES):
            right = 0
            logits = net(pool.x(rows[c]))  # a class at a time, in training mode
            for row in logits.detach():
                right += row.tolist().index(max(row.tolist())) == c
            total += right / rule.probe
        if rule.accumulate == "released":
            return (before + total) / CLASSES
        return total / CLASSES

    for number in range(count):
        net, updates, watched, value = make(name)(number), 0, [], 0.0
        while True:
            events.append(("update", number, [p.detach().clone() for p in net.parameters()]))
            batch = Images(step, pool).synthetic()
            step += 1
            updates += 1
            value = probe(net, (number, updates, 0), value)
            watched = [*watched, value][-rule.window :]
            if len(watched) == rule.window and max(watched) - min(watched) < rule.lambda1:
                events.append(("left", updates))
                break
            if updates == rule.updates_max:
                events.append(("outer cap", updates))
                break
            inner, last, epoch = [], 0.0, 0
            while True:
                order = torch.randperm(len(batch.x), generator=stream(SEED, "inner", number, updates, "epoch", epoch))
                for first in range(0, len(order), rule.batch):
                    rows = order[first : first + rule.batch]
                    loss = nn.functional.cross_entropy(net(batch.x.detach()[rows]), batch.y[rows])
                    gradients = torch.autograd.grad(loss, list(net.parameters()))
                    with torch.no_grad():
                        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                            parameter -= rule.lr * gradient
                epoch += 1
                last = probe(net, (number, updates, epoch), last)
                inner = [*inner, last][-rule.window :]
                if len(inner) == rule.window and max(inner) - min(inner) > rule.lambda2:
                    events.append(("learnt", epoch))
                    break
                if epoch == rule.inner_max:
                    events.append(("inner cap", epoch))
                    break
    return events


def follow(pool, rule, name, count):
    """Return the same events, as the source makes them."""
    made, events, step = source(pool, rule, name, count), [], 0
    facts = lambda: {name: value.item() for name, value in made.facts().items()}  # noqa: E731
    while not made.done():
        net, before = made.draw(step), facts()
        assert net is made.draw(step) and net.training and not any(p.requires_grad for p in net.parameters())
        events.append(("update", int(before["network"]), [p.detach().clone() for p in net.parameters()]))
        made.advance(net, Images(step, pool))
        step, after = step + 1, facts()
        if after["network"] > before["network"]:
            updates = sum(event[0] == "update" and event[1] == before["network"] for event in events)
            events.append(("outer cap" if after["caps_outer"] > before["caps_outer"] else "left", updates))
        else:
            epochs = int(after["inner_epochs"] - before["inner_epochs"])
            events.append(("inner cap" if after["caps_inner"] > before["caps_inner"] else "learnt", epochs))
        assert step < 1000
    return events


@pytest.mark.parametrize("accumulate", ["released", "reset"])
@pytest.mark.parametrize("name", ["convnet2_in_w4", "convnet2_bn_w4"])
@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"lr": 0.2, "batch": 4, "window": 3, "lambda1": 0.12, "lambda2": 0.11, "updates_max": 9, "inner_max": 7}, {"left", "learnt"}),
        (
            {"lr": 0.05, "batch": 9, "window": 4, "lambda1": 0.0, "lambda2": 0.9, "updates_max": 5, "inner_max": 5},
            {"outer cap", "inner cap"},
        ),
    ],
)
def test_a_whole_run_equals_a_literal_simulation(fields, kinds, name, accumulate, pool):
    rule = Dynamics(probe=10, accumulate=accumulate, **fields)
    expected, found = simulate(pool, rule, name, 3), follow(pool, rule, name, 3)
    assert [event[:2] for event in found] == [event[:2] for event in expected]
    assert kinds <= {event[0] for event in found}
    for one, other in zip(found, expected, strict=True):
        if one[0] == "update":
            for a, b in zip(one[2], other[2], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def still(pool, accumulate, **fields):
    """Return a source whose networks do not change, probed on all images: what it does follows from the rule alone."""
    rule = Dynamics(lr=1e-30, probe=1000, accumulate=accumulate, **fields)
    return source(pool, rule, count=2)


def run(made, pool):
    updates = []
    while not made.done():
        number = made.facts()["network"].item()
        updates.append(number)
        made.advance(made.draw(0), Images(0, pool))
    return [updates.count(number) for number in (0, 1)], {name: value.item() for name, value in made.facts().items()}


def test_without_the_sum_a_network_that_stands_still_is_left_after_a_window_and_never_learns(pool):
    updates, facts = run(still(pool, "reset", inner_max=12), pool)
    assert updates == [10, 10]
    assert facts == {"network": 2, "probe": 0, "inner_epochs": 2 * 9 * 12, "caps_outer": 0, "caps_inner": 2 * 9, "diverged": 0}


def test_the_released_sum_moves_by_itself(pool):
    """a_t = p (1 - C^-t) / (1 - 1/C): the probes of a network that stands still differ until the sum has settled."""
    made = still(pool, "released", inner_max=40)
    accuracy = (made.draw(0)(pool.x(torch.arange(len(pool)))).argmax(1) == pool.labels).float().mean().item()
    values = [sum(accuracy / CLASSES**k for k in range(t)) for t in range(1, 40)]
    outer = next(t for t in range(10, 40) if values[t - 1] - values[t - 10] < 0.04)
    assert values[9] - values[0] > 0.03 and outer > 10
    made.advance(made.draw(0), Images(0, pool))
    assert made.facts()["probe"].item() == pytest.approx(values[0], rel=1e-6)
    assert made.facts()["inner_epochs"] == 10  # the sum alone is enough to end the training
    for _ in range(outer - 2):
        made.advance(made.draw(0), Images(0, pool))
    assert made.facts()["probe"].item() == pytest.approx(values[outer - 2], rel=1e-6)
    assert made.facts()["network"] == 0
    made.advance(made.draw(0), Images(0, pool))
    assert made.facts()["network"] == 1
    assert made.facts()["caps_outer"] == made.facts()["caps_inner"] == 0


def test_a_cap_on_updates_counts_only_where_the_rule_did_not_end_it_as_well(pool):
    assert run(still(pool, "reset", updates_max=10, inner_max=1), pool) == (
        [10, 10],
        {"network": 2, "probe": 0, "inner_epochs": 18, "caps_outer": 0, "caps_inner": 18, "diverged": 0},
    )
    assert run(still(pool, "reset", updates_max=9, inner_max=1), pool) == (
        [9, 9],
        {"network": 2, "probe": 0, "inner_epochs": 16, "caps_outer": 2, "caps_inner": 16, "diverged": 0},
    )


RULE = {"lr": 0.2, "batch": 9, "probe": 10, "window": 3, "lambda1": 0.12, "lambda2": 0.11, "updates_max": 5, "inner_max": 4}


def trace(made, pool, first, last):
    """Return weights and facts at steps first .. last - 1."""
    seen = []
    for step in range(first, last):
        if made.done():
            break
        net = made.draw(step)
        seen.append([*(p.detach().clone() for p in net.parameters()), *made.facts().values()])
        made.advance(net, Images(step, pool))
    return seen


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(("name", "augment"), [("convnet2_in_w4", "none"), ("convnet2_bn_w4", "oneof")])
def test_a_source_that_takes_its_state_back_goes_on_bit_for_bit(name, augment, pool):
    rule = Dynamics(**RULE)
    whole = trace(source(pool, rule, name, augment=augment), pool, 0, 100)
    assert len(whole) > 7
    for stop in range(len(whole) + 1):
        first = source(pool, rule, name, augment=augment)
        trace(first, pool, 0, stop)
        state = {key: value.clone() for key, value in first.state_dict().items()}
        again = source(pool, rule, name, augment=augment)
        again.load_state_dict(state)
        assert same(trace(again, pool, stop, 100), whole[stop:])
        assert again.done()


def test_every_part_of_the_state_matters(pool):
    rule = Dynamics(**RULE)
    whole = trace(source(pool, rule), pool, 0, 100)
    first = source(pool, rule)
    stop = next(step for step in range(2, len(whole)) if whole[step][-6] == 1 and whole[step][-5] > 0)  # in the second network
    trace(first, pool, 0, stop)
    state = first.state_dict()
    assert set(state) == {"progress", "weights"}
    assert (state["progress"][:3] > 0).all() and len(state["progress"]) > 6
    changes = [{**state, "weights": torch.zeros_like(state["weights"])}]
    for entry in range(len(state["progress"])):
        changed = state["progress"].clone()
        changed[entry] = 7 if entry in (3, 4, 5) else 0  # no cap may have been hit
        changes.append({**state, "progress": changed})
    for changed in changes:
        again = source(pool, rule)
        again.load_state_dict(changed)
        assert not same(trace(again, pool, stop, 100), whole[stop:])


def test_begin_hears_of_each_network_and_of_the_one_that_comes_back(pool):
    heard = []
    made = source(pool, Dynamics(**RULE), count=3, begin=heard.append)
    trace(made, pool, 0, 100)
    assert heard == [1, 2, 3]
    half = source(pool, Dynamics(**RULE), count=3)
    while half.facts()["network"] < 2:
        half.advance(half.draw(0), Images(0, pool))
    source(pool, Dynamics(**RULE), count=3, begin=heard.append).load_state_dict(half.state_dict())
    assert heard == [1, 2, 3, 2]


def test_the_synthetic_images_get_no_gradient_and_a_small_class_gives_all(pool):
    made = source(pool, Dynamics(**{**RULE, "probe": 1000, "inner_max": 3}))
    batches = Images(0, pool)
    made.advance(made.draw(0), batches)
    assert batches.synthetic().x.grad is None
    assert made.facts()["inner_epochs"] == 3


def test_a_network_whose_training_diverges_is_left_and_counted(pool):
    made = source(pool, Dynamics(**{**RULE, "lr": 1e30}), count=2)
    trace(made, pool, 0, 100)
    assert made.done() and made.facts()["diverged"] == 2
