"""H-PD's class-relevant feature distance against loops over single images that share no code with it."""

import pytest
import torch
from torch import nn

from dd import networks
from dd.data.pool import RealPool
from dd.errors import ConfigError, DataError
from dd.networks._layers import Chain, GlobalPool
from dd.objectives.feature_distance import FeatureDistance, grad_cam, stage_gradients

PROXIES = ["resnet18_bn_w4", "resnet18_in_w4", "convnet3_in_w8", "convnet2_bn_w4_leaky"]
VARIANTS = ["last", "layers", "gradcam"]
CLASSES = 3


def proxy(name, classes=CLASSES, channels=2, side=16):
    """A network in float64 whose batch statistics are not those of its initialisation, and that has evidence for every class."""
    net = networks.build(name, channels, (side, side), classes, 0).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        net.train()
        net(torch.randn(32, channels, side, side, generator=g, dtype=torch.float64) * 2 + 0.5)
        net.head.weight += 0.3 * net.head.weight.abs().max()  # else some of Grad-CAM's maps are 0 everywhere
    return net


@pytest.fixture(scope="module")
def real():
    """A pool with classes of different sizes, unsorted."""
    g = torch.Generator().manual_seed(2)
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 0, 2, 0])
    images = torch.randint(0, 256, (len(labels), 2, 16, 16), generator=g, dtype=torch.uint8)
    return RealPool(images, labels, CLASSES, [0.4, 0.5], [0.3, 0.25])


@pytest.fixture(scope="module")
def synthetic():
    g = torch.Generator().manual_seed(3)
    return torch.randn(5, 2, 16, 16, generator=g, dtype=torch.float64), torch.tensor([2, 0, 1, 1, 0])


def everything(pool):
    index = torch.arange(len(pool))
    return pool.x(index).double(), pool.y(index)


def naive_evidence(net, x, c, variant):
    """A of one image, by blocks that are called by hand, with one backward pass a map."""
    found = []
    spatial = [i for i, block in enumerate(net.blocks) if not isinstance(block, GlobalPool)]
    for stage in spatial if variant == "layers" else spatial[-1:]:
        h = x[None]
        for block in net.blocks[: stage + 1]:
            h = block(h)
        f = h.detach().requires_grad_(True)
        h = f
        for block in net.blocks[stage + 1 :]:
            h = block(h)
        g = torch.autograd.grad(net.head(h.flatten(1))[0, c], f)[0][0]
        f = f.detach()[0]
        if variant == "gradcam":
            total = torch.zeros(f.shape[1:], dtype=torch.float64)
            for k in range(len(f)):
                total += g[k].sum() / g[k].numel() * f[k]
            found.append(torch.where(total > 0, total, 0.0))
        else:
            found.append(torch.where(g > 0, g, 0.0) * f)
    return found


def naive_means(net, x, y, variant, ids=range(CLASSES)):
    means = []
    for c in range(CLASSES):
        rows = [naive_evidence(net, image, ids[c], variant) for image, label in zip(x, y, strict=True) if label == c]
        means.append([sum(maps) / len(rows) for maps in zip(*rows, strict=True)])
    return means


def naive_distance(net, x, y, pool, variant, ids=range(CLASSES)):
    per_class = []
    for mine, theirs in zip(naive_means(net, x, y, variant, ids), naive_means(net, *everything(pool), variant, ids), strict=True):
        terms = [((a - b) ** 2).sum() / (b**2).sum() for a, b in zip(mine, theirs, strict=True)]
        per_class.append(sum(terms).item())
    return per_class


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", PROXIES)
def test_distance_equals_a_loop_over_single_images(name, variant, real, synthetic):
    net = proxy(name)
    measured = FeatureDistance(net, real, variant=variant)
    expected = naive_distance(net.eval(), *synthetic, real, variant)
    assert measured.per_class(*synthetic).tolist() == pytest.approx(expected, rel=1e-10)
    assert measured.distance(*synthetic).item() == pytest.approx(sum(expected), rel=1e-10)
    assert min(expected) > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", PROXIES[:3])
