"""SRe2L: recovery is what it says, update by update; also of latents; and it teaches more than random images do."""

import math

import pytest
import torch
import torch.nn.functional as F

from dd import evaluation, recipes
from dd.annealing import CosineAdam
from dd.augment.views import Views
from dd.blocks import mixed
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest
from dd.data.registry import DATASETS
from dd.distill import Stopped, distill
from dd.errors import ConfigError
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.rng import stream
from dd.train.config import PretrainConfig, Training
from dd.train.gan import train
from dd.train.gan_config import GanConfig
from dd.train.pretrain import load_network, pretrain
from dd.train.squeeze import Squeeze

NET = "convnet3_bn_w16"
SQUEEZE = {"network": NET, "epochs": 6, "training": {"lr": 0.05, "batch": 64, "epochs": 6}}


def fields(**given):
    return parse(recipes.load("sre2l").Config, {"squeeze": SQUEEZE, **given}, "test")


def configure(ipc=2, **given):
    return DistillConfig(dataset=Dataset(name="digits"), method="sre2l", ipc=ipc, recipe=hashed(fields(**given)))


@pytest.fixture(scope="module")
def squeezed(digits_dir, tmp_path_factory):
    """Return the file of the squeezed network."""
    (need,) = recipes.load("sre2l").needs(fields(), "digits")
    file = tmp_path_factory.mktemp("squeezed") / "epoch6.safetensors"
    config = PretrainConfig(dataset=Dataset(name="digits"), network=need.network, training=parse(Training, need.config, "test"))
    pretrain(config, digits_dir, *need.epochs, list(need.seeds), [file])
    return file


@pytest.fixture(scope="module")
def generator(digits_dir, tmp_path_factory):
    file = tmp_path_factory.mktemp("gan") / "epoch0.safetensors"
    train(GanConfig(dataset=Dataset(name="digits"), generator="mini_w16"), digits_dir, 0, file)
    return file


def recovered(config, digits_dir, file, out):
    distill(config, digits_dir, [[file]] if isinstance(file, type(out)) else [[one] for one in file], 0, out)
    return read_distilled(out / "distilled.safetensors", digits_dir)


@pytest.mark.parametrize("given", [{"batch": 8}, {"batch": 100, "crop": True, "roll": [-2, 2]}])
def test_it_is_each_block_recovered_alone_by_adam_along_a_cosine(given, squeezed, digits_dir, tmp_path):
    ipc, steps, weight = 2, 5, 0.05
    config = configure(ipc, iterations=steps, r_bn=weight, **given)
    found = recovered(config, digits_dir, squeezed, tmp_path)
    stats = manifest(digits_dir)["lineages"]["dc"]
    mean, std = (torch.tensor(stats[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    net = load_network(squeezed).eval().requires_grad_(False)
    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    inputs = {}
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda module, x, number=number: inputs.__setitem__(number, x[0]))
    noise = torch.randn(20, 1, 16, 16, generator=stream(0, "noise"))
    labels = torch.arange(10).repeat_interleave(ipc)
    views = Views(crop=given.get("crop", False), roll=tuple(given.get("roll", (0, 4))))
    wanted = torch.empty(20, 1, 16, 16)
    blocks = mixed(10, ipc, given["batch"])
    assert len(blocks) == (3 if given["batch"] == 8 else 1)
    for number, block in enumerate(blocks):
        x = noise[block].clamp((0 - mean) / std, (1 - mean) / std).requires_grad_()
        adam = torch.optim.Adam([x], lr=0.25, betas=(0.5, 0.9))
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)))
        for step in range(steps):
            params = views.draw(stream(0, "view", step, number), 1, (1, 16, 16), shared=True)
            loss = F.cross_entropy(net(views.apply(x, params, torch.zeros(len(x), dtype=torch.int64))), labels[block])
            for layer, h in inputs.items():
                mu, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
                apart = (mu - layers[layer].running_mean).norm() + (var - layers[layer].running_var).norm()
                loss = loss + weight * (10 if layer == 0 else 1) * apart
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_((0 - mean) / std, (1 - mean) / std)
        wanted[block] = x.detach() * std + mean
    assert torch.allclose(found.images, wanted, atol=1e-4)
    assert torch.equal(found.labels, labels)
    assert found.images.min() >= -1e-6 and found.images.max() <= 1 + 1e-6
    assert (found.images == 0).any() or (found.images < 1e-6).any(), "noise reaches the ends"


