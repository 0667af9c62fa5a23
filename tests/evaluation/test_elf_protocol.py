"""ELF from end to end: what its features are, what students learn from them, and which files are refused."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
from elf_small import NET, settings

from dd import networks
from dd.artifacts import load_tensors, save_tensors
from dd.data.load import load, manifest, normalisation
from dd.data.pool import RealPool
from dd.data.whiten import whiten
from dd.errors import ArtifactError, ConfigError
from dd.evaluation import elf
from dd.evaluation.protocols.elf import Elf
from dd.evaluation.run import evaluate
from dd.rng import stream
from dd.train.pretrain import load_network
from dd.train.supervised import accuracy, fit
from dd.types import DistilledSet

# Features.


@pytest.mark.parametrize("name", ["convnet3_in_w8", "convnet3_bn_w8", "vgg11_bn_w8_imagenet"])
def test_features_are_those_of_eval_mode_in_the_order_of_the_set(name, monkeypatch):
    side, n = networks.smallest(name), 11
    net = networks.build(name, 1, (side, side), 10, 0).train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.fill_(0.1)
                module.running_var.fill_(2.0)
    x = torch.randn(n, 1, side, side, generator=stream(0, "x"))
    asked = []

    def fetch(index):
        asked.append(index.tolist())
        return x[index], index

    monkeypatch.setattr(elf, "BATCH", 4)
    chunks = elf.features(net, fetch, n, 1, "cpu")
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    monkeypatch.setattr(elf, "BATCH", 500)
    whole = elf.features(net, fetch, n, 1, "cpu")
    torch.testing.assert_close(chunks, whole)
    net.eval()
    h = x
    for block in list(net.blocks)[:2]:
        h = block(h)
    torch.testing.assert_close(whole, h.detach())
    assert not whole.requires_grad
    assert whole.dtype == torch.float32


# From end to end, on digits.


@pytest.fixture(scope="module")
def digits(digits_dir):
    facts = manifest(digits_dir)
    stats = facts["lineages"]["dc"]
    return RealPool(*load(digits_dir, "train"), 10, **stats), RealPool(*load(digits_dir, "test"), 10, **stats)


def random_set(digits, ipc, *, images=True):
    train, _ = digits
    index = train.draw(stream(0, "test"), ipc).flatten()
    x = train.raw(index) if images else torch.empty(0, 1, 16, 16)
    return DistilledSet(x, train.y(index), *train.statistics, indices=index)


def score(distilled, digits_dir, protocol, needs, nets=(0,), network=NET):
    return evaluate(distilled, network, "elf", protocol, digits_dir, 0, nets, needs=needs)


@pytest.mark.parametrize(
    ("student", "stage", "fields"),
    [(NET, 2, {}), ("convnet3_bn_w8", 2, {"distance": "mse", "front": 2.0}), ("resnet18_bn_w2", 6, {"stage": 6, "rear": 0.5})],
)
def test_it_is_the_supervised_loop_with_features_of_the_set(digits, digits_dir, supply, student, stage, fields):
    own = {"network": "convnet3_in_w8", "epochs": 1} | ({"stage": 1} if "resnet" in student else {})
    protocol = settings(features=own, **fields)
    needs = supply(protocol)
    distilled = random_set(digits, 2)
    (made,) = score(distilled, digits_dir, protocol, needs, nets=[3], network=student)
    assert made.protocol == "elf"
    train, test = digits
    x, y = train.x(distilled.indices), distilled.labels
    teacher = load_network(needs[0][0]).eval()
    f = x
    with torch.no_grad():
        for block in list(teacher.blocks)[: 2 if "resnet" in student else 3]:
            f = block(f)

    def loss(net, augmented, labels, index):
        h = augmented
        for block in list(net.blocks)[: stage + 1]:
            h = block(h)
        z, zf = h, f[index]
        for block in list(net.blocks)[stage + 1 :]:
            z = block(z)
        for block in list(net.blocks)[stage + 1 :]:
            zf = block(zf)
        logits, of_features = net.head(z.flatten(1)), net.head(zf.flatten(1))
        cross = lambda values: -values.log_softmax(1)[torch.arange(len(labels)), labels].mean()  # noqa: E731
        apart = ((h - f[index]) ** 2).mean() if protocol.distance == "mse" else -(f[index] * h.log_softmax(1)).sum(1).mean()
        return cross(logits) + protocol.rear * cross(of_features) + protocol.front * apart, logits

    net = networks.build(student, 1, (16, 16), 10, 0, "evaluate", student, 3)
    fitted = fit(net, lambda i: (x[i], y[i]), 20, protocol, seed=0, names=("evaluate", student, 3), first_epoch=0, last_epoch=4,
                 shape=(1, 16, 16), flip=False, use="eval", loss=loss)  # fmt: skip
    assert made.detail["train_loss"] == pytest.approx(fitted.loss, rel=1e-4)
    assert made.detail["feature_bytes"] == f.numel() * 4 == 20 * 8 * f.shape[2] * f.shape[3] * 4
    assert made.accuracy_last == pytest.approx(accuracy(net, lambda i: (test.x(i), test.y(i)), len(test), 10)[0], abs=2.5 / 360)


def test_scores_are_deterministic_and_blocks_of_nets_do_not_matter(digits, digits_dir, supply):
    protocol = settings()
    needs, distilled = supply(protocol), random_set(digits, 2)
    together = score(distilled, digits_dir, protocol, needs, nets=range(2))
    state = torch.get_rng_state()
    apart = [*score(distilled, digits_dir, protocol, needs), *score(distilled, digits_dir, protocol, needs, nets=[1])]
    assert together == apart
    assert torch.equal(torch.get_rng_state(), state)
    assert together[0].detail["train_loss"] != together[1].detail["train_loss"]
    assert {made.detail["feature_bytes"] for made in together} == {20 * 8 * 2 * 2 * 4}
    assert score(random_set(digits, 2, images=False), digits_dir, protocol, needs) == together[:1], "positions say as much as images"


def test_without_its_features_it_is_the_protocol_dc(digits, digits_dir, supply):
    from dd.evaluation.protocols.dc import Dc

    distilled, protocol = random_set(digits, 2), settings(front=0, rear=0, align_corners=False)
    (elf_score,) = score(distilled, digits_dir, protocol, supply(protocol), network="convnet3_bn_w8")
    (dc_score,) = evaluate(distilled, "convnet3_bn_w8", "dc", Dc(epochs=3, lr=0.02), digits_dir, 0, [0])
    bytes_ = elf_score.detail.pop("feature_bytes")
    assert bytes_ == 20 * 8 * 2 * 2 * 4
    assert dataclasses.replace(elf_score, protocol="dc") == dc_score
    assert score(distilled, digits_dir, settings(), supply(protocol))[0].detail["train_loss"] != dc_score.detail["train_loss"]


def test_a_network_with_dropout_learns_and_its_masks_are_a_function_of_the_seed(digits_dir, digits):
    """One whose front fits nothing is refused before; this is the rear alone, on features of its own shape."""
    x = torch.randn(6, 1, 32, 32, generator=stream(0, "x"))
    y = torch.arange(6)
    f = torch.rand(6, 64, 2, 2, generator=stream(0, "f"))
    losses = []
    for seed in (0, 0, 1):
        net = networks.build("vgg11_bn_w8_imagenet", 1, (32, 32), 10, 0)
        fitted = fit(net, lambda i: (x[i], y[i]), 6, Elf(epochs=2, batch=3), seed=seed, names=("test",), first_epoch=0, last_epoch=2,
                     shape=(1, 32, 32), flip=False, loss=elf.student_loss(f, 5, Elf()))  # fmt: skip
        losses.append(fitted.loss)
    assert losses[0] == losses[1] != losses[2]


def test_soft_labels_are_targets_of_both_cross_entropies(digits, digits_dir, supply):
    distilled, protocol = random_set(digits, 2), settings()
    soft = dataclasses.replace(distilled, labels=torch.nn.functional.one_hot(distilled.labels, 10).float())
    (one,), (other,) = (score(made, digits_dir, protocol, supply(protocol)) for made in (distilled, soft))
    assert one.detail["train_loss"] == pytest.approx(other.detail["train_loss"], rel=1e-5)


def test_a_training_that_diverges_is_a_score(digits, digits_dir, supply):
    protocol = settings(lr=1e18)
    (made,) = score(random_set(digits, 2), digits_dir, protocol, supply(protocol))
    assert made.status == "diverged"
    assert made.detail["diverged_in"] == "training"
    assert made.detail["feature_bytes"] == 20 * 8 * 2 * 2 * 4
    json.dumps(dataclasses.asdict(made), allow_nan=False)


def test_features_of_a_whitened_set_are_those_of_its_whitened_images(digits, digits_dir, supply, tmp_path):
    copy, protocol = tmp_path / "digits", settings()
    shutil.copytree(digits_dir, copy)
    whiten(copy, copy / "zca.safetensors")
    ((file,),) = needs = supply(protocol, "zca", copy)
    assert file != supply(protocol)[0][0]
    distilled = dataclasses.replace(random_set(digits, 2), zca=True, mean=torch.zeros(1), std=torch.ones(1))
    (made,) = score(distilled, copy, protocol, needs)
    x = normalisation(copy, "zca").apply(distilled.images)
    f = load_network(file).eval().stages(x)[2].detach()
    net = networks.build(NET, 1, (16, 16), 10, 0, "evaluate", NET, 0)
    fitted = fit(net, lambda i: (x[i], distilled.labels[i]), 20, protocol, seed=0, names=("evaluate", NET, 0), first_epoch=0, last_epoch=4,
                 shape=(1, 16, 16), flip=False, use="eval", loss=elf.student_loss(f, 2, protocol))  # fmt: skip
    assert made.detail["train_loss"] == pytest.approx(fitted.loss, rel=1e-4)


def test_a_student_that_does_not_fit_is_refused(digits, digits_dir, supply):
    protocol = settings()
    with pytest.raises(ConfigError, match="stage 2 of convnet3_in_w16 gives 16x2x2, features of convnet3_in_w8 are 8x2x2; no stage"):
        score(random_set(digits, 1), digits_dir, protocol, supply(protocol), network="convnet3_in_w16")


def rewritten(file, out, **changes):
    """Copy a checkpoint with other metadata; a key with a dot is one of the configuration's."""
    tensors, meta = load_tensors(file)
    for key, value in changes.items():
        (meta["config"] if key in ("network", "training") else meta)[key] = value
    save_tensors(out, tensors, meta)
    return [[out]]


