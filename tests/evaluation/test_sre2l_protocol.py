"""SRe2L's protocol: the loss, how images are seen and mixed, and that students are functions of set and number."""

import math

import pytest
import torch

from dd import evaluation, networks, recipes
from dd.artifacts import load_tensors, save_tensors
from dd.augment import cutmix
from dd.augment.views import Views
from dd.config import hashed, parse
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.run import evaluate
from dd.evaluation.sre2l import Taught, beta, distillation, mixup
from dd.rng import stream
from dd.train.pretrain import load_network
from dd.train.supervised import fit, rate
from dd.types import DistilledSet

NET = "convnet3_bn_w8"
TEACHER = {"network": "convnet3_bn_w16", "epochs": 5, "training": {"lr": 0.05, "batch": 64, "epochs": 5}}


def settings(name="sre2l_short", **fields):
    return parse(evaluation.config_of(name), {"teacher": TEACHER, **fields}, "test")


@pytest.fixture(scope="module")
def digits(digits_dir):
    return RealPool(*load(digits_dir, "train"), 10, **manifest(digits_dir)["lineages"]["dc"])


@pytest.fixture(scope="module")
def some(digits):
    index = digits.draw(stream(0, "test"), 10).flatten()
    return DistilledSet(digits.raw(index), digits.y(index), *digits.statistics, indices=index)


def score(distilled, digits_dir, protocol, needs, numbers=(2,), set_=1):
    return evaluate(distilled, NET, "sre2l", protocol, digits_dir, set_, numbers, needs=needs)


def test_the_loss_is_a_divergence_without_the_square_of_the_temperature():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 3, generator=g, dtype=torch.float64) * 5 for _ in range(2))
    student.requires_grad_()
    for heat in (1.0, 20.0):
        total, slope = 0.0, torch.zeros(4, 3, dtype=torch.float64)
        for i in range(4):
            p, q = ([math.exp(v / heat) for v in row[i].tolist()] for row in (teacher, student))
            p, q = ([v / sum(row) for v in row] for row in (p, q))
            total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)) / 4
            slope[i] = torch.tensor([(b - a) / (4 * heat) for a, b in zip(p, q, strict=True)])
        value = distillation(student, teacher, heat)
        assert value.item() == pytest.approx(total, rel=1e-9)
        assert torch.allclose(torch.autograd.grad(value, student)[0], slope)
    assert distillation(teacher, teacher, 20.0).item() == pytest.approx(0.0, abs=1e-12)


def test_mixup_mixes_whole_images_by_one_share_that_is_betas():
    x = torch.randn(5, 1, 2, 2, generator=stream(0))
    for seed in range(20):
        numbers = stream(seed)
        share = beta(numbers, 0.8)
        order = torch.randperm(5, generator=numbers)
        assert torch.allclose(mixup(stream(seed), x), share * x + (1 - share) * x[order])
    drawn = torch.tensor([beta(stream(seed, "b"), 0.8) for seed in range(4000)])
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.05)
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_students_see_views_that_are_mixed_and_the_teachers_word_for_them(digits_dir, supply):
    for name, view, mixed in (("sre2l", "crop", "cutmix"), ("sre2l_short", "shift", "mixup")):
        protocol = settings(name)
        assert (protocol.view, protocol.mix) == (view, mixed)
        ((file,),) = supply(protocol)
        taught = Taught(protocol, file, manifest(digits_dir), "cpu")
        student = networks.build(NET, 1, (16, 16), 10, 0)
        student.eval()  # so that asking it twice gives the same
        shown = []
        seen = lambda x, student=student, shown=shown: shown.append(x) or student(x)  # noqa: E731
        x, y = torch.rand(6, 1, 16, 16, generator=stream(1)), torch.arange(6)
        value, logits = taught.loss(NET, student, (1, 16, 16))(seen, x, y, y)
        (mixture,) = shown
        teacher = load_network(file).eval()
        assert torch.allclose(value, distillation(logits, teacher(mixture), 20.0 if name == "sre2l" else 30.0), rtol=1e-4)
        assert mixture.shape == x.shape and not torch.allclose(mixture, x)
        again, _ = taught.loss(NET, student, (1, 16, 16))(student, x, torch.zeros(6, dtype=torch.int64), y)
        assert torch.equal(value, again), "labels mean nothing, and draws are a function of the student"
        value.backward()
        assert all(p.grad is None for p in taught._teacher.parameters()) and not taught._teacher.training


def test_cutmix_fills_a_box_and_crops_come_before(digits_dir, supply):
    protocol = settings("sre2l")
    ((file,),) = supply(protocol)
    taught = Taught(protocol, file, manifest(digits_dir), "cpu")
    assert isinstance(taught._augment, Views) and not taught._augment._flip, "digits are not to be mirrored"
    assert Taught(protocol, file, {**manifest(digits_dir), "flip": True}, "cpu")._augment._flip
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    for seed in range(5):
        mix = cutmix.draw(stream(seed), 4, (16, 16), 1.0)
        top, bottom, left, right = mix.box
        wanted = x.clone()
        wanted[:, :, top:bottom, left:right] = mix.permutation.view(4, 1, 1, 1).float()
        assert mix.whether and torch.equal(taught._mix(stream(seed), x), wanted)


