"""The generator's training: its formulas against naive versions, and a chain of milestones that equals one long training."""

import copy
import itertools
import math

import pytest
import torch

from dd.artifacts import load_tensors, read_meta, save_tensors
from dd.config import hashed, parse
from dd.data.load import load, manifest
from dd.errors import ArtifactError, ConfigError
from dd.generators import to_gan
from dd.generators.discriminator import Discriminator
from dd.train.gan import GanLearner, ema_decay, load_generator, r1_penalty, train, translate
from dd.train.gan_config import GanConfig
from dd.train.pretrain import Stopped

SHORT = {"batch": 256, "lr": 5e-3, "r1_every": 3}  # 5 updates an epoch


def make(digits_dir, generator="mini_w2", **training):
    fingerprint = manifest(digits_dir)["fingerprint"]
    about = {"dataset": {"name": "digits", "fingerprint": fingerprint}, "generator": generator, "training": {**SHORT, **training}}
    return parse(GanConfig, about, "test")


def stop_at(call):
    calls = itertools.count(1)
    return lambda: next(calls) == call


@pytest.fixture(scope="module")
def config(digits_dir):
    return make(digits_dir)


@pytest.fixture(scope="module")
def whole(config, digits_dir, tmp_path_factory):
    """From nothing to epoch 2 in one job; not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "epoch2.safetensors"
    train(config, digits_dir, 2, out)
    return out


def test_a_chain_of_milestones_equals_one_job_bitwise(config, digits_dir, tmp_path, whole):
    files = [tmp_path / f"epoch{epoch}.safetensors" for epoch in range(3)]
    torch.manual_seed(1)  # the global generator plays no part
    train(config, digits_dir, 0, files[0])
    train(config, digits_dir, 1, files[1], files[0], 0)
    train(config, digits_dir, 2, files[2], files[1], 1)
    assert files[2].read_bytes() == whole.read_bytes()
    _, meta = load_tensors(whole)
    assert meta["config"] == hashed(config)
    assert (meta["epoch"], meta["step"], meta["seed"], meta["diverged"]) == (2, 10, 0, None)
    assert (meta["channels"], meta["size"], meta["classes"]) == (1, [16, 16], 10)
    assert all(math.isfinite(value) for value in meta["health"].values())
    assert 0 <= meta["health"]["real_above_zero"] <= 1


@pytest.mark.parametrize("call", [1, 5, 8])  # after the first update, at the end of epoch 1, in the middle of epoch 2
def test_stopped_and_continued_equals_uninterrupted_bitwise(config, digits_dir, tmp_path, whole, call):
    out = tmp_path / "epoch2.safetensors"
    with pytest.raises(Stopped, match=f"after update {call} of 10"):
        train(config, digits_dir, 2, out, stop=stop_at(call))
    assert not out.exists()
    kept = tmp_path / ".resume" / out.name
    assert read_meta(kept)["step"] == call
    train(config, digits_dir, 2, out, save_every=0.0)
    assert out.read_bytes() == whole.read_bytes()
    assert not kept.exists()
    before = out.stat().st_mtime_ns
    train(config, digits_dir, 2, out, stop=lambda: True)  # nothing is left to do
    assert out.stat().st_mtime_ns == before


def test_what_an_interrupted_job_left_is_used_only_where_it_is_sound(config, digits_dir, tmp_path, whole):
    kept = tmp_path / ".resume" / "epoch2.safetensors"
    tensors, meta = load_tensors(whole)
    half = {key: value for key, value in tensors.items() if not key.startswith("optimizer.discriminator")}
    save_tensors(kept, half, {**meta, "step": 7})  # weights that fit, without their optimizer: taken over whole or not at all
    train(config, digits_dir, 2, tmp_path / "epoch2.safetensors")
    assert (tmp_path / "epoch2.safetensors").read_bytes() == whole.read_bytes()


def test_a_file_of_another_training_is_refused(config, digits_dir, tmp_path, whole):
    out = tmp_path / "out.safetensors"
    with pytest.raises(ArtifactError, match="seed: is 0, this job continues 1"):
        train(config, digits_dir, 3, out, whole, 2, seed=1)
    with pytest.raises(ArtifactError, match="step: is 10"):
        train(config, digits_dir, 3, out, whole, 1)
    with pytest.raises(ArtifactError, match="config"):
        train(make(digits_dir, lr=1e-3), digits_dir, 3, out, whole, 2)
    with pytest.raises(ConfigError, match="continued from epoch 2"):
        train(config, digits_dir, 1, out, whole, 2)
    with pytest.raises(ConfigError, match="missing"):
        train(config, digits_dir, 3, out, None, 2)
    with pytest.raises(ConfigError, match=r"flip.*allowed: none, translation"):
        train(make(digits_dir, augment="flip"), digits_dir, 1, out)
    with pytest.raises(ConfigError, match=r"batch: value 9999.*1437"):
        train(make(digits_dir, batch=9999), digits_dir, 1, out)
    with pytest.raises(ConfigError, match=r"generator: value 'minj'.*did you mean 'mini'"):
        make(digits_dir, generator="minj")
    assert not out.exists()


def test_a_generator_is_loaded_with_its_average_for_use(config, whole):
    state = torch.get_rng_state()
    g = load_generator(whole)
    assert torch.equal(torch.get_rng_state(), state)
    tensors, _ = load_tensors(whole)
    assert not g.training
    assert not any(p.requires_grad for p in g.parameters())
    for name, value in g.state_dict().items():
        assert torch.equal(value, tensors[f"generator.{name}"])
    assert not torch.equal(tensors["generator.constant"], tensors["live.constant"])
    with pytest.raises(ArtifactError, match="no such file"):
        load_generator(whole.with_name("absent.safetensors"))
    with pytest.raises(ConfigError, match=r"epoch2\.safetensors: classes: given for a generator that is no StyleGAN-XL"):
        load_generator(whole, classes=list(range(10)))


def test_a_training_that_diverges_is_noted_and_repeated_by_later_milestones(digits_dir, tmp_path, capsys):
    config = make(digits_dir, lr=1e30)
    one, two = tmp_path / "epoch1.safetensors", tmp_path / "epoch2.safetensors"
    train(config, digits_dir, 1, one)
    train(config, digits_dir, 2, two, one, 1)
    first, second = read_meta(one), read_meta(two)
    assert first["diverged"]["epoch"] == 0
    assert 0 <= first["diverged"]["step"] < 5
    assert second["diverged"] == first["diverged"]
    assert (second["epoch"], second["step"]) == (2, 10)
    assert capsys.readouterr().err.count("diverged") == 1
    with pytest.raises(ArtifactError, match="its training diverged"):
        load_generator(two)


def test_the_penalty_is_the_squared_gradient_and_its_gradient_a_double_backward():
    torch.manual_seed(0)
    net = Discriminator(1, (16, 16), 3, 2).double()
    x, y = torch.randn(4, 1, 16, 16).double(), torch.tensor([0, 1, 2, 0])
    value = r1_penalty(net, x, y)
    weight = net.hidden.weight
    (slope,) = torch.autograd.grad(value, weight)

    def naive():
        """Return the mean of ||J^T 1||^2 from the whole Jacobian, logit by logit."""
        jacobian = torch.autograd.functional.jacobian(lambda image: net(image, y), x)  # (4, 4, 1, 16, 16)
        return jacobian.sum(0).square().sum((1, 2, 3)).mean()

    torch.testing.assert_close(value.detach(), naive())
    direction, h = torch.randn(weight.shape).double(), 1e-5
    with torch.no_grad():
        weight += h * direction
        up = naive()
        weight -= 2 * h * direction
        down = naive()
    torch.testing.assert_close((slope * direction).sum(), (up - down) / (2 * h), rtol=1e-5, atol=1e-8)


def test_the_average_keeps_half_after_its_half_life_and_begins_as_a_copy():
    assert ema_decay(0, 32, 20000, 0.05) == 0
    assert ema_decay(1000, 32, 20000, 0.05) == pytest.approx(2 ** (-32 / 50))  # ramp: 5 % of what was seen
    assert ema_decay(10**7, 32, 20000, 0.05) == pytest.approx(2 ** (-32 / 20000))
    assert ema_decay(10**7, 32, 20000, 0.05) ** (20000 / 32) == pytest.approx(0.5)


def test_an_update_is_logistic_losses_a_lazy_penalty_and_adam(config, digits_dir, monkeypatch):
    """The first update, in float64, against Adam written out."""
    learner, t = GanLearner(config, digits_dir, 0, "cpu"), config.training
    for net in learner._parts().values():
        net.double()
    z, y = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0)).double(), torch.arange(16).reshape(2, 8) % 10
    draws = iter(zip(z, y, strict=True))
    monkeypatch.setattr(learner, "_latents", lambda numbers: next(draws))
    x, labels = to_gan(learner.images[:8]).double(), learner.labels[:8]
    live, judge = copy.deepcopy(learner.live), copy.deepcopy(learner.discriminator)
    learner._update(x, labels)

    def step(net, loss, lr, beta2, squares, number):
        """Make a step of Adam without momentum; `squares` are its averages of squared gradients."""
        gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(net.parameters(), gradients, strict=True)):
                if g is None:  # the last bias, which no slope depends on
                    continue
                squares[i] = beta2 * squares.get(i, 0.0) + (1 - beta2) * g * g
                p -= lr * g / ((squares[i] / (1 - beta2**number)).sqrt() + 1e-8)

    lazy, squares = 3 / 4, {}
    real, false = judge(x, labels).sigmoid(), judge(live(z[0], y[0]), y[0]).sigmoid()
    step(judge, -real.log().mean() - (1 - false).log().mean(), t.lr * lazy, 0.99**lazy, squares, 1)
    image = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(judge(image, labels).sum(), image, create_graph=True)
    step(judge, 3 * t.r1_gamma / 2 * slope.square().flatten(1).sum(1).mean(), t.lr * lazy, 0.99**lazy, squares, 2)
    step(live, -judge(live(z[1], y[1]), y[1]).sigmoid().log().mean(), t.lr, 0.99, {}, 1)
    for net, expected in ((learner.discriminator, judge), (learner.live, live), (learner.generator, live)):
        for name, p in expected.named_parameters():
            torch.testing.assert_close(net.get_parameter(name), p.detach(), rtol=1e-7, atol=1e-7)


def test_the_average_follows_and_the_penalty_is_lazy(config, digits_dir):
    learner, t = GanLearner(config, digits_dir, 0, "cpu"), config.training
    counts = []
    for done in range(4):
        before = {name: p.clone() for name, p in learner.generator.named_parameters()}
        learner.advance()
        decay = ema_decay(done * t.batch, t.batch, t.ema_half_life, t.ema_ramp)
        for name, p in learner.live.named_parameters():
            average = decay * before[name] + (1 - decay) * p.detach()
            torch.testing.assert_close(learner.generator.get_parameter(name), average, rtol=1e-6, atol=1e-6)
        counts.append(int(learner.d_adam.state[learner.discriminator.first.weight]["step"]))
    assert counts == [2, 3, 4, 6]  # one more at updates 0 and 3
    assert int(learner.g_adam.state[learner.live.constant]["step"]) == 4


def test_an_epoch_is_a_shuffled_pass_over_the_split_in_whole_batches(config, digits_dir, monkeypatch):
    learner = GanLearner(config, digits_dir, 0, "cpu")
    images, labels = load(digits_dir, "train")
    seen = []
    monkeypatch.setattr(learner, "_update", lambda x, y: seen.append((x, y)))
    monkeypatch.setattr(learner, "_look", lambda epoch: None)
    for _ in range(10):
        learner.advance()
    rows = [{bytes(row) for row in torch.cat([x for x, _ in part]).add(1).mul(127.5).round().byte().flatten(1).numpy()}
            for part in (seen[:5], seen[5:])]  # fmt: skip
    everything = {bytes(row) for row in images.flatten(1).numpy()}
    assert all(len(part) == 5 * 256 and part <= everything for part in rows)  # no two digits are equal
    assert not torch.equal(seen[0][0], seen[5][0])
    x, y = seen[3]
    for image, label in zip(x[:5], y[:5], strict=True):
        at = (to_gan(images) == image).flatten(1).all(1).nonzero().item()
        assert labels[at] == label


def test_translation_moves_by_whole_pixels_and_brings_in_background():
    x = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    by = torch.tensor([[0, 0], [2, -1], [-2, 2]])
    moved = translate(x, by)
    for image, (down, right), got in zip(x, by.tolist(), moved, strict=True):
        for row in range(16):
            for column in range(16):
                inside = 0 <= row - down < 16 and 0 <= column - right < 16
                expected = image[:, row - down, column - right] if inside else torch.full((2,), -1.0)
                assert torch.equal(got[:, row, column], expected)
    (gradient,) = torch.autograd.grad(moved.sum(), x)
    assert gradient.sum().item() == moved.numel() - 2 * (256 - 14 * 15 + 256 - 14 * 14)


def test_augmentation_does_not_touch_what_r1_sees_and_flips_only_real_images(digits_dir, monkeypatch):
    learner = GanLearner(make(digits_dir, augment="translation"), digits_dir, 0, "cpu")
    given = []
    monkeypatch.setattr("dd.train.gan.r1_penalty", lambda net, x, y: given.append(x) or net(x, y).sum())
    monkeypatch.setattr("dd.train.gan.translate", lambda x, by: (given.append(by), x)[1])
    learner.advance()
    assert [tuple(value.shape) for value in given] == [(256, 2), (256, 2), (256, 1, 16, 16), (256, 2)]  # real, false, R1, G
    assert all(value.unique().tolist() == [-2, -1, 0, 1, 2] for value in (given[0], given[1], given[3]))
    assert not torch.equal(given[0], given[1])
    real = to_gan(learner.images)
    assert all((real == image).flatten(1).all(1).any() for image in given[2][:10])

    monkeypatch.setitem(learner.facts, "flip", True)
    object.__setattr__(learner, "config", make(digits_dir, augment="flip"))
    x = real[:64]
    flipped = learner._flip(x, torch.Generator().manual_seed(0))
    same = (flipped == x).flatten(1).all(1)
    assert 16 < same.sum() < 48
    assert torch.equal(flipped[~same], x[~same].flip(3))
    assert learner._augment(x, torch.Generator()) is x