def test_the_real_side_is_the_mean_over_every_real_image(name, variant, real):
    net = proxy(name)
    found = FeatureDistance(net, real, variant=variant, chunk=2).real
    expected = naive_means(net.eval(), *everything(real), variant)
    assert len(found) == len(expected[0]) == (1 if variant != "layers" else 9 if "resnet" in name else 3)
    for c in range(CLASSES):
        for mine, theirs in zip(found, expected[c], strict=True):
            torch.testing.assert_close(mine[c], theirs, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_closed_form_is_the_gradient_at_the_last_map(dtype, tolerance, real, synthetic):
    """W_c / (H W) with a mean over pixels, W_c in the map's shape without; both are what autograd finds through the whole network."""
    x, y = synthetic[0].to(dtype), synthetic[1]
    for name in PROXIES:
        net = proxy(name).to(dtype).eval()
        f, g = stage_gradients(net, x, y)[-1]
        weight, (h, w) = net.head.weight.detach()[y], f.shape[2:]
        closed = (weight[:, :, None, None] / (h * w)).expand_as(f) if "resnet" in name else weight.reshape(f.shape)
        torch.testing.assert_close(closed, g, rtol=tolerance, atol=tolerance)
        measured = FeatureDistance(net, real)
        torch.testing.assert_close(measured._evidence(x, y)[0], f * closed.clamp(min=0), rtol=tolerance, atol=tolerance)


def test_the_gradients_of_a_network_that_flattens_depend_on_the_pixel(real):
    """Else the test above could not tell a map's shape from a mean."""
    net = proxy("convnet3_in_w8").eval()
    _, g = stage_gradients(net, *everything(real))[-1]
    assert g.std((2, 3)).min() > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_real_images_themselves_are_at_distance_zero_in_any_chunks(variant, chunk, real, synthetic):
    for name in ["resnet18_bn_w4", "convnet3_in_w8"]:
        net = proxy(name)
        measured, whole = FeatureDistance(net, real, variant=variant, chunk=chunk), FeatureDistance(net, real, variant=variant)
        x, y = everything(real)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(4))
        assert measured.distance(x[order], y[order]).item() < 1e-24
        assert measured.distance(*synthetic).item() == pytest.approx(whole.distance(*synthetic).item(), rel=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_ordinary_proxy_in_float32_has_a_distance_in_float64(variant, real, synthetic):
    net = proxy("resnet18_bn_w4")
    exact = FeatureDistance(net, real, variant=variant).distance(*synthetic)
    found = FeatureDistance(net.float(), real, variant=variant).distance(*synthetic)  # images in float64 are taken too
    assert found.dtype == torch.float64 and found.shape == ()
    assert found.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_classes_of_the_proxy_are_its_own(variant, real, synthetic):
    ids = [4, 0, 2]
    net = proxy("resnet18_bn_w4", classes=5)
    found = FeatureDistance(net, real, variant=variant, ids=ids).per_class(*synthetic)
    assert found.tolist() == pytest.approx(naive_distance(net.eval(), *synthetic, real, variant, ids), rel=1e-10)
    assert found.tolist() != pytest.approx(FeatureDistance(net, real, variant=variant).per_class(*synthetic).tolist(), rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_behind(variant, real, synthetic):
    net = proxy("resnet18_bn_w4")  # in training mode
    before = {name: value.clone() for name, value in net.state_dict().items()}
    images = synthetic[0].clone().requires_grad_(True)
    measured = FeatureDistance(net, real, variant=variant)
    first = measured.distance(images, synthetic[1])
    assert not first.requires_grad and images.grad is None and torch.is_grad_enabled()
    assert net.training and all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(mean.requires_grad for mean in measured.real)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    net.train()
    assert measured.distance(images, synthetic[1]).item() == first.item()  # what becomes of the proxy changes nothing
    with torch.no_grad():
        assert measured.distance(images, synthetic[1]).item() == first.item()


def test_an_image_counts_for_its_own_class_and_alone(real, synthetic):
    """In eval mode no image depends on those beside it, so a class's part moves only with its own images."""
    measured = FeatureDistance(proxy("resnet18_bn_w4"), real, variant="layers")
    x, y = synthetic
    moved = x.clone()
    moved[0] += 1.0  # of class 2
    before, after = measured.per_class(x, y), measured.per_class(moved, y)
    assert torch.allclose(before[:2], after[:2], rtol=1e-12) and abs(before[2] - after[2]) > 1e-3


def test_grad_cam_equals_the_loop(real):
    net = proxy("convnet3_in_w8").eval()
    x, y = everything(real)
    for image, label, found in zip(x, y, grad_cam(net, x, y), strict=True):
        torch.testing.assert_close(found, naive_evidence(net, image, label, "gradcam")[0], rtol=1e-11, atol=1e-14)


@pytest.fixture(scope="module")
def digits(digits_dir):
    """(train pool, two proxies of a second's training)."""
    from dd.data.load import pool
    from dd.train.config import Training
    from dd.train.supervised import fit

    train = pool(digits_dir, "train", "dc")
    nets = {}
    for name in ["resnet10_bn_w8", "convnet3_in_w16"]:
        net = networks.build(name, 1, (16, 16), 10, 0)
        fetch = lambda i: (train.x(i), train.y(i))  # noqa: E731
        options = {"seed": 0, "names": ("proxy",), "first_epoch": 0, "last_epoch": 2, "shape": (1, 16, 16), "flip": False}
        fit(net, fetch, len(train), Training(lr=0.01, batch=64), **options)
        nets[name] = net
    return train, nets


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["resnet10_bn_w8", "convnet3_in_w16"])
def test_real_images_are_nearer_than_noise_and_than_real_images_of_other_classes(name, variant, digits):
    train, nets = digits
    measured = FeatureDistance(nets[name], train, variant=variant)
    labels = torch.arange(10).repeat_interleave(4)
    some = train.x(train.draw(torch.Generator().manual_seed(0), 4).flatten())
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(1))
    half = torch.where((torch.arange(40) % 4 < 2)[:, None, None, None], some, noise)
    far, between, near = (measured.distance(x, labels).item() for x in (noise, half, some))
    assert far > between > near > 0
    wrong = measured.per_class(some, (labels + 1) % 10)
    assert (wrong > measured.per_class(some, labels)).float().mean() >= 0.9 and wrong.sum() > 1.5 * near
    everyone = torch.arange(len(train))
    assert measured.distance(train.x(everyone), train.y(everyone)).item() < 1e-9


