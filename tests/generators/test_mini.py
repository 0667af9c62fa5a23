"""The small generator: cuts, styles and demodulation against naive float64 versions; the discriminator it is trained against."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from dd import generators
from dd.errors import ConfigError
from dd.generators import from_gan, to_gan, to_uint8
from dd.generators._layers import Conv, Linear, unit
from dd.generators.discriminator import Discriminator, spread
from dd.generators.mini import Mini, Stage

# (size, channels) -> K, channels of every stage, z, w: the tables of the specification
TABLE = {
    (16, 1): (6, [32, 32, 32, 21, 21, 1], 32, 64),
    (28, 1): (8, [128, 128, 128, 64, 64, 48, 48, 1], 64, 128),
    (32, 3): (8, [256, 256, 256, 128, 128, 64, 64, 3], 64, 128),
    (64, 3): (10, [256, 256, 256, 128, 128, 64, 64, 32, 32, 3], 64, 128),
}
SIDES = [4, 8, 8, 16, 16, 32, 32, 64, 64]


def small(size=16, channels=1, width=6, seed=0):
    return generators.build(f"mini_w{width}", channels, (size, size), 5, seed, "test")


def latents(g, n, seed=1):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(n, g.z_dim, generator=numbers), torch.arange(n) % g.classes


def styles(g, n, seed=2):
    """Return ws that differ from stage to stage, so that a mixed-up index shows."""
    return torch.randn(n, g.num_ws, g.w_dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "channels"), TABLE)
def test_sizes_are_those_of_the_table(size, channels):
    g = generators.build("mini", channels, (size, size), 10, 0)
    stages, widths, z_dim, w_dim = TABLE[size, channels]
    assert (g.num_stages, g.num_ws, g.z_dim, g.w_dim) == (stages, stages + 1, z_dim, w_dim)
    assert g.feature_shape(0) == (widths[0], 4, 4)
    for cut in range(1, stages):
        assert g.feature_shape(cut) == (widths[cut - 1], SIDES[cut - 1], SIDES[cut - 1])
    assert g.feature_shape(stages) == (channels, size, size)


def test_sizes_in_numbers_of_parameters():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert 2.3e6 < count(Mini(3, (32, 32), 10)) < 3.0e6
    assert 3.2e6 < count(Discriminator(3, (32, 32), 10, 256)) < 3.6e6
    assert 50e3 < count(Mini(1, (16, 16), 10)) < 70e3
    assert 45e3 < count(Discriminator(1, (16, 16), 10, 32)) < 70e3


@pytest.mark.parametrize(("size", "channels"), TABLE)
def test_every_cut_leads_to_the_same_image(size, channels):
    g = small(size, channels)
    ws = styles(g, 2)
    f0 = g.start(ws)
    whole = g.decode(f0, ws, 0)
    assert whole.shape == (2, channels, size, size)
    assert whole.dtype == torch.float32
    f = {cut: g.advance(f0, ws, 0, cut) for cut in range(g.num_stages + 1)}
    for cut, value in f.items():
        assert value.shape[1:] == g.feature_shape(cut)
        for m in range(g.num_stages - cut + 1):
            further = g.advance(value, ws, cut, m)
            torch.testing.assert_close(further, f[cut + m], rtol=0, atol=1e-6)
            torch.testing.assert_close(g.decode(further, ws, cut + m), whole, rtol=0, atol=1e-5)
    assert torch.equal(g.decode(whole, ws, g.num_stages), whole)


def test_stage_k_reads_style_k_plus_1_and_nothing_else():
    g = small()
    ws = styles(g, 1)
    f = [g.advance(g.start(ws), ws, 0, cut) for cut in range(g.num_stages + 1)]
    for place in range(g.num_ws):
        other = ws.clone()
        other[:, place] += 1
        assert torch.equal(g.start(other), f[0]) == (place != 0)
        for k in range(g.num_stages):
            assert torch.equal(g.advance(f[k], other, k, 1), f[k + 1]) == (place != k + 1)


def test_an_image_does_not_depend_on_the_others_and_the_generator_is_deterministic():
    g = small()
    ws, other = styles(g, 5), styles(g, 5, seed=9)
    other[2] = ws[2]

    def image(w):
        return g.decode(g.start(w), w, 0)

    assert torch.equal(image(ws)[2], image(other)[2])
    assert torch.equal(image(ws), image(ws))
    torch.testing.assert_close(image(ws[2:3])[0], image(ws)[2], rtol=0, atol=1e-5)
    g.train()
    before = image(ws)
    assert torch.equal(before, image(ws))
    assert torch.equal(g.eval().decode(g.start(ws), ws, 0), before)


@pytest.mark.parametrize("up", [False, True])
def test_a_stage_equals_weights_of_each_image_in_a_grouped_convolution(up):
    torch.manual_seed(0)
    stage = Stage(3, 4, 5, up).double()
    with torch.no_grad():
        stage.bias.normal_()
    f, w = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 5).double()
    style = w @ (stage.affine.weight / math.sqrt(5)).t() + stage.affine.bias
    weight = stage.weight[None] / math.sqrt(27) * style[:, None, :, None, None]
    weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    x = f
    if up:
        x = F.interpolate(f, scale_factor=2, mode="bilinear", align_corners=False)
    out = F.conv2d(x.reshape(1, 6, *x.shape[2:]), weight.reshape(8, 3, 3, 3), padding=1, groups=2).reshape(2, 4, *x.shape[2:])
    out = out + stage.bias[:, None, None]
    torch.testing.assert_close(stage(f, w), math.sqrt(2) * torch.where(out > 0, out, 0.2 * out))


def test_the_last_stage_is_linear_in_its_input_and_crops_the_middle():
    torch.manual_seed(0)
    last = small(28).stages[-1].double()
    f, w = torch.randn(2, last.weight.shape[1], 32, 32).double(), torch.randn(2, 128).double()
    style = w @ (last.affine.weight / math.sqrt(128)).t() + 1
    expected = torch.einsum("nchw,nc,oc->nohw", f, style, last.weight[:, :, 0, 0] / math.sqrt(f.shape[1]))[:, :, 2:30, 2:30]
    torch.testing.assert_close(last(f, w), expected)
    torch.testing.assert_close(last(-3 * f, w), -3 * expected)


def test_equalised_layers_scale_when_they_are_used():
    torch.manual_seed(0)
    linear = Linear(400, 300, multiplier=0.01, bias=0.5)
    assert linear.weight.std().item() == pytest.approx(100, rel=0.02)  # 1 / multiplier
    x = torch.randn(7, 400)
    torch.testing.assert_close(linear(x), x @ linear.weight.t() * (0.01 / 20) + 0.5, rtol=1e-4, atol=1e-4)
    assert linear(x).std().item() == pytest.approx(1, rel=0.1)  # whatever the number of inputs
    conv = Conv(16, 300, 3)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    image = torch.randn(1, 16, 5, 5)
    torch.testing.assert_close(conv(image), F.conv2d(image, conv.weight / 12, padding=1), rtol=1e-4, atol=1e-5)
    # a step of Adam, which moves every weight alike, moves what is computed by the multiplier
    plain = Linear(400, 300)
    moved = [((w.weight + 1e-3) * w.scale - w.weight * w.scale).mean().item() for w in (linear, plain)]
    assert moved[0] == pytest.approx(0.01 * moved[1], rel=0.05)


def test_mapping_normalises_z_and_the_label():
    g = small()
    z, y = latents(g, 4)
    rows = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(unit(rows), rows / math.sqrt(12.5))
    torch.testing.assert_close(g.map(7 * z, y), g.map(z, y), rtol=0, atol=1e-5)
    assert not torch.allclose(g.map(-z, y), g.map(z, y))
    assert not torch.allclose(g.map(z, (y + 1) % 5), g.map(z, y))
    before = g.map(z, y)
    with torch.no_grad():
        g.mapping.embedding.mul_(5)
    torch.testing.assert_close(g.map(z, y), before, rtol=0, atol=1e-5)
    assert before.shape == (4, g.num_ws, g.w_dim)
    assert torch.equal(before, before[:, :1].expand_as(before))
    naive = torch.cat([unit(z), unit(g.mapping.embedding[y])], 1)
    for layer in (g.mapping.first, g.mapping.second):
        naive = naive @ layer.weight.t() * 0.01 / math.sqrt(naive.shape[1]) + 0.01 * layer.bias
        naive = math.sqrt(2) * torch.where(naive > 0, naive, 0.2 * naive)
    torch.testing.assert_close(before[:, 0], naive, rtol=1e-4, atol=1e-5)


def test_mean_w_is_the_mean_of_w_and_each_image_has_its_own():
    g = small()
    y = torch.tensor([3, 1, 3])
    got = g.mean_w(y, 50, torch.Generator().manual_seed(4))
    numbers = torch.Generator().manual_seed(4)
    z = torch.randn(3, 50, g.z_dim, generator=numbers)
    expected = torch.stack([torch.stack([g.map(one[None], label[None])[0] for one in zs]).mean(0) for zs, label in zip(z, y, strict=True)])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert not got.requires_grad
    assert not torch.allclose(got[0], got[2])  # two images of one class differ from the start
    of_mean_z = g.map(z.mean(1), y)
    assert (of_mean_z - expected).norm() > 100 * (got - expected).norm()
    with pytest.raises(ConfigError, match="count"):
        g.mean_w(y, 0, numbers)


def test_gradients_reach_w_and_f_at_every_cut():
    g = small().requires_grad_(False)
    for cut in range(g.num_stages):
        ws = styles(g, 2).requires_grad_()
        f = g.advance(g.start(ws), ws, 0, cut).detach().requires_grad_()
        g.decode(f, ws, cut).square().sum().backward()
        assert (f.grad.abs().sum((1, 2, 3)) > 0).all()
        used = ws.grad.abs().sum((0, 2)) > 0
        assert used.tolist() == [False] * (cut + 1) + [True] * (g.num_stages - cut)


def test_gan_range_is_there_and_back_again():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = to_gan(pixels)
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(x), pixels)
    torch.testing.assert_close(from_gan(x), pixels.float() / 255)
    wild = torch.tensor([-3.0, 2.0], requires_grad=True)
    assert to_uint8(wild).tolist() == [0, 255]
    assert torch.autograd.grad(from_gan(wild).sum(), wild)[0].tolist() == [0.5, 0.5]


def test_names_are_read_without_torch_and_explained():
    assert generators.parse("mini") == {}
    assert generators.parse("mini_w24") == {"width": 24}
    assert all(generators.module_of(name) == "dd.generators.mini" for name in generators.names())
    code = "import sys; sys.modules['torch'] = None; import dd.generators as g, dd.train.gan_config; print(g.names())"
    assert "mini" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with pytest.raises(ConfigError, match=r"'minni' is unknown; did you mean 'mini'\?.*mini\[_w<width>\]"):
        generators.parse("minni")
    with pytest.raises(ConfigError, match=r"'mini': images of 17x17 pixels cannot be made; allowed: 16x16, 28x28"):
        generators.build("mini", 1, (17, 17), 10, 0)
    with pytest.raises(ConfigError, match="cut"):
        small().feature_shape(7)
    g = small()
    with pytest.raises(ConfigError, match="stages 4 to 6"):
        g.advance(g.start(styles(g, 1)), styles(g, 1), 4, 3)


def test_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = small(seed=1), small(seed=1), small(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.constant, b.constant)
    assert not torch.equal(a.constant, c.constant)


def test_spread_is_the_std_inside_groups_of_four():
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    got = spread(x, 4)
    assert torch.equal(got[:, :3], x)
    for i in range(8):
        mates = x[[j for j in range(8) if j % 2 == i % 2]].double()  # two groups of four
        expected = (mates.var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(got[i, 3], expected.expand(4, 4).float())
    assert spread(x[:7], 4).shape == (7, 4, 4, 4)  # groups of one


def test_the_discriminator_sees_images_in_a_frame_of_background_and_the_label_twice():
    torch.manual_seed(0)
    small28, whole = Discriminator(1, (28, 28), 5, 8), Discriminator(1, (32, 32), 5, 8)
    whole.load_state_dict(small28.state_dict())
    x, y = torch.randn(4, 1, 28, 28), torch.arange(4)
    framed = torch.full((4, 1, 32, 32), -1.0)
    framed[:, :, 2:30, 2:30] = x
    torch.testing.assert_close(small28(x, y), whole(framed, y))
    with torch.no_grad():
        small28.free.weight.zero_()
        small28.free.bias.zero_()
    label_only = small28(x, y)
    with torch.no_grad():
        small28.embedding.mul_(3)
        torch.testing.assert_close(small28(x, y), label_only)  # normalised
        small28.embedding.mul_(-1)
    torch.testing.assert_close(small28(x, y), -label_only)
