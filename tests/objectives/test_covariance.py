"""DSDM's loss and its memory against per-class loops in float64 with explicit d x d covariances, which share no code with them."""

import pytest
import torch

from dd import networks
from dd.objectives.covariance import SemanticMatch, covariance_gap
from dd.types import Batch

PAPER = {"unbiased": False, "per_feature": False, "start": 0, "first": "zeros"}
CODE = {"unbiased": True, "per_feature": True, "start": 2, "first": "prototypes"}
WEIGHTS = {"lambda1": 50.0, "lambda2": 0.2, "alpha": 0.9}
VARIANTS = {"paper": PAPER, "code": CODE}
NETWORKS = ["convnet3_in_w8", "convnet3_bn_w8", "mlp_w16"]


class Step:
    """Batches of one step: a pair, and the images after the update."""

    def __init__(self, synthetic, real, after=None):
        self._pair, self._after = (synthetic, real), after

    def pair(self, net=None):
        return self._pair

    def augmented(self):
        return self._after


def images(classes, each, seed, side=16):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(classes * each, 1, side, side, generator=g, dtype=torch.float64)
    return Batch(x, torch.arange(classes).repeat_interleave(each))


def steps(classes=3, decoded=4, per_class=7, count=6):
    """Return batches of several steps; other images in each, and others after the update."""
    made = []
    for number in range(count):
        synthetic = images(classes, decoded, 10 * number)
        synthetic.x.requires_grad_(True)
        made.append(Step(synthetic, images(classes, per_class, 10 * number + 1), images(classes, decoded, 10 * number + 2)))
    return made


def network(name="convnet3_in_w8", seed=0, classes=3):
    return networks.build(name, 1, (16, 16), classes, seed).double().requires_grad_(False)


def term(variant, classes=3, covariance=True, history=True, **changes):
    return SemanticMatch(classes, covariance=covariance, history=history, **{**WEIGHTS, **VARIANTS[variant], **changes})


def mean(rows):
    return sum(rows) / len(rows)


def naive_covariance(rows, divisor):
    centre, total = mean(rows), 0
    for row in rows:
        total = total + torch.outer(row - centre, row - centre)
    return total / divisor


