"""Expert trajectories: rows against a loop written here, and one file whatever interrupts the job."""

import hashlib
import itertools
import math
import shutil

import pytest
import torch

from dd import networks
from dd.artifacts import load_tensors, read_meta, save_tensors
from dd.config import hashed, parse
from dd.data.load import load, manifest, positions
from dd.data.whiten import whiten
from dd.errors import ArtifactError, DDError
from dd.rng import stream
from dd.train.config import ExpertConfig
from dd.train.experts import experts
from dd.train.pretrain import Stopped

NET = "convnet3_in_w8"
EPOCHS = 3


def make(digits_dir, network=NET, **fields):
    dataset = {"name": "digits", "fingerprint": manifest(digits_dir)["fingerprint"]}
    training = {"batch": 8, "lr": 0.05, **fields.pop("training", {})}
    about = {"dataset": dataset, "network": network, "epochs": EPOCHS, "images": 3, "training": training, **fields}
    return parse(ExpertConfig, about, "test")


@pytest.fixture(scope="module")
def config(digits_dir):
    return make(digits_dir)


def files(folder, seeds):
    return [folder / f"expert{seed}.safetensors" for seed in seeds]


def hidden(out):
    return out.parent / ".resume" / out.name


def bytes_of(paths):
    return [path.read_bytes() for path in paths]


def rows(path):
    return load_tensors(path)[0]["trajectory"]


def stop_at(call):
    calls = itertools.count(1)
    return lambda: next(calls) == call


def flat(net):
    return torch.cat([p.detach().flatten() for _, p in net.named_parameters()])


def naive(x, y, seed, *, lr, batch, epochs, network=NET):
    """Train in float64 with plain SGD, cross-entropy written out and no augmentation; return the rows."""
    net = networks.build(network, 1, (16, 16), 10, seed, "expert", network).double()
    rows = [flat(net).clone()]
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=stream(seed, "expert", network, "epoch", epoch))
        for start in range(0, len(x), batch):
            index = order[start : start + batch]
            loss = -net(x[index]).log_softmax(1)[torch.arange(len(index)), y[index]].mean()
            parameters = list(net.parameters())
            with torch.no_grad():
                for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    p -= lr * g
        rows.append(flat(net).clone())
    return torch.stack(rows)


def some_of(digits_dir, n, split="train"):
    """Return the first n images of each class, by counting, as (raw images in float64, labels)."""
    images, labels = load(digits_dir, split)
    counts, kept = [0] * 10, []
    for k, label in enumerate(labels.tolist()):
        counts[label] += 1
        if counts[label] <= n:
            kept.append(k)
    return images[kept].double() / 255, labels[kept]


@pytest.fixture(scope="module")
def whole(config, digits_dir, tmp_path_factory):
    """Experts 0 and 1 in one job; not to be changed."""
    made = files(tmp_path_factory.mktemp("whole"), [0, 1])
    experts(config, digits_dir, [0, 1], made)
    return made


def test_the_file_is_what_others_read(config, digits_dir, whole):
    for seed, path in enumerate(whole):
        tensors, meta = load_tensors(path)
        net = networks.build(NET, 1, (16, 16), 10, seed, "expert", NET)
        assert set(tensors) == {"trajectory"}
        found = tensors["trajectory"]
        assert found.dtype == torch.float32
        assert found.shape == (EPOCHS + 1, sum(p.numel() for p in net.parameters()))
        assert torch.equal(found[0], flat(net)), "row 0 is the initialisation"
        assert meta["rows"] == [hashlib.sha256(row.numpy().astype("<f4").tobytes()).hexdigest() for row in found]
        assert len(set(meta["rows"])) == EPOCHS + 1, "rows that are one memory would be equal"
        assert meta["config"] == hashed(config)
        assert (meta["seed"], meta["fingerprint"]) == (seed, manifest(digits_dir)["fingerprint"])
        assert (meta["channels"], meta["size"], meta["classes"]) == (1, [16, 16], 10)
        assert len(meta["train_loss"]) == len(meta["train_accuracy"]) == EPOCHS
        assert all(loss > 0 for loss in meta["train_loss"]) and all(0 <= value <= 1 for value in meta["train_accuracy"])
        assert set(meta) == {"config", "seed", "fingerprint", "channels", "size", "classes", "train_loss", "train_accuracy", "rows"}
    assert not (whole[0].parent / ".resume" / whole[0].name).exists()
    assert not torch.equal(rows(whole[0])[0], rows(whole[1])[0])


def test_rows_equal_those_of_a_naive_loop(digits_dir, tmp_path):
    (out,) = files(tmp_path, [4])
    experts(make(digits_dir, training={"augment": "none"}), digits_dir, [4], [out])
    x, y = some_of(digits_dir, 3)
    stats = manifest(digits_dir)["lineages"]["dc"]
    expected = naive((x - stats["mean"][0]) / stats["std"][0], y, 4, lr=0.05, batch=8, epochs=EPOCHS)
    found = rows(out).double()
    assert (found - expected).abs().max() < 1e-6
    assert (found.diff(dim=0).abs().amax(1) > 1e-3).all(), "the rows differ by far more than that"