def test_a_stopped_run_ends_with_the_same_bytes_and_publishes_whole_sets(squeezed, digits_dir, tmp_path):
    config = configure(2, iterations=6, batch=8, steps=[0, 3, 6])
    whole = recovered(config, digits_dir, squeezed, tmp_path / "whole")
    stops = 0
    while True:
        try:
            distill(config, digits_dir, [[squeezed]], 0, tmp_path / "parts", stop=lambda: True)
            break
        except Stopped:
            stops += 1
    assert stops == 6
    for name in ("distilled.safetensors", "curve.csv", "steps/0.safetensors", "steps/3.safetensors", "steps/6.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    first, later, last = (read_distilled(tmp_path / f"whole/steps/{step}.safetensors", digits_dir).images for step in (0, 3, 6))
    assert torch.equal(last, whole.images)
    assert first.min() >= -1e-6 and first.max() <= 1 + 1e-6, "also what is published before the first update"
    assert ((later - first).flatten(1).abs().amax(1) > 0).all(), "images of all blocks have moved"
    assert (tmp_path / "whole/curve.csv").read_text().startswith("step,loss,grad_norm,cross_entropy,deviation\n")


def test_blocks_have_as_many_classes_as_there_can_be():
    for classes, ipc, most, sizes in ((10, 10, 100, {100}), (10, 1, 100, {10}), (1000, 10, 100, {100}), (200, 10, 100, {100}), (10, 11, 100, {55})):
        blocks = mixed(classes, ipc, most)
        assert sorted(torch.cat(blocks).tolist()) == list(range(classes * ipc))
        assert {len(block) for block in blocks} == sizes
        for block in blocks:
            counts = torch.bincount(block // ipc, minlength=classes)
            assert counts.max() - counts.min() <= 1 or (counts > 0).sum() == len(block)


def test_the_rate_is_a_cosines_and_goes_on_after_a_resume():
    gradients = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = CosineAdam([{"params": [ours], "lr": 0.3}], 7, (0.5, 0.9))
    adam = torch.optim.Adam([theirs], lr=0.3, betas=(0.5, 0.9))
    for step, gradient in enumerate(gradients):
        if step == 4:
            state = optimizer.state_dict()["state"]
            optimizer = CosineAdam([{"params": [ours], "lr": 0.3}], 7, (0.5, 0.9))
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        adam.param_groups[0]["lr"] = 0.15 * (1 + math.cos(math.pi * step / 7))
        for tensor, one in ((ours, optimizer), (theirs, adam)):
            tensor.grad = gradient.clone()
            one.step()
    assert torch.equal(ours, theirs)


def test_settings_are_published_for_the_size_or_say_that_they_are_chosen():
    recipe = recipes.load("sre2l")
    get = lambda name: parse(recipe.Config, recipe.defaults(name, 10), "test")  # noqa: E731
    table = lambda config: (config.lr_img, config.iterations, config.r_bn, config.crop, config.flip, config.roll)  # noqa: E731
    assert table(get("cifar100")) == table(get("digits")) == table(get("my_own")) == (0.25, 1000, 0.01, False, False, (0, 4))
    assert table(get("tiny_imagenet")) == (0.1, 4000, 1.0, True, True, (-4, 4))
    assert table(get("imagenet64")) == (0.1, 4000, 0.1, True, True, (-4, 4))
    assert table(get("imagenette")) == (0.25, 4000, 0.01, True, True, (0, 32))
    assert all(get(name).first_bn == 10 and get(name).batch == 100 for name in DATASETS)
    assert recipe.work(get("tiny_imagenet"), 200, 1, 10) == {"resnet18_bn": 3.0 * 4000 * 2000}
    with pytest.raises(ConfigError, match=r"roll: .*is from 3 to 1"):
        fields(roll=[3, 1])


def test_the_squeezed_network_is_one_for_all_sets_mirrored_where_the_dataset_allows():
    recipe = recipes.load("sre2l")
    for name, strategy in (("cifar10", "crop_flip"), ("digits", "crop"), ("my_own", "crop")):
        (need,) = recipe.needs(recipe.Config(), name)
        assert (need.kind, need.dataset, need.network, need.seeds, need.epochs) == ("pretrained", name, "resnet18_bn", (0,), (200,))
        about = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch": 128, "augment": "stack", "strategy": strategy, "epochs": 200}
        assert about.items() <= need.config.items()
        assert parse(Training, need.config, "test")
    (need,) = recipe.needs(fields(squeeze={"training": {"strategy": "crop_flip"}}), "digits")
    assert need.config["strategy"] == "crop_flip"
    (need,) = recipe.needs(fields(squeeze={"training": {"augment": "none"}}), "digits")
    assert need.config["strategy"] is None


def test_digits_are_never_mirrored_and_sounds_have_no_views(squeezed, digits_dir, tmp_path, monkeypatch):
    made = []

    class Noted(Views):
        def __init__(self, **given):
            made.append(given)
            super().__init__(**given)

    monkeypatch.setattr("dd.augment.views.Views", Noted)
    recovered(configure(1, iterations=1, crop=True, flip=True), digits_dir, squeezed, tmp_path / "digits")
    assert made == [{"crop": True, "flip": False, "roll": (0, 4)}]
    facts = manifest(digits_dir)
    monkeypatch.setattr("dd.distill.manifest", lambda folder: {**facts, "augment": False, "flip": True, "range": [-0.5, None]})
    sounds = recovered(configure(1, iterations=3), digits_dir, squeezed, tmp_path / "sounds")
    assert len(made) == 1
    assert sounds.images.min() == pytest.approx(-0.5, abs=1e-5) and sounds.images.max() > 1, "the range of the data, which has no upper end"


def test_a_network_without_batch_normalisation_is_named(digits_dir, tmp_path):
    file = tmp_path / "in.safetensors"
    need = Squeeze(network="convnet3_in_w8", epochs=0).need("digits")
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network="convnet3_in_w8", training=need.config), digits_dir, 0, [0], [file])
    with pytest.raises(ConfigError, match=r"squeeze.network: value 'convnet3_in_w8': .*no batch normalisation.*resnet18_bn"):
        recovered(configure(1, iterations=1, squeeze={"network": "convnet3_in_w8", "epochs": 0}), digits_dir, file, tmp_path / "out")


