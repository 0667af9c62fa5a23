"""The supervised loop against a loop written here, in float64, from the papers' words."""

import json
import math

import pytest
import torch

from dd import networks
from dd.augment import cutmix, policies
from dd.errors import DDError
from dd.rng import stream
from dd.train.config import Training
from dd.train.supervised import accuracy, fit, rate, resets, strategy_of

SHAPE, CLASSES, N = (1, 8, 8), 3, 10


def images(n=N, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, *SHAPE, generator=g, dtype=torch.float64).to(dtype), torch.randint(CLASSES, (n,), generator=g)


def network(name="convnet3_in_w8", dtype=torch.float64, seed=0):
    return networks.build(name, 1, SHAPE[1:], CLASSES, seed).to(dtype)


def run(net, training, first, last, *, x=None, y=None, momentum=None, seed=3, **more):
    if x is None:
        x, y = images(dtype=next(net.parameters()).dtype)
    more = {"names": ("test",), "shape": SHAPE, "flip": True, **more}
    return fit(net, lambda i: (x[i], y[i]), len(x), training, seed=seed, first_epoch=first, last_epoch=last, momentum=momentum, **more)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def naive(net, x, soft, training, epochs, lr_of, reset_after=None, strategy="color_crop_cutout_flip_scale_rotate"):
    """Train with SGD written out; labels are probabilities throughout. Return the mean loss of each epoch."""
    parameters = list(net.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    augment = policies.make(training.augment, strategy)
    means = []
    for epoch in range(epochs):
        generator, total = stream(3, "test", "epoch", epoch), 0.0
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), training.batch):
            index = order[start : start + training.batch]
            bx, by = x[index], soft[index]
            bx = augment.apply(bx, augment.draw(generator, len(index), SHAPE, shared=False), torch.arange(len(index)))
            if training.cutmix:
                drawn = cutmix.draw(generator, len(index), SHAPE[1:], training.cutmix)
                if drawn.whether:
                    top, bottom, left, right = drawn.box
                    mixed = bx.clone()
                    for k, other in enumerate(drawn.permutation.tolist()):
                        mixed[k, :, top:bottom, left:right] = bx[other, :, top:bottom, left:right]
                    kept = 1 - (bottom - top) * (right - left) / (SHAPE[1] * SHAPE[2])
                    bx, by = mixed, kept * by + (1 - kept) * by[drawn.permutation]
            loss = -(by * net(bx).log_softmax(1)).sum(1).mean()
            total += loss.item() * len(index)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, g, v in zip(parameters, gradients, velocity, strict=True):
                    v.mul_(training.momentum).add_(g + training.weight_decay * p)
                    p.sub_(lr_of(epoch) * v)
        if epoch == reset_after:
            velocity = [torch.zeros_like(p) for p in parameters]
        means.append(total / len(x))
    return means


