"""GLaD and H-PD: any method on what a generator makes, from one cut or from several in turn."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dd import generators, networks, recipes
from dd.artifacts import load_tensors, save_tensors
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest, pool
from dd.data.normalise import Normalisation
from dd.distill import Stopped, distill
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import read_distilled
from dd.generators import from_gan
from dd.objectives.feature_distance import FeatureDistance, Resized
from dd.optim import RelativeSGD
from dd.parameterizations.gan import GanLatent, at_cut, bounded, first_styles
from dd.parameterizations.hierarchical import HierarchicalGan
from dd.rng import stream
from dd.teachers import TEACHERS
from dd.train.config import PretrainConfig
from dd.train.gan import load_generator, train
from dd.train.gan_config import GanConfig
from dd.train.pretrain import load_network, pretrain
from dd.types import Inputs

NET = "convnet3_in_w8"
SETTINGS = {
    "dm": {"batch_real": 8, "extractor": {"network": NET}},
    "dc": {"batch_real": 8, "network": NET, "outer": 2, "inner": 1},
    "dsa": {"batch_real": 8, "network": NET, "outer": 2, "inner": 1},
}


def small(labels, *, cut, relative=True, chunk=3, average=4):
    """Return latents of a small generator with random weights."""
    net = generators.build("mini_w8", 1, (16, 16), 10, 0, "test").eval().requires_grad_(False)
    ws = first_styles(net, labels, average, stream(0, "w"))
    ws = ws + 0.1 * torch.randn(ws.shape, generator=stream(0, "apart"))  # a style of its own for every stage
    norm = Normalisation([0.3], [0.4])
    return GanLatent(net, at_cut(net, ws, cut), ws, labels, cut, norm.apply, lr_f=0.02, lr_w=0.005, relative=relative, chunk=chunk)


@pytest.fixture(scope="module")
def generator(digits_dir, tmp_path_factory):
    """Return the file of a generator that has seen digits for an epoch."""
    file = tmp_path_factory.mktemp("gan") / "epoch1.safetensors"
    train(GanConfig(dataset=Dataset(name="digits"), generator="mini_w16"), digits_dir, 1, file)
    return file


def configure(method, ipc, base, **fields):
    recipe = recipes.load(method)
    given = {"base": base, "settings": SETTINGS[base], "generator": {"name": "mini_w16", "epochs": 1}, "average": 5, **fields}
    parsed = parse(recipe.Config, recipe.complete(given, "digits", ipc), method)
    return DistillConfig(dataset=Dataset(name="digits"), method=method, ipc=ipc, recipe=hashed(parsed))


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_images_are_what_the_later_stages_make_normalised(cut):
    labels = torch.arange(4)
    latents = small(labels, cut=cut)
    index = torch.tensor([2, 0])
    for k in index.tolist():
        made = latents.generator.decode(latents.f[k : k + 1], latents.ws[k : k + 1], cut)
        assert torch.allclose(latents.decode(torch.tensor([k])), ((made + 1) / 2 - 0.3) / 0.4, atol=1e-6)
    assert torch.equal(latents.labels(index), labels[index])
    assert torch.allclose(latents.decode(torch.arange(4)), replace_chunk(latents, 100).decode(torch.arange(4)), atol=1e-6)


def replace_chunk(latents, chunk):
    other = latents.at(latents.f, latents.ws, latents.cut)
    other._chunk = chunk
    return other


def test_gradients_through_checkpoints_are_those_without():
    latents = small(torch.arange(3), cut=2, chunk=2)
    weights = torch.randn(3, 1, 16, 16, generator=stream(1))
    (latents.decode(torch.arange(3)) * weights).sum().backward()
    f, ws = (part.detach().clone().requires_grad_() for part in (latents.f, latents.ws))
    (((from_gan(latents.generator.decode(f, ws, 2)) - 0.3) / 0.4) * weights).sum().backward()
    assert torch.allclose(latents.f.grad, f.grad, atol=1e-6) and torch.allclose(latents.ws.grad, ws.grad, atol=1e-6)
    assert latents.f.grad.abs().sum() > 0
    assert latents.ws.grad[:, 3:].abs().amax((0, 2)).min() > 0, "styles of the stages that are left"
    assert not latents.ws.grad[:, :3].any(), "styles of stages before the cut are not seen"
    assert all(parameter.grad is None for parameter in latents.generator.parameters())


def test_features_are_bounded_copies():
    f = torch.tensor([math.nan, math.inf, -math.inf, 11.0, -12.0, 0.5])
    assert bounded(f).tolist() == [0.0, 5.0, -5.0, 10.0, -10.0, 0.5]
    assert bounded(f).data_ptr() != f.data_ptr()


def test_first_styles_are_means_of_w_or_draws_of_their_own():
    net = generators.build("mini_w8", 1, (16, 16), 10, 0, "test").eval()
    labels = torch.tensor([3, 3, 5])
    mean, own = (first_styles(net, labels, count, stream(0, "w")) for count in (200, 0))
    assert (mean[0] - mean[1]).norm() < 0.5 * (own[0] - own[1]).norm(), "means of one class are near each other, draws are not"
    z = torch.randn(3, net.z_dim, generator=stream(0, "w"))
    assert torch.equal(own, net.map(z, labels))


@pytest.mark.parametrize("relative", [True, False])
def test_the_optimizer_moves_by_a_part_of_the_norm_or_as_sgd_does(relative):
    start, gradients = torch.randn(5, dtype=torch.float64), [torch.randn(5, dtype=torch.float64) for _ in range(4)]
    tensor = start.clone().requires_grad_()
    optimizer = RelativeSGD([{"params": [tensor], "lr": 0.1, "relative": relative}], 0.5)
    rate = 0.1 * start.norm() / gradients[0].norm() if relative else 0.1
    place, velocity = start.clone(), torch.zeros(5, dtype=torch.float64)
    for number, gradient in enumerate(gradients):
        tensor.grad = gradient.clone()
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        place = place - rate * velocity
        assert torch.allclose(tensor, place, atol=1e-12), number
    if relative:
        still = torch.ones(3, requires_grad=True)
        waiting = RelativeSGD([{"params": [still], "lr": 0.1, "relative": True}], 0.5)
        still.grad = torch.zeros(3)
        waiting.step()
        assert torch.equal(still, torch.ones(3)) and not waiting.state[still]


@pytest.mark.parametrize("cuts", [(0, 1, 2), (1, 4), (0, 6)])
def test_an_image_stays_the_same_when_latents_are_handed_over(cuts):
    spaces = HierarchicalGan(small(torch.arange(3), cut=cuts[0]), cuts, "last")
    every = torch.arange(3)
    for cut in cuts[1:]:
        before = spaces.decode(every).detach()
        spaces.hand_over()
        assert spaces.latents.cut == cut and spaces.latents.f.shape[1:] == spaces.latents.generator.feature_shape(cut)
        assert torch.allclose(spaces.decode(every), before, atol=1e-5)


def test_what_is_kept_is_a_copy_of_the_best_state_of_the_space():
    values = iter([3.0, 1.0, 2.0, 5.0])
    spaces = HierarchicalGan(small(torch.arange(2), cut=1), (1, 3), "feature_distance", lambda images, labels: torch.tensor(next(values)))
    places = []
    for _ in range(3):
        spaces.judge(None)
        places.append((spaces.latents.f.detach().clone(), spaces.latents.ws.detach().clone()))
        with torch.no_grad():
            spaces.latents.f.add_(1.0)
            spaces.latents.ws.mul_(1.1)
    expected = spaces.latents.generator.advance(*places[1], 1, 2)
    images = spaces.latents.at(*places[1], 1).decode(torch.arange(2))
    with spaces.finished():
        assert torch.equal(spaces.decode(torch.arange(2)), images)
    values = iter([5.0])
    spaces._score = lambda images, labels: torch.tensor(next(values))
    spaces.hand_over()
    assert torch.equal(spaces.latents.f, bounded(expected)) and torch.equal(spaces.latents.ws, places[1][1])
    assert spaces._kept is None, "the next space begins without"


def test_a_score_that_is_no_number_is_kept_only_as_long_as_there_is_no_other():
    values = iter([math.nan, 3.0, math.nan, 1.0, math.nan])
    spaces = HierarchicalGan(small(torch.arange(2), cut=1), (1, 3), "feature_distance", lambda images, labels: torch.tensor(next(values)))
    kept = []
    for number in range(5):
        spaces.judge(torch.tensor(float(number)))
        kept.append((spaces._best, float(spaces.facts["kept_loss"])))
    assert math.isnan(kept[0][0]) and kept[1:] == [(3.0, 1.0), (3.0, 1.0), (1.0, 3.0), (1.0, 3.0)]
    assert float(spaces.facts["kept_distance"]) == 1.0 and math.isnan(float(spaces.facts["distance"]))


def test_the_optimizer_begins_anew_in_every_space(digits_dir, generator, tmp_path):
    """Two spaces equal a loop by hand whose momentum and relative rates start again at the hand-over."""
    config = configure("hpd", 1, "dm", iterations=6, cuts=[1, 4], keep="last")
    distill(config, digits_dir, [[generator]], 0, tmp_path / "a")
    recipe = recipes.load("hpd")
    real = pool(digits_dir, "train", "dc")
    inputs = Inputs(digits_dir, manifest(digits_dir), 1, 0, "cpu", [[generator]], lambda: real)
    run = recipe.build(parse(recipe.Config, config.recipe, "hpd"), inputs)
    latents, momentum, rates = run.parameterization, {}, {}
    for step in range(6):
        if step == 3:
            run.hand_over()
            momentum, rates = {}, {}
        net = run.source.draw(step)
        batches = run.batches(step)
        both = (latents.latents.f, latents.latents.ws)
        grads = torch.autograd.grad(run.term(batches, net), both)
        with torch.no_grad():
            for name, latent, gradient, part in zip(("f", "ws"), both, grads, (0.02, 0.005), strict=True):
                rates.setdefault(name, part * latent.norm() / gradient.norm())
                momentum[name] = gradient if name not in momentum else 0.5 * momentum[name] + gradient
                latent -= rates[name] * momentum[name]
        run.source.advance(net, batches)
    with latents.finished():
        images = run.finish().images
    made = read_distilled(tmp_path / "a/distilled.safetensors", digits_dir).images
    assert torch.allclose(images, made, atol=1e-5)


def test_the_least_loss_is_kept_and_the_last_state_has_none():
    spaces = HierarchicalGan(small(torch.arange(2), cut=1), (1, 3), "loss")
    first = spaces.latents.ws.detach().clone()
    for loss in (2.0, 4.0):
        spaces.judge(torch.tensor(loss))
        with torch.no_grad():
            spaces.latents.ws.mul_(1.5)
    spaces.hand_over()
    assert torch.equal(spaces.latents.ws, first)


@pytest.mark.parametrize("base", SETTINGS)
@pytest.mark.parametrize("method", ["glad", "hpd"])
def test_any_base_method_descends_through_the_generator(method, base, digits_dir, generator, tmp_path):
    fields = {"cut": 3} if method == "glad" else {"cuts": [1, 4], "keep": "last"}
    config = configure(method, 1, base, iterations=4, **fields)
    distill(config, digits_dir, [[generator]], 0, tmp_path / "a")
    made = read_distilled(tmp_path / "a/distilled.safetensors", digits_dir)
    net, facts = load_generator(generator), manifest(digits_dir)
    ws = first_styles(net, torch.arange(10), 5, stream(0, "latents"))
    start = from_gan(net.decode(net.start(ws), ws, 0))
    assert made.images.shape == start.shape
    assert 1e-4 < (made.images - start).abs().mean() < 0.2, "they start from the generator's images, and move"
    assert facts["lineages"]["dc"]["mean"] == pytest.approx(made.mean.tolist(), abs=1e-6)


def stopped(config, dataset, paths, out, every):
    """Distil in many sittings of so many updates; return how often it was stopped."""
    calls = iter(range(1, 100))
    for stops in range(100):
        try:
            distill(config, dataset, paths, 0, out, stop=lambda: next(calls) % every == 0)
            return stops
        except Stopped:
            pass
    raise AssertionError("it never ends")


def same(one, other, names):
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def curve(folder):
    with (folder / "curve.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_hpd_resumes_in_the_middle_of_a_space_bit_for_bit(digits_dir, generator, tmp_path):
    proxy = tmp_path / "proxy.safetensors"
    pretrain(PretrainConfig(dataset=Dataset(name="digits"), network=NET), digits_dir, 1, [0], [proxy])
    config = configure("hpd", 2, "dm", iterations=9, cuts=[0, 2, 5], average=0, proxy={"network": NET, "epochs": 1})
    paths = [[generator], [proxy]]
    distill(config, digits_dir, paths, 0, tmp_path / "whole")
    assert stopped(config, digits_dir, paths, tmp_path / "parts", 2) == 4
    assert sorted(path.stem for path in (tmp_path / "whole/steps").iterdir()) == ["0", "3", "6"]
    same(tmp_path / "whole", tmp_path / "parts", ["distilled.safetensors", "curve.csv", *(f"steps/{n}.safetensors" for n in (0, 3, 6))])

    net = load_generator(generator)
    ws = first_styles(net, torch.arange(10).repeat_interleave(2), 0, stream(0, "latents"))
    first = read_distilled(tmp_path / "whole/steps/0.safetensors", digits_dir)
    assert torch.allclose(first.images, from_gan(net.decode(bounded(net.start(ws)), ws, 0)), atol=1e-5), "before the first update"
    assert (first.images[0] - first.images[1]).abs().mean() > 0.01, "images of a class begin apart"
    measured = FeatureDistance(load_network(proxy), pool(digits_dir, "train", "dc"))
    norm = Normalisation(first.mean.tolist(), first.std.tolist())
    distances = [row["distance"] for row in curve(tmp_path / "whole")]
    assert len(distances) == 9 and all(math.isfinite(value) for value in distances)
    assert distances[0] == pytest.approx(measured.distance(norm.apply(first.images), first.labels).item(), rel=1e-4)
    for begin, end in ((0, 3), (3, 6)):  # what is published of a space is its best state; the last one has no row
        made = read_distilled(tmp_path / f"whole/steps/{end}.safetensors", digits_dir)
        assert measured.distance(norm.apply(made.images), made.labels).item() <= min(distances[begin:end]) * (1 + 1e-4)


def test_the_proxy_may_be_a_teacher_of_imagenet(digits_dir, generator, tmp_path, monkeypatch):
    """Its logit is that of the class's place among the 1,000, and images are enlarged to what it was trained on."""
    hpd, ids = recipes.load("hpd"), [31, 5, 999, 0, 7, 100, 8, 9, 500, 1]
    monkeypatch.setitem(TEACHERS, "resnet18_tv", replace(TEACHERS["resnet18_tv"], network="resnet18_tv_bn_w4", size=(24, 24)))
    monkeypatch.setattr(hpd, "class_ids", lambda dataset: ids)
    net = networks.build("resnet18_tv_bn_w4", 1, (24, 24), 1000, 0, "teacher")
    file = tmp_path / "teacher.safetensors"
    about = {"config": {"network": "resnet18_tv_bn_w4"}, "seed": 0, "channels": 1, "size": [24, 24], "classes": 1000}
    save_tensors(file, {f"model.{key}": value for key, value in net.state_dict().items()}, about)
    config = configure("hpd", 1, "dm", iterations=6, cuts=[1, 4], proxy={"network": "resnet18_tv"})
    need = hpd.needs(parse(hpd.Config, config.recipe, "hpd"), "digits")[-1]
    assert (need.kind, need.network) == ("teacher", "resnet18_tv")
    distill(config, digits_dir, [[generator], [file]], 0, tmp_path / "whole")
    assert stopped(config, digits_dir, [[generator], [file]], tmp_path / "parts", 2) == 3
    same(tmp_path / "whole", tmp_path / "parts", ["distilled.safetensors", "curve.csv"])

    made = read_distilled(tmp_path / "whole/steps/0.safetensors", digits_dir)
    real = pool(digits_dir, "train", "dc")
    net.eval()

    def evidence(images, labels):
        large = F.interpolate(images, (24, 24), mode="bilinear", align_corners=False)
        maps = net.stages(large)[-2].detach()
        weights = (net.head.weight.detach() / maps[0, 0].numel()).clamp(min=0)[ids]
        return [(maps[labels == c].double() * weights[c, :, None, None]).mean(0) for c in range(10)]

    mine = evidence(Normalisation(made.mean.tolist(), made.std.tolist()).apply(made.images), made.labels)
    theirs = evidence(real.x(torch.arange(len(real))), real.labels)
    expected = sum(float((a - b).square().sum() / b.square().sum()) for a, b in zip(mine, theirs, strict=True))
    assert curve(tmp_path / "whole")[0]["distance"] == pytest.approx(expected, rel=1e-4)