def test_features_of_another_network_are_refused(digits, digits_dir, supply, tmp_path):
    protocol, distilled = settings(), random_set(digits, 1)
    ((file,),) = supply(protocol)
    config = load_tensors(file)[1]["config"]
    for key, value, wanted in [
        ("network", "convnet3_bn_w8", "'convnet3_in_w8'"),
        ("epoch", 2, "1"),
        ("fingerprint", "sha256:0", repr(manifest(digits_dir)["fingerprint"])),
        ("training", {**config["training"], "lr": 0.5}, "{"),
    ]:
        out = tmp_path / f"{key}.safetensors"
        match = rf"{re.escape(str(out))}: {key}: is .*, needed is {re.escape(wanted)}"
        with pytest.raises(ArtifactError, match=match):
            score(distilled, digits_dir, protocol, rewritten(file, out, **{key: value}))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=re.escape(str(damaged))):
        score(distilled, digits_dir, protocol, [[damaged]])
    with pytest.raises(ArtifactError, match=r"nothing\.safetensors: no such file"):
        score(distilled, digits_dir, protocol, [[tmp_path / "nothing.safetensors"]])
    for needs in ([], [[]], [[file, file]], [[file], [file]]):
        with pytest.raises(ArtifactError, match="protocol elf: needs one file, convnet3_in_w8 pre-trained for 1 epochs"):
            score(distilled, digits_dir, protocol, needs)