@pytest.mark.parametrize("augment", ["none", "oneof", "stack"])
@pytest.mark.parametrize("mix", [0.0, 0.5])
@pytest.mark.parametrize("soft", [False, True])
def test_it_is_sgd_on_cross_entropy(augment, mix, soft):
    training = Training(batch=4, augment=augment, cutmix=mix, lr=0.05, strategy="color_crop_cutout_flip_scale_rotate")
    x, y = images()
    labels = torch.rand(N, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(1)
    labels = labels if soft else torch.nn.functional.one_hot(y, CLASSES).double()
    mine, theirs = network(), network()
    fitted = run(mine, training, 0, 3, x=x, y=labels if soft else y)
    losses = naive(theirs, x, labels, training, 3, lambda epoch: 0.05)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert fitted.loss == pytest.approx(losses[-1], rel=1e-9)
    assert 0 <= fitted.accuracy <= 1
    assert fitted.diverged is None
    assert not torch.equal(next(mine.parameters()), next(network().parameters()))


def test_the_rate_drops_and_momentum_is_lost_as_in_the_papers_loop():
    length = 6
    training = Training(schedule="halfway_reset", epochs=length, batch=4, lr=0.05)
    x, y = images()
    one_hot = torch.nn.functional.one_hot(y, CLASSES).double()
    after = length // 2 + 1  # the papers' code drops the rate at the end of this pass
    results = {}
    for reset in (after, None):
        net = network()
        naive(net, x, one_hot, training, length + 1, lambda epoch: 0.05 if epoch <= after else 0.005, reset)
        results[reset] = torch.cat([p.detach().flatten() for p in net.parameters()])
    mine = network()
    run(mine, training, 0, length + 1)
    mine = torch.cat([p.detach().flatten() for p in mine.parameters()])
    torch.testing.assert_close(mine, results[after], rtol=1e-9, atol=1e-11)
    assert (mine - results[None]).abs().max() > 1e-6, "the test cannot tell whether momentum was lost"


def test_dc_at_1000_has_502_passes_and_then_499():
    training = Training(schedule="halfway_reset", epochs=1000)
    rates = [rate(training, epoch) for epoch in range(1001)]
    assert rates == [0.01] * 502 + [pytest.approx(0.001)] * 499
    assert [epoch for epoch in range(1001) if resets(training, epoch)] == [502]
    short = [rate(training.model_copy(update={"epochs": 300}), epoch) for epoch in range(301)]
    assert short == [0.01] * 152 + [pytest.approx(0.001)] * 149


def test_idc_at_1500_drops_to_a_fifth_twice():
    training = Training(schedule="multistep", epochs=1500)
    rates = [rate(training, epoch) for epoch in range(1500)]
    assert rates == pytest.approx([0.01] * 1000 + [0.002] * 250 + [0.0004] * 250)
    assert not any(resets(training, epoch) for epoch in range(1500))


def test_clom_at_150_drops_to_a_tenth_twice():
    training = Training(schedule="thirds", epochs=150)
    rates = [rate(training, epoch) for epoch in range(160)]
    assert rates == pytest.approx([0.01] * 50 + [0.001] * 50 + [0.0001] * 60)
    assert not any(resets(training, epoch) for epoch in range(150))
    short = [rate(training.model_copy(update={"epochs": 20}), epoch) for epoch in range(20)]
    assert short == pytest.approx([0.01] * 6 + [0.001] * 7 + [0.0001] * 7)


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8"])
@pytest.mark.parametrize("schedule", ["constant", "halfway_reset", "multistep", "thirds"])
def test_continuing_at_any_milestone_equals_an_uninterrupted_run_bitwise(name, schedule):
    training = Training(batch=4, augment="stack", cutmix=0.5, schedule=schedule, epochs=4)
    x, y = images(dtype=torch.float32)
    whole = network(name, torch.float32)
    fitted = run(whole, training, 0, 5, x=x, y=y)
    for milestone in range(1, 5):
        net = network(name, torch.float32)
        before = run(net, training, 0, milestone, x=x, y=y)
        after = run(net, training, milestone, 5, x=x, y=y, momentum=before.momentum)
        assert same(net, whole)
        assert all(torch.equal(after.momentum[key], fitted.momentum[key]) for key in fitted.momentum)
        assert (after.loss, after.accuracy) == (fitted.loss, fitted.accuracy)
        if not resets(training, milestone):
            net = network(name, torch.float32)
            run(net, training, 0, milestone, x=x, y=y)
            run(net, training, milestone, 5, x=x, y=y)
            assert not same(net, whole), "withholding the momentum must show"


def test_seed_names_and_epoch_decide_all_randomness():
    training = Training(batch=4, augment="oneof")
    state = torch.get_rng_state()
    nets = [network() for _ in range(4)]
    run(nets[0], training, 0, 2)
    torch.manual_seed(17)
    run(nets[1], training, 0, 2)
    run(nets[2], training, 0, 2, seed=4)
    run(nets[3], training, 0, 2, names=("other",))
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])
    assert not same(nets[0], nets[3])
    torch.set_rng_state(state)
    run(network(dtype=torch.float32), training, 0, 1)
    assert torch.equal(torch.randn(3), torch.randn(3, generator=torch.Generator().set_state(state)))