def test_images_larger_than_a_teachers_are_reduced_as_images_are(digits_dir):
    net = networks.build("resnet18_tv_bn_w4", 1, (8, 8), 10, 0, "teacher").eval()
    x = torch.rand(2, 1, 16, 16, generator=stream(0, "x"))
    small = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    resized = Resized(net, (8, 8))
    assert torch.equal(resized(x), net(small)) and not torch.allclose(net(small), net(x[:, :, ::2, ::2]))
    assert all(torch.equal(a, b) for a, b in zip(resized.stages(x), net.stages(small), strict=True))
    assert torch.equal(resized(small), net(small))


@pytest.mark.parametrize(
    ("fields", "dataset", "said"),
    [({"proxy": {"network": "resnet18_tv"}}, "digits", "does not know the classes of digits"),
     ({"proxy": {"network": "clip_rn50"}}, "imagenet_a_128", "clip_rn50"),
     ({"base": "tesla", "settings": {"zca": True}, "proxy": {"network": "resnet18_tv"}}, "imagenet_a_128", "whitened")],
)  # fmt: skip
def test_a_teacher_that_cannot_judge_is_an_error_of_the_plan(fields, dataset, said):
    hpd = recipes.load("hpd")
    config = parse(hpd.Config, hpd.complete(fields, dataset, 1), "hpd")
    with pytest.raises(ConfigError, match=said):
        hpd.needs(config, dataset)
    hpd.needs(config.model_copy(update={"keep": "last"}), dataset)  # nobody asks it