def test_a_really_other_network_is_refused(digits, digits_dir, supply):
    for other in ({"network": "convnet3_bn_w8", "epochs": 1}, {"network": NET, "epochs": 0}, {"network": NET, "epochs": 1, "training": {"lr": 0.5}}):  # fmt: skip
        with pytest.raises(ArtifactError, match="needed is"):
            score(random_set(digits, 1), digits_dir, settings(), supply(settings(features=other)))


def test_a_feature_network_that_diverged_is_named_beside_the_score(digits_dir, supply, tmp_path):
    protocol = settings()
    (file,) = supply(protocol)[0]
    tensors, meta = load_tensors(file)
    where = {"epoch": 0, "step": 3, "loss": "nan", "grad_norm": "nan"}
    save_tensors(tmp_path / "net.safetensors", {name: value * float("nan") for name, value in tensors.items()}, {**meta, "diverged": where})
    train = load(digits_dir, "train")
    distilled = DistilledSet(train[0][:4].float() / 255, train[1][:4], torch.zeros(1), torch.ones(1))
    (score,) = evaluate(distilled, "convnet3_in_w8", "elf", protocol, digits_dir, 0, [0], needs=[[tmp_path / "net.safetensors"]])
    assert score.status == "diverged"
    assert score.detail["features_diverged"] == where
    (score,) = evaluate(distilled, "convnet3_in_w8", "elf", protocol, digits_dir, 0, [0], needs=[[file]])
    assert score.status == "ok" and "features_diverged" not in score.detail