def test_every_image_is_seen_once_an_epoch_in_another_order():
    x, y = images()
    seen, told = [], []

    def fetch(index):
        seen.append(index.tolist())
        return x[index], y[index]

    fit(network(), fetch, N, Training(batch=4), seed=0, names=(), first_epoch=0, last_epoch=2, shape=SHAPE, flip=True, on_epoch=told.append)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2], "the last partial batch is kept"
    first, second = ([k for batch in part for k in batch] for part in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert told == [1, 2]


def test_no_epoch_changes_nothing():
    net = network()
    fitted = run(net, Training(), 5, 5)
    assert same(net, network())
    assert math.isnan(fitted.loss)
    assert fitted.diverged is None


def test_a_loss_that_is_not_finite_stops_the_training():
    told = []
    x, y = images(dtype=torch.float32)
    fitted = run(network(dtype=torch.float32), Training(lr=1e18, batch=4), 0, 9, x=x, y=y, on_epoch=told.append)
    assert set(fitted.diverged) == {"epoch", "step", "loss", "grad_norm"}
    assert fitted.diverged["epoch"] == 0
    assert fitted.diverged["step"] in (1, 2), "the first update makes the weights huge"
    assert told == []
    json.dumps(fitted.diverged, allow_nan=False)


def test_where_it_diverged_is_told_exactly():
    x, y = images(dtype=torch.float32)
    order = torch.randperm(N, generator=stream(3, "test", "epoch", 2)).tolist()
    calls = []

    def fetch(index):
        calls.append(index.tolist())
        broken = x[index].clone()
        broken[0] = math.nan if len(calls) == 8 else broken[0]  # the second step of the third epoch
        return broken, y[index]

    fitted = fit(network(dtype=torch.float32), fetch, N, Training(batch=4), seed=3, names=("test",), first_epoch=0, last_epoch=9,
                 shape=SHAPE, flip=True)  # fmt: skip
    assert fitted.diverged == {"epoch": 2, "step": 7, "loss": "nan", "grad_norm": "nan"}
    assert calls[6] == order[:4]
    assert len(calls) == 9, "the epoch is finished, no other is begun"


def test_weights_broken_by_the_very_last_update_are_noticed():
    x, y = images(n=4, dtype=torch.float32)
    fitted = run(network(dtype=torch.float32), Training(lr=3e38, batch=4), 0, 1, x=x, y=y)
    assert fitted.diverged["step"] == 0
    assert math.isfinite(fitted.diverged["loss"])


def test_accuracy_against_counting():
    net = network("convnet3_bn_w8")
    x, y = images(60)
    y = y.clamp(max=1)  # the last class has no images
    value, per_class = accuracy(net, lambda i: (x[i], y[i]), 60, CLASSES, batch=7)
    net.eval()
    guess = [int(net(x[k : k + 1]).argmax()) for k in range(60)]
    right = [[g == c for g, t in zip(guess, y.tolist(), strict=True) if t == c] for c in range(CLASSES)]
    assert value == sum(map(sum, right)) / 60
    assert per_class == [sum(right[0]) / len(right[0]), sum(right[1]) / len(right[1]), 0]
    net.train()
    accuracy(net, lambda i: (x[i], y[i]), 60, CLASSES)
    assert net.training, "the mode is put back"


def test_a_network_of_nan_is_never_right():
    net = network()
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(math.nan)
    x, _ = images()
    assert accuracy(net, lambda i: (x[i], torch.zeros(len(i), dtype=torch.int64)), N, CLASSES) == (0.0, [0.0] * 3)


def test_default_strategies():
    name = lambda flip, use, **fields: strategy_of(Training(**fields), flip, use)  # noqa: E731
    assert name(True, "eval", augment="oneof") == "color_crop_cutout_flip_scale_rotate"
    assert name(False, "eval", augment="oneof") == "color_crop_cutout_scale_rotate"
    assert name(True, "eval", augment="stack", cutmix=0.5) == "color_crop_flip_scale_rotate"
    assert name(False, "eval", augment="stack", cutmix=0.5) == "color_crop_scale_rotate"
    assert name(False, "eval", augment="stack") == "color_crop_cutout_scale_rotate"
    assert name(True, "train", augment="stack", cutmix=0.5) == "color_crop", "DSDM's pre-training"
    assert name(True, "eval", augment="oneof", cutmix=0.5) == "color_crop_cutout_flip_scale_rotate"
    assert name(True, "eval", augment="stack", strategy="crop") == "crop"


def test_an_unknown_use_is_refused():
    with pytest.raises(DDError, match="evl"):
        run(network(), Training(augment="oneof"), 0, 1, use="evl")