def test_without_a_distance_there_is_none_in_the_log(digits_dir, generator, tmp_path):
    distill(configure("hpd", 1, "dm", iterations=3, cuts=[1, 4], keep="loss"), digits_dir, [[generator]], 0, tmp_path / "a")
    assert "distance" not in curve(tmp_path / "a")[0]


def test_a_generator_from_a_file_is_given_the_classes_and_has_no_fingerprint(digits_dir, tmp_path, monkeypatch):
    """StyleGAN-XL, in whose place a small network stands here."""
    net, asked = generators.build("mini_w8", 1, (16, 16), 10, 0, "test").eval().requires_grad_(False), []
    monkeypatch.setattr("dd.train.gan.load_generator", lambda path, device, classes: asked.append(classes) or net)
    monkeypatch.setattr("dd.generators.files.check", lambda name, dataset: asked.append((name, dataset)))
    monkeypatch.setattr("dd.generators.files.class_ids", lambda dataset: list(range(20, 30)))
    file = tmp_path / "xl.safetensors"
    save_tensors(file, {"generator.w": torch.zeros(1)}, {"config": {"generator": "stylegan_xl"}})
    config = configure("glad", 1, "dm", iterations=1, generator={"name": "stylegan_xl_128"}, cut=3)
    assert (config.recipe["rates"], config.recipe["generator"]["epochs"]) == ("absolute", 0)
    distill(config, digits_dir, [[file]], 0, tmp_path / "a")
    assert asked[-1] == list(range(20, 30)) and ("stylegan_xl_128", "digits") in asked