def naive(net, synthetic, real, variant, history, step, covariance=True):
    """Return the three parts, one class after the other."""
    proto = cov = past = torch.zeros((), dtype=torch.float64)
    for c in range(int(real.y.max()) + 1):
        f, g = list(net.embed(real.x[real.y == c])), list(net.embed(synthetic.x[synthetic.y == c]))
        d = len(f[0])
        proto = proto + ((mean(f) - mean(g)) ** 2).sum()
        less = 1 if variant == "code" else 0
        gap = naive_covariance(f, len(f) - less) - naive_covariance(g, len(g) - less)
        cov = cov + 50.0 * (gap**2).sum() / d
        acts = step >= 1 if variant == "paper" else step > 2
        if acts and history is not None:
            past = past + 0.2 * ((mean(g) - history[c]) ** 2).sum() / (d if variant == "code" else 1)
    return proto, cov, past


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("decoded", "per_class"), [(4, 7), (2, 2), (9, 5)])
def test_values_gradients_and_memory_equal_a_literal_run(variant, name, decoded, per_class):
    """Six steps through three networks in turn: equations 4 to 9, and both readings of when and with what the memory begins."""
    nets = [network(name, seed) for seed in range(3)]
    loss = term(variant)
    history = None
    for step, batches in enumerate(steps(decoded=decoded, per_class=per_class)):
        net = nets[step % 3]
        synthetic, real = batches.pair()
        value = loss(batches, net)
        (gradient,) = torch.autograd.grad(value, synthetic.x)
        parts = naive(net, synthetic, real, variant, history, step)
        (expected,) = torch.autograd.grad(sum(parts), synthetic.x)
        assert value.item() == pytest.approx(sum(parts).item(), rel=1e-9)
        assert [fact.item() for fact in loss.facts.values()] == [pytest.approx(part.item(), rel=1e-9) for part in parts]
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-10)
        assert (parts[2] > 0) == (step >= 1 if variant == "paper" else step > 2)
        loss.remember(batches, net)
        after = batches.augmented()
        now = [mean(list(net.embed(after.x[after.y == c]))) for c in range(3)]
        if history is None:
            history = [torch.zeros_like(p) if variant == "paper" else p for p in now]
        else:
            history = [0.9 * h + 0.1 * p for h, p in zip(history, now, strict=True)]


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_gram_form_is_the_explicit_one(unbiased):
    g = torch.Generator().manual_seed(0)
    s = torch.randn(3, 4, 20, generator=g, dtype=torch.float64, requires_grad=True)
    r = torch.randn(3, 9, 20, generator=g, dtype=torch.float64) * 2 + 1
    gap = covariance_gap(s, r, unbiased=unbiased)
    explicit = torch.stack([
        ((naive_covariance(list(s[c]), 4 - unbiased) - naive_covariance(list(r[c]), 9 - unbiased)) ** 2).sum() for c in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(gap, explicit, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(gap.sum(), s), torch.autograd.grad(explicit.sum(), s), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(lambda s: covariance_gap(s, r, unbiased=unbiased), s)


@pytest.mark.parametrize("noise", [None, 1e-3])
def test_the_gram_form_holds_for_float32_features_of_a_true_size(noise):
    """2,048 features of a random ConvNet; with `noise`, two sets so alike that the three parts cancel but for 1e-6 of themselves."""
    net = networks.build("convnet3_in", 3, (32, 32), 10, 0).requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(80, 3, 6, 6, generator=g), size=(32, 32), mode="bicubic")
    features = net.embed(smooth)
    assert features.shape[1] == 2048 and features.dtype == torch.float32
    real = features[:64].unsqueeze(0)
    synthetic = features[64:].unsqueeze(0) if noise is None else real + noise * torch.randn(real.shape, generator=g) * real.std()
    synthetic = synthetic.detach().requires_grad_(True)
    exact = synthetic.detach().double().requires_grad_(True)
    explicit = (torch.cov(exact[0].T) - torch.cov(real[0].double().T)).square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        gap = covariance_gap(synthetic, real, unbiased=True)[0]
    assert gap.item() == pytest.approx(explicit.item(), rel=1e-4)
    (ours,), (theirs,) = torch.autograd.grad(gap, synthetic), torch.autograd.grad(explicit, exact)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_class_does_not_move_the_pixels_of_another_nor_anything_the_real_side(variant):
    net, loss, made = network("convnet3_bn_w8"), term(variant, start=0), steps(count=2)
    loss(made[0], net)
    loss.remember(made[0], net)
    synthetic, real = made[1].pair()
    other = Batch(real.x.clone(), real.y)
    other.x[real.y == 1] = torch.randn_like(other.x[real.y == 1])
    gradients = []
    for batch in (real, other):
        value = loss(Step(synthetic, Batch(batch.x.requires_grad_(True), batch.y)), net)
        assert loss.facts["history"] > 0
        gradient, none = torch.autograd.grad(value, [synthetic.x, batch.x], allow_unused=True)
        assert none is None
        gradients.append(gradient)
    assert torch.equal(gradients[0][synthetic.y != 1], gradients[1][synthetic.y != 1])
    assert not torch.equal(gradients[0][synthetic.y == 1], gradients[1][synthetic.y == 1])
    only = [Batch(batch.x[batch.y == 1], batch.y[batch.y == 1] * 0) for batch in (synthetic, real)]
    alone = term(variant, classes=1, history=False)(Step(*only), net)
    (own,) = torch.autograd.grad(alone, synthetic.x)
    (whole,) = torch.autograd.grad(term(variant, history=False)(Step(synthetic, real), net), synthetic.x)
    assert own[synthetic.y != 1].abs().max() == 0
    torch.testing.assert_close(whole[synthetic.y == 1], own[synthetic.y == 1], rtol=1e-10, atol=1e-12)


def test_each_part_can_be_switched_off_and_leaves_the_others_alone():
    net, made = network(), steps(count=2)
    seen = {}
    for covariance in (True, False):
        for history in (True, False):
            loss = term("paper", covariance=covariance, history=history)
            loss(made[0], net)
            if history:
                loss.remember(made[0], net)
            value = loss(made[1], net)
            assert value.item() == pytest.approx(sum(loss.facts.values()).item())
            assert bool(loss.state_dict()) == history
            seen[covariance, history] = {name: fact.item() for name, fact in loss.facts.items()}
    whole = seen[True, True]
    assert list(whole) == ["prototypes", "covariance", "history"] and all(whole.values())
    for (covariance, history), facts in seen.items():
        off = {"covariance": not covariance, "history": not history}
        assert facts == {name: fact for name, fact in whole.items() if not off.get(name)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_memory_survives_a_stop_and_is_needed(variant):
    net, made = network(), steps()

    def run(stop=None, forget=()):
        loss = term(variant)
        for step, batches in enumerate(made):
            if step == stop:
                state = {name: value.clone() for name, value in loss.state_dict().items() if name not in forget}
                loss = term(variant)
                loss.load_state_dict(state)
            value = loss(batches, net)
            loss.remember(batches, net)
        return value.item()

    whole = run()
    assert all(run(stop) == whole for stop in range(6))
    assert run(4, forget=("history", "remembered")) != whole
    assert run(4, forget=("history",)) != whole
    assert run(5, forget=("remembered",)) != whole