def test_whitened_experts_and_those_of_fit(digits_dir, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits_dir, folder)
    settings = make(digits_dir, training={"augment": "none"}, lineage="zca", split="fit")
    (out,) = files(tmp_path, [0])
    with pytest.raises(ArtifactError, match=r"zca\.safetensors.*whiten"):
        experts(settings, folder, [0], [out])
    whiten(folder, folder / "zca.safetensors")
    experts(settings, folder, [0], [out])
    every = load(folder, "train")[0].double().flatten(1) / 255
    mean = every.mean(0)
    values, vectors = torch.linalg.eigh((every - mean).T @ (every - mean) / (len(every) - 1))
    transform = vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
    images, labels = load(folder, "train")
    fit = positions(folder, "fit").tolist()
    chosen = [k for c in range(10) for k in [j for j in fit if int(labels[j]) == c][:3]]
    x = (((images[chosen].double() / 255).flatten(1) - mean) @ transform).view(30, 1, 16, 16)
    expected = naive(x, labels[chosen], 0, lr=0.05, batch=8, epochs=EPOCHS)
    assert (rows(out).double() - expected).abs().max() < 2e-5
    plain = some_of(digits_dir, 3)[0]
    assert not torch.equal(plain, images[chosen].double() / 255), "the held-out tenth takes first images of some class"


def test_augmentation_is_used_by_default(config, digits_dir, tmp_path, whole):
    (out,) = files(tmp_path, [0])
    experts(make(digits_dir, training={"augment": "none"}), digits_dir, [0], [out])
    assert not torch.equal(rows(out)[1], rows(whole[0])[1])
    assert config.training.augment == "oneof"


def test_images_limits_each_class_and_more_than_there_are_is_all(digits_dir, tmp_path):
    found = {}
    for n in (1, 120, 10_000, None):
        (out,) = files(tmp_path / str(n), [0])
        experts(make(digits_dir, images=n, epochs=1, training={"batch": 2000, "augment": "none"}), digits_dir, [0], [out])
        found[n] = rows(out)
        x, y = some_of(digits_dir, n or 10_000)
        stats = manifest(digits_dir)["lineages"]["dc"]
        if n == 1:
            assert len(x) == 10
            expected = naive((x - stats["mean"][0]) / stats["std"][0], y, 0, lr=0.05, batch=2000, epochs=1)
            assert (found[n].double() - expected).abs().max() < 1e-6
    assert torch.equal(found[None], found[10_000])
    assert not torch.equal(found[None], found[120])


def test_the_block_does_not_matter(config, digits_dir, tmp_path, whole):
    outs = files(tmp_path, [1, 0])
    experts(config, digits_dir, [1], outs[:1])
    experts(config, digits_dir, [0], outs[1:])
    assert bytes_of(outs) == bytes_of(whole)[::-1]


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("save_every", [60.0, -1.0])
def test_a_stopped_job_continues_bit_for_bit(config, digits_dir, tmp_path, whole, after, save_every):
    outs = files(tmp_path, [0, 1])
    with pytest.raises(Stopped, match="start again"):
        experts(config, digits_dir, [0, 1], outs, stop=stop_at(after), save_every=save_every)
    assert not any(out.exists() for out in outs), "a block appears as a whole"
    finished = hidden(outs[0])
    before = finished.stat().st_ino
    asked = itertools.count()
    experts(config, digits_dir, [0, 1], outs, stop=lambda: next(asked) < 0)
    assert next(asked) == 2 * EPOCHS - after, "only the epochs that were missing"
    assert bytes_of(outs) == bytes_of(whole)
    assert (outs[0].stat().st_ino == before) == (after >= EPOCHS), "a finished expert is not made again"
    assert not any(hidden(out).exists() for out in outs)


def test_momentum_and_buffers_survive_a_resume(digits_dir, tmp_path):
    settings = make(digits_dir, "convnet3_bn_w8", training={"momentum": 0.9})
    straight, broken = files(tmp_path / "a", [0]), files(tmp_path / "b", [0])
    experts(settings, digits_dir, [0], straight)
    with pytest.raises(Stopped):
        experts(settings, digits_dir, [0], broken, stop=stop_at(2))
    saved, _ = load_tensors(hidden(broken[0]))
    assert saved["trajectory"].shape[0] == 3
    assert any("running_mean" in key for key in saved) and any(key.startswith("optimizer.") for key in saved)
    experts(settings, digits_dir, [0], broken)
    assert bytes_of(broken) == bytes_of(straight)
    names = [name for name, _ in networks.build("convnet3_bn_w8", 1, (16, 16), 10, 0).named_parameters()]
    assert not any("running" in name for name in names)
    assert rows(straight[0]).shape[1] == sum(saved[f"model.{name}"].numel() for name in names), "no buffers in the rows"