def test_spaces_share_the_updates():
    hpd = recipes.load("hpd")
    ends = lambda n, cuts: hpd.ends(parse(hpd.Config, {"iterations": n, "cuts": cuts, "settings": {}}, "hpd"))  # noqa: E731
    assert ends(80, [0, 2, 4, 6]) == (20, 40, 60, 80)
    assert ends(7, [0, 1]) == (4, 7)
    assert ends(100, [3]) == (100,)


def test_what_is_published_is_a_matter_of_the_recipe():
    hpd = {"iterations": 80, "cuts": [0, 2, 4, 6]}
    assert recipes.published("hpd", hpd) == recipes.published("hpd", {**hpd, "steps": "spaces"}) == [0, 20, 40, 60]
    assert recipes.published("hpd", {"iterations": 7, "cuts": [0, 1, 5], "steps": "spaces"}) == [0, 3, 5]
    assert recipes.published("hpd", {"iterations": 0, "cuts": [0, 1, 5]}) == [0]
    assert recipes.published("hpd", {**hpd, "steps": [5, 80]}) == recipes.published("glad", {"steps": [5, 80]}) == [5, 80]
    assert recipes.published("dm", {"steps": (3,)}) == [3] and recipes.published("random", {}) == []
    with pytest.raises(ConfigError, match="steps"):
        recipes.published("hpd", {"steps": "ends"})
    assert recipes.load("hpd").Config.model_validate_json('{"iterations": 4, "cuts": [0, 1, 2, 3]}')
    with pytest.raises(ConfigError, match="3: 4 spaces"):
        recipes.published("hpd", {"iterations": 3, "cuts": [0, 1, 2, 3]})


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [("hpd", {"cuts": [2, 2]}, "rise"), ("hpd", {"cuts": []}, "at least one"), ("glad", {"base": "idm"}, "base"),
     ("glad", {"settings": {"lr_imgs": 1.0}}, "lr_img"), ("glad", {"generator": {"name": "maxi"}}, "maxi")],
)  # fmt: skip
def test_mistakes_are_named(method, fields, said, digits_dir, generator, tmp_path):
    recipe = recipes.load(method)
    with pytest.raises(ConfigError, match=said):
        config = parse(recipe.Config, {"iterations": 1, **fields}, method)
        recipe.needs(config, "digits")
        generators.parse(config.generator.name)


def test_a_generator_of_other_images_is_refused(digits_dir, generator, tmp_path):
    tensors, meta = load_tensors(generator)
    save_tensors(tmp_path / "other.safetensors", tensors, {**meta, "fingerprint": "other"})
    with pytest.raises(ArtifactError, match="other images"):
        distill(configure("glad", 1, "dm", iterations=1, cut=3), digits_dir, [[tmp_path / "other.safetensors"]], 0, tmp_path / "a")