def test_the_last_map_must_reach_the_logits_linearly(real, synthetic):
    net = proxy("densenet121_bn_w4_small")
    bent = Chain([nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU()), nn.Sequential(GlobalPool(), nn.ReLU())], 4, CLASSES).double()
    for each in (net, bent):
        with pytest.raises(ConfigError, match="not linear in its last map"):
            FeatureDistance(each, real)
    assert FeatureDistance(bent, real, variant="gradcam").distance(*synthetic) > 0


def test_a_stage_without_evidence_is_not_divided(real, synthetic):
    """A head that only counts against a class gives it no evidence; the distance stays a number."""
    net = proxy("resnet18_bn_w4")
    with torch.no_grad():
        net.head.weight[1] = -net.head.weight[1].abs()
    measured = FeatureDistance(net, real)
    assert measured.real[0][1].abs().sum() == 0
    assert measured.per_class(*synthetic)[1] == 0 and measured.distance(*synthetic).isfinite()


def test_errors_are_for_people(real, synthetic):
    net, (x, y) = proxy("convnet3_in_w8"), synthetic
    with pytest.raises(ConfigError, match=r"variant: value 'layer'.*layers.*allowed: last, layers, gradcam"):
        FeatureDistance(net, real, variant="layer")
    with pytest.raises(ConfigError, match="chunk: value 0"):
        FeatureDistance(net, real, chunk=0)
    with pytest.raises(ConfigError, match=r"ids: 2 classes of the proxy; .* 3"):
        FeatureDistance(net, real, ids=[0, 1])
    for ids, wrong in (([0, 1, 3], 3), ([-1, 0, 1], -1)):
        with pytest.raises(ConfigError, match=rf"ids: \[{wrong}\]; allowed: 0 to 2"):
            FeatureDistance(net, real, ids=ids)
    with pytest.raises(ConfigError, match="no stage with pixels"):
        FeatureDistance(proxy("mlp_w16"), real)
    measured = FeatureDistance(net, real)
    with pytest.raises(ConfigError, match="no image of class 1"):
        measured.distance(x, torch.tensor([0, 0, 0, 2, 2]))
    with pytest.raises(ConfigError, match=r"labels: \[-1, 3\]; allowed: 0 to 2"):
        measured.distance(x, torch.tensor([0, 1, 2, 3, -1]))
    with pytest.raises(ConfigError, match="no image of classes 0, 1, 2"):
        measured.distance(x[:0], y[:0])
    for bad in (y[:-1], y.float(), torch.eye(5)):
        with pytest.raises(ConfigError, match="labels: "):
            measured.distance(x, bad)
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    for variant in VARIANTS:
        with pytest.raises(DataError, match="not finite"):
            FeatureDistance(net, real, variant=variant)
    assert not measured.distance(torch.full_like(x, float("nan")), y) < 1e9
