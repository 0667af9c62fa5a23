"""CLoM and CCLoM against their formulas, and how they join any method."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.distill import distill
from dd.errors import ConfigError
from dd.objectives import guidance
from dd.objectives.guidance import Guided, cclom, clom
from dd.sources.guides import Guidance, Guides, GuideTraining
from dd.train.config import PretrainConfig
from dd.train.pretrain import pretrain
from dd.types import Batch, Run


class Model(nn.Module):
    """Features are the pixels times a matrix; logits are the features times another."""

    def __init__(self, d=6, k=3):
        super().__init__()
        g = torch.Generator().manual_seed(d)
        self.first = nn.Parameter(torch.randn(12, d, generator=g, dtype=torch.float64))
        self.last = nn.Parameter(torch.randn(d, k, generator=g, dtype=torch.float64))

    def embed(self, x):
        return (x.flatten(1) @ self.first).tanh()

    def forward(self, x):
        return self.embed(x) @ self.last


class Fake:
    """Batches whose synthetic and real images are given."""

    def __init__(self, x, y, real, real_y):
        self.syn, self.pool, self.asked = Batch(x, y), Batch(real, real_y), []

    def synthetic(self, n=None):
        return self.syn

    def real(self, n):
        self.asked.append(n)
        return self.pool


@pytest.fixture
def case():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 2, 2, generator=g, dtype=torch.float64, requires_grad=True)
    real = torch.randn(5, 3, 2, 2, generator=g, dtype=torch.float64)
    return Fake(x, torch.tensor([0, 0, 1, 1, 2, 2, 2]), real, torch.tensor([2, 0, 1, 1, 0])), Model().requires_grad_(False).eval()


def test_clom_is_the_mean_cross_entropy_of_all_images(case):
    batches, model = case
    value = clom(batches, model)
    (found,) = torch.autograd.grad(value, batches.syn.x)
    x = batches.syn.x.detach().clone().requires_grad_(True)
    terms = []
    for image, label in zip(x, batches.syn.y.tolist(), strict=True):
        logits = (image.flatten() @ model.first).tanh() @ model.last
        terms.append(-(logits[label] - logits.exp().sum().log()))
    naive = sum(terms) / len(terms)
    (wanted,) = torch.autograd.grad(naive, x)
    assert value.item() == pytest.approx(naive.item(), rel=1e-12)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=0)


def test_clom_in_pieces_is_the_same(case, monkeypatch):
    batches, model = case
    whole = clom(batches, model)
    (wanted,) = torch.autograd.grad(whole, batches.syn.x)
    monkeypatch.setattr(guidance, "CHUNK", 3)
    parts = clom(batches, model)
    (found,) = torch.autograd.grad(parts, batches.syn.x)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-15)


def naive_cclom(x, y, real, real_y, model):
    """Algorithm 1 of the paper, pair by pair."""
    above = below = 0
    for image, label in zip(x, y.tolist(), strict=True):
        for other, number in zip(real, real_y.tolist(), strict=True):
            a, b = (image.flatten() @ model.first).tanh(), (other.flatten() @ model.first).tanh()
            distance = 1 - (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
            above = above + (distance if label == number else 0)
            below = below + distance
    return above / below


def test_cclom_is_algorithm_1(case):
    batches, model = case
    value = cclom(batches, model, 5)
    assert batches.asked == [5]
    (found,) = torch.autograd.grad(value, batches.syn.x)
    x = batches.syn.x.detach().clone().requires_grad_(True)
    naive = naive_cclom(x, batches.syn.y, batches.pool.x, batches.pool.y, model)
    (wanted,) = torch.autograd.grad(naive, x)
    assert value.item() == pytest.approx(naive.item(), rel=1e-12)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-14)
    soft = Fake(batches.syn.x, torch.eye(3, dtype=torch.float64)[batches.syn.y], batches.pool.x, batches.pool.y)
    assert cclom(soft, model, 5).item() == pytest.approx(value.item(), rel=1e-12)


def test_cclom_of_random_features_is_one_over_the_number_of_classes():
    g = torch.Generator().manual_seed(1)
    y = torch.arange(3).repeat_interleave(20)
    batches = Fake(torch.randn(60, 3, 2, 2, generator=g, dtype=torch.float64), y, torch.randn(60, 3, 2, 2, generator=g, dtype=torch.float64), y)
    assert cclom(batches, Model(), 60).item() == pytest.approx(1 / 3, abs=0.02)


def test_a_dead_feature_vector_is_at_a_distance_of_one(case):
    batches, model = case
    with torch.no_grad():
        batches.syn.x[0] = 0  # tanh(0) = 0
    value = cclom(batches, model, 5)
    (gradient,) = torch.autograd.grad(value, batches.syn.x)
    assert value.isfinite() and bool(gradient.isfinite().all())


def test_guidance_is_added_with_the_weight_of_the_model_that_is_drawn(case):
    batches, _ = case
    models = {name: Model(d) for name, d in (("a", 4), ("b", 5), ("c", 6))}
    guides = Guides([["a"], ["b", "c"]], models.__getitem__, [2.0, 30.0], seed=3)

    def own(batches, net):
        return batches.synthetic().x.square().sum()

    term = Guided(own, clom, guides)
    seen = set()
    for step in range(40):
        term.step = step
        model, alpha = guides.draw(step)
        assert alpha == (2.0 if model is models["a"] else 30.0)
        seen.add(id(model))
        wanted = own(batches, None) + alpha * clom(batches, model)
        assert term(batches, None).item() == pytest.approx(wanted.item(), rel=1e-12)
        assert term.facts["guidance"].item() == pytest.approx(clom(batches, model).item(), rel=1e-12)
    assert len(seen) == 3
    assert not any(p.requires_grad for model in models.values() for p in model.parameters())
    assert not any(model.training for model in models.values())


def test_architectures_are_drawn_evenly_whatever_their_seeds():
    guides = Guides([["a"], ["b0", "b1", "b2"]], lambda name: Model(), [1.0, 2.0], seed=0)
    alphas = [guides.draw(step)[1] for step in range(600)]
    assert 240 < alphas.count(1.0) < 360
    assert alphas == [Guides([["a"], ["b0", "b1", "b2"]], lambda name: Model(), [1.0, 2.0], seed=0).draw(step)[1] for step in range(600)]


def test_a_guided_run_draws_anew_at_each_step(monkeypatch):
    drawn = []

    class Noted(Guides):
        def draw(self, step):
            drawn.append(step)
            return super().draw(step)

    monkeypatch.setattr(guidance, "Guides", Noted)
    monkeypatch.setattr(guidance, "_fitting", lambda path, *_: Model())
    fake = Fake(torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 0]), None, None)
    run = Run(finish=lambda: None, term=lambda batches, net: batches.synthetic().x.sum(), batches=lambda step: fake)
    config = parse(Guidance, {"kind": "clom", "alpha": 1.0}, "guidance")
    made = guidance.guided(run, config, [[None]], SimpleNamespace(seed=0))
    for step in (0, 1, 5):
        made.term(made.batches(step), None)
    assert drawn == [0, 1, 5]


# -- through the whole of a distillation ----------------------------------------------------------------------------------------


def configure(method, guide, **fields):
    from dd import recipes

    recipe = recipes.load(method)
    return DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=2, recipe=hashed(parse(recipe.Config, fields, method)), guidance=guide)


@pytest.fixture(scope="module")
def pool(digits_dir, tmp_path_factory):
    """Two seeds each of two architectures, hardly trained."""
    folder, groups = tmp_path_factory.mktemp("guides"), []
    for network in ("convnet3_in_w8", "mlp_w16"):
        files = [folder / f"{network}-{seed}.safetensors" for seed in (0, 1)]
        pretrain(PretrainConfig(dataset=Dataset(name="digits"), network=network, training=GuideTraining()), digits_dir, 1, [0, 1], files)
        groups.append(files)
    return groups


GUIDE = {"kind": "clom", "alpha": 10.0, "networks": ["convnet3_in_w8", "mlp_w16"], "models": 2, "epochs": 1}
DM = {"iterations": 8, "batch_real": 8, "extractor": {"network": "convnet3_in_w8"}}


@pytest.mark.parametrize("kind", ["clom", "cclom"])
def test_a_guided_run_that_was_stopped_ends_with_the_same_bytes(kind, pool, digits_dir, tmp_path):
    from dd.distill import Stopped

    config = configure("dm", {**GUIDE, "kind": kind, "batch": 16}, **DM)
    distill(config, digits_dir, pool, 0, tmp_path / "whole")
    stops = 0
    while True:
        count = iter(range(10))
        try:
            distill(config, digits_dir, pool, 0, tmp_path / "parts", stop=lambda count=count: next(count) >= 2)
            break
        except Stopped:
            stops += 1
    assert stops == 2
    for name in ("distilled.safetensors", "curve.csv", "config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    rows = (tmp_path / "whole/curve.csv").read_text().splitlines()
    assert "guidance" in rows[0].split(",")


def test_guidance_lowers_the_guides_loss(pool, digits_dir, tmp_path):
    last = {}
    for alpha in (1e-6, 1000.0):
        config = configure("dm", {**GUIDE, "alpha": alpha}, **{**DM, "iterations": 60})
        distill(config, digits_dir, pool, 0, tmp_path / str(alpha))
        rows = [line.split(",") for line in (tmp_path / str(alpha) / "curve.csv").read_text().splitlines()]
        place = rows[0].index("guidance")
        last[alpha] = sum(float(row[place]) for row in rows[-10:]) / 10
    assert last[1000.0] < 0.7 * last[1e-6]


def test_a_method_that_only_selects_cannot_be_guided(pool, digits_dir, tmp_path):
    with pytest.raises(ConfigError, match="nothing to guide"):
        distill(configure("random", GUIDE), digits_dir, pool, 0, tmp_path)


def test_guides_that_do_not_fit_are_named(digits_dir, tmp_path):
    from dd.artifacts import load_tensors, save_tensors

    file = tmp_path / "guide.safetensors"
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="mlp_w16"), digits_dir, 0, [0], [file])
    tensors, meta = load_tensors(file)
    tensors["model.head.weight"], tensors["model.head.bias"] = tensors["model.head.weight"][:7], tensors["model.head.bias"][:7]
    save_tensors(file, tensors, {**meta, "classes": 7})
    guide = {"kind": "clom", "alpha": 1.0, "networks": ["mlp_w16"], "epochs": 0}
    with pytest.raises(ConfigError, match=r"knows 7 classes, the set has 10; guidance.kind cclom takes it"):
        distill(configure("dm", guide, **DM), digits_dir, [[file]], 0, tmp_path / "a")
    distill(configure("dm", {**guide, "kind": "cclom", "batch": 8}, **DM), digits_dir, [[file]], 0, tmp_path / "b")
    with pytest.raises(ConfigError, match=r"needs 1: pretrained mlp_w16"):
        distill(configure("dm", guide, **DM), digits_dir, [], 0, tmp_path / "c")


def test_a_guide_that_diverged_is_named(digits_dir, tmp_path):
    from dd.train.config import Training

    file = tmp_path / "guide.safetensors"
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="mlp_w16", training=Training(lr=1e9)), digits_dir, 1, [0], [file])
    guide = {"kind": "clom", "alpha": 1.0, "networks": ["mlp_w16"], "epochs": 1}
    with pytest.raises(ConfigError, match=r"guide.safetensors: this guide diverged in its training"):
        distill(configure("dm", guide, **DM), digits_dir, [[file]], 0, tmp_path / "set")


def test_the_epoch_that_was_chosen_is_taken(digits_dir, tmp_path):
    files = []
    for epoch in (1, 2):
        files += [tmp_path / f"{epoch}-{seed}.safetensors" for seed in (0, 1)]
        pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="mlp_w16"), digits_dir, epoch, [0, 1], files[-2:])
    rule = {"candidates": [1, 2], "split": "test", "choice": "00000000"}
    chosen = configure("dm", {"kind": "clom", "alpha": 5.0, "networks": ["mlp_w16"], "models": 2, "epochs": rule}, **DM)
    plain = configure("dm", {"kind": "clom", "alpha": 5.0, "networks": ["mlp_w16"], "models": 2, "epochs": 2}, **DM)
    distill(chosen, digits_dir, [files], 0, tmp_path / "chosen", epoch=2)
    distill(plain, digits_dir, [files[2:]], 0, tmp_path / "plain")
    assert (tmp_path / "chosen/curve.csv").read_bytes() == (tmp_path / "plain/curve.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"guidance.epochs: value 3 was chosen; allowed: 1, 2"):
        distill(chosen, digits_dir, [files], 0, tmp_path / "wrong", epoch=3)