@pytest.mark.parametrize(("method", "given"), [("glad", {"cut": 3}), ("hpd", {"cuts": [1, 3], "keep": "loss"}), ("hpd", {"cuts": [1, 3]})])
def test_latents_are_recovered_as_pixels_are(method, given, squeezed, generator, digits_dir, tmp_path):
    recipe = recipes.load(method)
    asked = {"base": "sre2l", "settings": {"squeeze": SQUEEZE, "batch": 8}, "generator": {"name": "mini_w16", "epochs": 0}, "average": 5,
             "iterations": 6, **given}  # fmt: skip
    if method == "hpd":
        need = fields().squeeze.need("digits")
        asked["proxy"] = {"network": NET, "epochs": need.epochs[0], "training": need.config}
    config = DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=2, recipe=hashed(parse(recipe.Config, recipe.complete(asked, "digits", 2), method)))
    needs = recipe.needs(parse(recipe.Config, config.recipe, method), "digits")
    assert [need.kind for need in needs] == ["pretrained", "generator", *(["pretrained"] if given.get("keep") is None and method == "hpd" else [])]
    assert needs[0] == fields().squeeze.need("digits"), "the very network of the pixels"
    files = [squeezed if need.kind == "pretrained" else generator for need in needs]
    whole = recovered(config, digits_dir, files, tmp_path / "whole")
    assert torch.equal(whole.labels, torch.arange(10).repeat_interleave(2))
    rows = [list(map(float, row.split(","))) for row in (tmp_path / "whole/curve.csv").read_text().splitlines()[1:]]
    assert len(rows) == 6 and all(row[2] > 0 for row in rows)
    assert rows[-1][1] < rows[0][1], "the loss falls"
    with pytest.raises(Stopped):
        distill(config, digits_dir, [[file] for file in files], 0, tmp_path / "parts", stop=lambda: True)
    recovered(config, digits_dir, files, tmp_path / "parts")
    assert (tmp_path / "whole/distilled.safetensors").read_bytes() == (tmp_path / "parts/distilled.safetensors").read_bytes()


def test_recovered_digits_teach_more_than_the_noise_they_start_from(squeezed, digits_dir, tmp_path):
    protocol = parse(evaluation.config_of("dc_short"), {"epochs": 60}, "test")
    found = {}
    for steps in (0, 100):
        images = recovered(configure(10, iterations=steps, r_bn=0.1), digits_dir, squeezed, tmp_path / str(steps))
        (score,) = evaluate(images, NET, "dc_short", protocol, digits_dir, 0, [0])
        found[steps] = score.accuracy_last
    assert found[0] < 0.2 and found[100] > found[0] + 0.1