def test_killed_in_the_second_expert_keeps_the_first(config, digits_dir, tmp_path, whole, monkeypatch):
    from dd.train import experts as module

    outs = files(tmp_path, [0, 1])
    advance, calls = module.Expert.advance, itertools.count(1)

    def dying(self, pool):
        if next(calls) == EPOCHS + 2:
            raise KeyboardInterrupt
        advance(self, pool)

    monkeypatch.setattr(module.Expert, "advance", dying)
    with pytest.raises(KeyboardInterrupt):
        experts(config, digits_dir, [0, 1], outs)
    assert hidden(outs[0]).read_bytes() == whole[0].read_bytes()
    experts(config, digits_dir, [0, 1], outs)
    assert next(calls) == EPOCHS + 2 + EPOCHS + 1, "the first expert is not trained again"
    assert bytes_of(outs) == bytes_of(whole)


def test_files_that_are_right_are_kept_and_others_replaced(config, digits_dir, tmp_path, whole):
    outs = files(tmp_path, [0, 1])
    shutil.copy(whole[0], outs[0])
    shutil.copy(whole[0], outs[1])  # of another seed
    hidden(outs[1]).parent.mkdir()
    hidden(outs[1]).write_bytes(b"torn")
    kept = outs[0].stat().st_ino
    experts(config, digits_dir, [0, 1], outs)
    assert bytes_of(outs) == bytes_of(whole)
    assert outs[0].stat().st_ino == kept
    damaged = bytearray(outs[0].read_bytes())
    damaged[-9] ^= 1
    outs[0].write_bytes(bytes(damaged))
    experts(config, digits_dir, [0, 1], outs)
    assert bytes_of(outs) == bytes_of(whole)


def test_what_does_not_fit_is_not_continued(config, digits_dir, tmp_path, whole):
    for n, spoil in enumerate(("config", "rows", "epoch")):
        outs = files(tmp_path / str(n), [0])
        other = make(digits_dir, training={"lr": 0.2}) if spoil == "config" else config
        with pytest.raises(Stopped):
            experts(other, digits_dir, [0], outs, stop=stop_at(2))
        tensors, meta = load_tensors(hidden(outs[0]))
        if spoil == "rows":
            save_tensors(hidden(outs[0]), {**tensors, "trajectory": tensors["trajectory"][:2]}, meta)
        if spoil == "epoch":
            save_tensors(hidden(outs[0]), tensors, {**meta, "epoch": 1})
        experts(config, digits_dir, [0], outs)
        assert bytes_of(outs) == bytes_of(whole[:1])


def test_an_expert_that_diverges_is_an_error_with_the_key_to_change(digits_dir, tmp_path, monkeypatch, capsys):
    outs = files(tmp_path, [3])
    with pytest.raises(DDError, match=r"expert 3 of convnet3_in_w8: diverged in epoch 1 of 3 .*training\.lr: value 1e\+18") as caught:
        experts(make(digits_dir, training={"lr": 1e18}), digits_dir, [3], outs)
    assert "smaller" in str(caught.value)
    assert not outs[0].exists() and not hidden(outs[0]).exists()
    from dd.train import pretrain as module

    real, calls = module.fit, itertools.count(1)

    def breaking(net, *args, **named):
        fitted = real(net, *args, **named)
        if next(calls) == EPOCHS + 2:
            fitted.diverged = {"epoch": 1, "step": 5, "loss": "nan", "grad_norm": "nan"}
        return fitted

    monkeypatch.setattr(module, "fit", breaking)
    outs = files(tmp_path, [0, 1])
    with pytest.raises(DDError, match=r"expert 1 of .*: diverged in epoch 2 of 3"):
        experts(make(digits_dir), digits_dir, [0, 1], outs)
    assert not any(out.exists() for out in outs)
    assert read_meta(hidden(outs[0]))["seed"] == 0, "the finished one is kept"


def test_the_dataset_must_be_the_configured_one(config, digits_dir, tmp_path):
    other = config.model_copy(update={"dataset": config.dataset.model_copy(update={"fingerprint": "f" * 64})})
    with pytest.raises(ArtifactError, match="fingerprint: is"):
        experts(other, digits_dir, [0], files(tmp_path, [0]))


def test_experts_learn(digits_dir, tmp_path):
    (out,) = files(tmp_path, [0])
    experts(make(digits_dir, images=60, epochs=4, training={"batch": 16}), digits_dir, [0], [out])
    losses = read_meta(out)["train_loss"]
    assert losses[-1] < 0.7 * losses[0] < 0.7 * 2 * math.log(10)
