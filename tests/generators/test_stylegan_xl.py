"""StyleGAN-XL: against a naive version with the attribute names of the published pickles, which the conversion script also reads."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_xl import published, upfirdn

from dd.config import parse
from dd.errors import ConfigError
from dd.generators import _alias_free, stylegan_xl
from dd.generators._alias_free import Facts, LayerFacts, resampling


def styles(g, n, seed=2):
    """Return ws that differ from stage to stage, so that a mixed-up index shows."""
    return torch.randn(n, g.num_ws, g.w_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_table_of_imagenet128_follows_from_the_published_formulas():
    facts, _ = published(16, 10, [7, 7, 7])
    facts = parse(Facts, facts, "test")
    assert facts.faults() == []
    with torch.device("meta"):
        g = stylegan_xl.StyleGANXL(facts)
        ws = torch.zeros(1, g.num_ws, g.w_dim)
    assert (g.num_stages, g.num_ws, g.z_dim, g.w_dim) == (26, 27, 64, 512)
    shapes = [(1024, 36, 36)] * 10 + [(1024, 52, 52)] * 5 + [(1024, 84, 84)] * 5 + [(1024, 148, 148)]
    shapes += [(c, 148, 148) for c in (861, 724, 609, 512)] + [(512, 128, 128), (3, 128, 128)]
    assert [g.feature_shape(cut) for cut in range(27)] == shapes
    f = g.start(ws)
    for cut, shape in enumerate(shapes):
        f = g.advance(f, ws, cut - 1, 1) if cut else f
        assert tuple(f.shape[1:]) == shape
    for heads, stages in (([], 11), ([7], 16), ([7, 7], 21)):
        assert len(published(16, 10, heads)[0]["layers"]) == stages


def test_the_converted_generator_equals_the_naive_one(tiny, net):
    reference = copy.deepcopy(tiny[1]).double()
    z, y = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64), torch.tensor([2, 0, 1])
    ws = net.map(z, y)
    torch.testing.assert_close(ws, reference.mapping(z, F.one_hot(y, 3)), rtol=1e-6, atol=1e-7)  # gains were applied in float32
    torch.testing.assert_close(net(z, y), reference(z, F.one_hot(y, 3)), rtol=1e-5, atol=1e-5)
    ws = styles(net, 2)
    f = net.start(ws)
    torch.testing.assert_close(f, reference.synthesis.input(ws[:, 0]), rtol=1e-5, atol=1e-5)
    for k, name in enumerate(reference.synthesis.layer_names):
        expected = getattr(reference.synthesis, name)(f, ws[:, k + 1])
        f = net.advance(f, ws, k, 1)
        torch.testing.assert_close(f, expected, rtol=1e-6, atol=1e-6, msg=lambda text, k=k: f"stage {k}: {text}")


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_cut_leads_to_the_same_image(net, converted, kind, tolerance):
    g = net if kind == torch.float64 else stylegan_xl.load(converted)
    ws = styles(g, 2).to(kind)
    f0 = g.start(ws)
    whole = g.decode(f0, ws, 0)
    assert whole.shape == (2, 3, 32, 32)
    assert whole.dtype == kind
    assert whole.std() > 1e-2
    f = {cut: g.advance(f0, ws, 0, cut) for cut in range(g.num_stages + 1)}
    for cut, value in f.items():
        assert tuple(value.shape[1:]) == g.feature_shape(cut)
        torch.testing.assert_close(g.decode(value, ws, cut), whole, rtol=0, atol=tolerance)
        for m in range(g.num_stages - cut + 1):
            torch.testing.assert_close(g.advance(value, ws, cut, m), f[cut + m], rtol=0, atol=10 * tolerance)
    assert torch.equal(f[g.num_stages] * 0.25, whole)  # the output's scale is in decode only
    for cut, m in ((-1, 1), (0, 7), (3, 4), (2, -1)):
        with pytest.raises(ConfigError, match="allowed: 0 to 5"):
            g.advance(f0, ws, cut, m)
    for cut in (-1, 7):
        with pytest.raises(ConfigError, match="cut: value"):
            g.feature_shape(cut)


def test_an_image_does_not_depend_on_the_others(net):
    ws, other = styles(net, 4), 30 * styles(net, 4, seed=9)
    other[2] = ws[2]
    images, others = (net.decode(net.start(w), w, 0) for w in (ws, other))
    torch.testing.assert_close(images[2], others[2], rtol=0, atol=1e-12)
    torch.testing.assert_close(net.decode(net.start(ws[2:3]), ws[2:3], 0)[0], images[2], rtol=0, atol=1e-12)


def test_stage_k_reads_style_k_plus_1_and_gradients_reach_f_and_ws(net):
    ws = styles(net, 2).requires_grad_()
    for cut in range(net.num_stages):
        f = net.advance(net.start(ws), ws, 0, cut).detach().requires_grad_()
        to_f, to_ws = torch.autograd.grad(net.decode(f, ws, cut).square().sum(), (f, ws))
        assert (to_f != 0).any()
        read = (to_ws != 0).any(2)
        assert read[:, cut + 1 :].all()
        assert not read[:, : cut + 1].any()
    assert (torch.autograd.grad(net.start(ws).square().sum(), ws)[0] != 0).any(2).tolist() == [[True] + [False] * net.num_stages] * 2


@pytest.mark.parametrize(("up", "down", "padding"), [(2, 2, (9, 8)), (4, 2, (-6, -11)), (2, 1, (3, 4)), (1, 1, (0, 0))])
def test_the_filtered_leaky_relu_equals_zeros_convolutions_and_decimation(up, down, padding):
    numbers = torch.Generator().manual_seed(up + down)
    taps = [torch.randn(6 * factor if factor > 1 else 1, generator=numbers, dtype=torch.float64) for factor in (up, down)]  # not symmetric
    facts = LayerFacts(
        name="L", inputs=2, outputs=3, in_size=12, out_size=1, kernel=3, up=up, down=down, up_taps=len(taps[0]), down_taps=len(taps[1]),
        padding=padding, colours=False, clamp=0.9,
    )  # fmt: skip
    out = (facts.high - facts.down_taps) // down + 1
    layer = _alias_free.Layer(facts.model_copy(update={"out_size": out}), 4).double()
    layer.up_filter, layer.down_filter = taps
    with torch.no_grad():
        layer.weight.normal_(generator=numbers)
        layer.bias.normal_(generator=numbers)
    f, w = torch.randn(2, 2, 12, 12, generator=numbers, dtype=torch.float64), torch.randn(2, 4, generator=numbers, dtype=torch.float64)
    x = layer.convolved(f, layer.affine(w)) + layer.bias[:, None, None]
    x = upfirdn(x, taps[0] * up, up, 1, *padding)
    assert x.shape[-1] == facts.high
    x = (torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)).clamp(-0.9, 0.9)
    expected = upfirdn(x, taps[1], 1, down, 0, 0)
    torch.testing.assert_close(layer(f, w), expected, rtol=0, atol=1e-10)
    assert expected.shape[-1] == out
    assert (x.abs() == 0.9).any()


def test_resampling_is_a_convolution_with_zeros_between_samples():
    taps, x = torch.randn(7, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    stuffed = np.zeros(3 + 15 + 2)
    stuffed[3:18:3] = x.numpy()
    expected = np.convolve(stuffed, taps.numpy(), mode="valid")[::2]
    got = resampling(taps, 3, 2, 3, 5, len(expected)) @ x
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_a_modulated_convolution_ignores_the_length_of_its_style(net):
    layer, style = net.stages[1], torch.randn(2, net.stages[1].facts.inputs, dtype=torch.float64)
    f = torch.randn(2, layer.facts.inputs, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer.convolved(f, 7 * style), layer.convolved(f, style), rtol=0, atol=1e-12)
    faint = copy.deepcopy(layer)
    faint.weight.mul_(1e-6)  # the length of its filters neither: they are scaled before the 1e-8 is added
    torch.testing.assert_close(faint.convolved(f, style), layer.convolved(f, style), rtol=0, atol=1e-12)
    colours = net.stages[-1]
    style, f = torch.randn(2, colours.facts.inputs, dtype=torch.float64), torch.randn(2, colours.facts.inputs, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(colours.convolved(f, 7 * style), 7 * colours.convolved(f, style))


def test_means_of_w(tiny, net, converted):
    y = torch.tensor([2, 0])
    got = net.mean_w(y, 50, torch.Generator().manual_seed(3))
    numbers = torch.Generator().manual_seed(3)
    for row, label in zip(got, y, strict=True):
        z = torch.randn(50, 4, generator=numbers).double()
        torch.testing.assert_close(row[0], net.map(z, label.repeat(50))[:, 0].mean(0), rtol=0, atol=1e-12)
        assert (row == row[0]).all()
    with pytest.raises(ConfigError, match="count: value 0"):
        net.mean_w(y, 0, numbers)
    stored = net.stored_mean_w(y)
    torch.testing.assert_close(stored, tiny[1].mapping.w_avg[y][:, None].double().expand(2, net.num_ws, 8))
    few = stylegan_xl.load(converted, classes=[2, 0])
    assert few.classes == 2
    z = torch.randn(2, 4)
    torch.testing.assert_close(few.map(z, torch.tensor([0, 1])).double(), net.map(z.double(), y), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(few.stored_mean_w(torch.tensor([0, 1])).double(), stored)
    with pytest.raises(ConfigError, match=r"classes: value \[3\]; allowed: 0 to 2"):
        stylegan_xl.load(converted, classes=[0, 3])
    with pytest.raises(ConfigError, match="at least one"):
        stylegan_xl.load(converted, classes=[])