def test_sounds_are_shown_as_they_are(digits_dir, supply):
    protocol = settings("sre2l")
    ((file,),) = supply(protocol)
    taught = Taught(protocol, file, {**manifest(digits_dir), "augment": False}, "cpu")
    student, shown = networks.build(NET, 1, (16, 16), 10, 0), []
    x = torch.rand(6, 1, 16, 16)
    taught.loss(NET, student, (1, 16, 16))(lambda x: shown.append(x) or student(x), x, torch.arange(6), torch.arange(6))
    assert torch.equal(shown[0], x)


def test_adamw_along_a_cosine_is_pytorchs(digits):
    protocol = settings("sre2l", epochs=4, batch=7, augment="none")
    assert [rate(protocol, epoch) for epoch in range(5)] == pytest.approx([1e-3 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(5)])
    x, y = digits.x(torch.arange(20)), digits.y(torch.arange(20))
    ours, theirs = (networks.build("mlp_w16", 1, (16, 16), 10, 0) for _ in range(2))
    common = dict(seed=0, names=("t",), first_epoch=0, last_epoch=4, shape=(1, 16, 16), flip=False)
    fit(ours, lambda i: (x[i], y[i]), 20, protocol, optimizer=protocol.optimizer, **common)
    adam = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 4)
    theirs.train()
    for epoch in range(4):
        for index in torch.randperm(20, generator=stream(0, "t", "epoch", epoch)).split(7):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(theirs(x[index]), y[index]).backward()
            adam.step()
        schedule.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_scores_are_functions_of_set_and_number(some, digits_dir, supply):
    protocol = settings(epochs=3)
    needs = supply(protocol)
    block = score(some, digits_dir, protocol, needs, (1, 2))
    assert score(some, digits_dir, protocol, needs, (2,)) == block[1:], "whatever block it is trained in"
    assert block[0].detail != block[1].detail
    assert block[0].status == "ok" and set(block[0].detail) == {"train_loss"}


def test_students_learn_from_the_teacher_without_labels(some, digits_dir, supply):
    protocol = settings(epochs=40, lr=0.01, batch=25)
    blind = DistilledSet(some.images, torch.zeros_like(some.labels), some.mean, some.std)
    (made,) = score(blind, digits_dir, protocol, supply(protocol))
    assert made.accuracy_last > 0.4


def test_the_teacher_is_the_squeezed_network_of_the_recovery():
    recipe, protocol = recipes.load("sre2l"), evaluation.config_of("sre2l")()
    for name in ("digits", "cifar10", "tiny_imagenet", "imagenet64"):
        for given in ({}, TEACHER):
            (theirs,) = recipe.needs(parse(recipe.Config, {"squeeze": given}, "t"), name)
            assert parse(type(protocol), {"teacher": given}, "t").needs(name, "dc", "train") == [theirs]
    (fit_only,) = protocol.needs("digits", "idc", "fit")
    assert (fit_only.split, fit_only.lineage) == ("fit", "idc")
    training = protocol.teacher.training
    assert [rate(training, e) for e in (0, 100, 200)] == pytest.approx([0.1, 0.05, 0.0])


def test_files_that_are_not_the_teacher_are_refused(some, digits_dir, supply, tmp_path):
    protocol = settings(epochs=1)
    ((file,),) = needs = supply(protocol)
    with pytest.raises(ArtifactError, match="needs one file, convnet3_bn_w16 pre-trained for 5 epochs; given: 0 needs"):
        score(some, digits_dir, protocol, [])
    for fields, word in (({"network": NET}, "network"), ({"epochs": 4}, "epoch"), ({"training": {"lr": 0.1}}, "training")):
        with pytest.raises(ArtifactError, match=f"{word}: is .*, needed is"):
            score(some, digits_dir, settings(epochs=1, teacher={**TEACHER, **fields}), needs)
    tensors, meta = load_tensors(file)
    save_tensors(tmp_path / "other.safetensors", tensors, {**meta, "fingerprint": "0"})
    with pytest.raises(ArtifactError, match="fingerprint: is '0'"):
        score(some, digits_dir, protocol, [[tmp_path / "other.safetensors"]])
    save_tensors(tmp_path / "lost.safetensors", tensors, {**meta, "diverged": {"epoch": 1}})
    (made,) = score(some, digits_dir, protocol, [[tmp_path / "lost.safetensors"]])
    assert made.detail["teacher_diverged"] == {"epoch": 1}


def test_settings_are_published():
    first = hashed(evaluation.config_of("sre2l")())
    assert {"lr": 0.001, "weight_decay": 0.01, "optimizer": "adamw", "schedule": "cosine", "epochs": 300, "batch": 1024, "temperature": 20.0,
            "view": "crop", "mix": "cutmix", "cutmix": 0.0, "augment": "none"}.items() <= first.items()  # fmt: skip
    cifar = hashed(evaluation.config_of("sre2l_cifar")())
    assert cifar == {**first, "epochs": 400, "batch": 128, "temperature": 30.0, "view": "shift", "mix": "mixup"}
    assert hashed(evaluation.config_of("sre2l_short")()) == {**cifar, "epochs": 200}
    with pytest.raises(ConfigError, match=r"cutmix: value 0\.5: is that of hard labels"):
        settings(cutmix=0.5)
    assert all("optimizer" not in hashed(evaluation.config_of(name)()) for name in evaluation.names() if not name.startswith("sre2l"))
