"""StyleGAN-XL: against a naive version with the attribute names of the published pickles, which the conversion script also reads."""

import copy
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import firwin
from torch import nn

from dd.artifacts import load_tensors, save_tensors
from dd.config import parse
from dd.errors import ArtifactError, ConfigError
from dd.generators import _alias_free, stylegan_xl
from dd.generators._alias_free import Facts, LayerFacts, resampling

SCRIPT = Path(__file__).parents[2] / "docs" / "convert_stylegan_xl.py"
MARGIN, CRITICAL, TAPS = 10, 2, 6


# The published design, from the formulas of the StyleGAN3 paper and what StyleGAN-XL changes.


def bands(count, side, first, base, widest, last_stop=2**0.3, kept=None):
    """Return per layer 0..count: cutoff, half width, sampling rate, size, channels. `first`: cutoff and stopband; kept: the stem's last."""
    last = side / 2
    share = np.minimum(np.arange(count + 1) / (count - CRITICAL), 1)
    cutoffs = first[0] * (last / first[0]) ** share
    stops = first[1] * (last * last_stop / first[1]) ** share
    rates = np.exp2(np.ceil(np.log2(np.minimum(stops * 2, side))))
    if kept is not None:
        rates[0] = kept["rate"]
    sizes = rates + 2 * MARGIN
    sizes[-2:] = side
    channels = np.rint(np.minimum(base / 2 / cutoffs, widest))
    channels[-1] = 3
    halves = np.maximum(stops, rates / 2) - cutoffs
    columns = {"cutoff": cutoffs, "stop": stops, "half": halves, "rate": rates, "size": sizes, "channels": channels}
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(count + 1)]


def design(stem_side, stem_layers, heads, base=65536, widest=1024):
    """Return (input, layers): (in, out, colours, critical) of every layer, for a stem and `heads` = counts of layers of doublings."""
    here = bands(stem_layers, stem_side, (2.0, 2**2.1), base, widest)
    pairs = [(here[max(i - 1, 0)], here[i], i == stem_layers, i >= stem_layers - CRITICAL) for i in range(stem_layers + 1)]
    side, first = stem_side, here[0]
    for count in heads:
        side, pairs = side * 2, pairs[: -(CRITICAL + 1)]
        kept = pairs[-1][1]
        here = bands(count, side, (kept["cutoff"], kept["stop"]), base, widest, kept=kept)
        here[0] = here[0] | {"size": kept["size"], "half": kept["half"]}
        pairs += [(here[max(i - 1, 0)], here[i], i == count, i >= count - CRITICAL) for i in range(count + 1)]
    return first, pairs


def described(before, after, colours, name):
    """Return a layer's facts and its two filters."""
    high = max(before["rate"], after["rate"]) * (1 if colours else 2)
    up, down, kernel = int(high / before["rate"]), int(high / after["rate"]), 1 if colours else 3

    def lowpass(factor, band):
        if factor == 1 or colours:
            return np.ones(1)
        return firwin(TAPS * factor, band["cutoff"], width=band["half"] * 2, fs=high)

    filters = lowpass(up, before), lowpass(down, after)
    up_taps, down_taps = (len(f) for f in filters)
    inside, outside = int(before["size"]), int(after["size"])
    total = (outside - 1) * down + 1 - (inside + kernel - 1) * up + up_taps + down_taps - 2
    low = (total + up) // 2
    facts = {
        "name": name, "inputs": int(before["channels"]), "outputs": int(after["channels"]), "in_size": inside, "out_size": outside,
        "kernel": kernel, "up": up, "down": down, "up_taps": up_taps, "down_taps": down_taps, "padding": [low, total - low],
        "colours": colours, "clamp": 256.0,
    }  # fmt: skip
    return facts, filters


def published(stem_side, stem_layers, heads, **widths):
    """Return the facts and filters of a whole generator."""
    first, pairs = design(stem_side, stem_layers, heads, **widths)
    both = [described(before, after, colours, f"L{k}") for k, (before, after, colours, _) in enumerate(pairs)]
    facts = {
        "z_dim": 64, "w_dim": 512, "classes": 1000, "embedding": 320, "mapping_layers": 2, "output_scale": 0.25,
        "input": {"channels": int(first["channels"]), "size": int(first["size"]), "sampling_rate": first["rate"], "bandwidth": first["cutoff"]},
        "layers": [facts for facts, _ in both],
    }  # fmt: skip
    return facts, [filters for _, filters in both]


# The naive version: zeros between samples, convolutions, weights of each image. Attributes as in the published pickles.


def upfirdn(x, taps, up, down, low, high):
    """Return x (n, c, h, w) with zeros between samples, padded, convolved on both axes with the kernel `taps`, and decimated."""
    n, c, h, w = x.shape
    stuffed = x.new_zeros(n, c, h * up, w * up)
    stuffed[:, :, ::up, ::up] = x
    kernel = torch.outer(taps, taps).flip(0, 1)[None, None].to(x).expand(c, 1, -1, -1)
    return F.conv2d(F.pad(stuffed, (low, high, low, high)), kernel, groups=c)[:, :, ::down, ::down]


class Linear(nn.Module):
    def __init__(self, inputs, outputs, activation="linear", multiplier=1.0, spread=1.0, bias=0.0):
        super().__init__()
        self.activation, self.weight_gain, self.bias_gain = activation, multiplier / math.sqrt(inputs), multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * spread / multiplier)
        self.bias = nn.Parameter((torch.randn(outputs) * 0.1 + torch.as_tensor(bias)) / multiplier)

    def forward(self, x):
        x = x @ (self.weight * self.weight_gain).t() + self.bias * self.bias_gain
        return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2) if self.activation == "lrelu" else x


class Mapping(nn.Module):
    def __init__(self, facts):
        super().__init__()
        self.num_ws, z_dim, w_dim = len(facts["layers"]) + 1, facts["z_dim"], facts["w_dim"]
        self.embed = nn.Embedding(facts["classes"] + 2, facts["embedding"])  # more rows than classes, as CIFAR-10's
        self.embed_proj = Linear(facts["embedding"], z_dim, "lrelu")
        self.fc0 = Linear(2 * z_dim, w_dim, "lrelu", 0.01)
        self.fc1 = Linear(w_dim, w_dim, "lrelu", 0.01)
        self.register_buffer("w_avg", torch.randn(facts["classes"], w_dim))

    def forward(self, z, c):
        x = torch.cat([v / (v.square().mean(1, keepdim=True) + 1e-8).sqrt() for v in (z, self.embed_proj(self.embed(c.argmax(1))))], 1)
        return self.fc1(self.fc0(x)).unsqueeze(1).repeat(1, self.num_ws, 1)


class Fourier(nn.Module):
    def __init__(self, facts, w_dim):
        super().__init__()
        channels = facts["channels"]
        self.size, self.sampling_rate, self.bandwidth = np.array([facts["size"]] * 2), facts["sampling_rate"], facts["bandwidth"]
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = Linear(w_dim, 4, spread=0.3, bias=torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("freqs", torch.randn(channels, 2) * self.bandwidth)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.tensor([[0.9, -0.2, 0.3], [0.1, 1.1, -0.2], [0.0, 0.0, 1.0]]))

    def forward(self, w):
        t, size, images = self.affine(w), int(self.size[0]), []
        for c, s, tx, ty in t / t[:, :2].square().sum(1, keepdim=True).sqrt():
            one = torch.ones_like(c)
            turn = torch.stack([c, -s, 0 * one, s, c, 0 * one, 0 * one, 0 * one, one]).reshape(3, 3)
            move = torch.stack([one, 0 * one, -tx, 0 * one, one, -ty, 0 * one, 0 * one, one]).reshape(3, 3)
            whole = turn @ move @ self.transform
            u = (torch.arange(size).to(w) - (size - 1) / 2) / self.sampling_rate
            place = (
                torch.stack([u[None, :].expand(size, size), u[:, None].expand(size, size), torch.ones(size, size).to(w)], -1) @ whole.t()
            )
            channels = []
            for f, phase in zip(self.freqs, self.phases, strict=True):
                length = (f @ whole[:2, :2]).norm()
                a = 1 - (length - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
                channels.append(
                    min(max(a, 0 * a), 0 * a + 1) * torch.sin(2 * math.pi * (place[..., 0] * f[0] + place[..., 1] * f[1] + phase))
                )
            images.append(torch.stack(channels, -1) @ (self.weight / math.sqrt(len(self.weight))).t())
        return torch.stack(images).permute(0, 3, 1, 2)


class Layer(nn.Module):
    def __init__(self, facts, filters, w_dim):
        super().__init__()
        self.in_channels, self.out_channels = facts["inputs"], facts["outputs"]
        self.in_size, self.out_size = np.array([facts["in_size"]] * 2), np.array([facts["out_size"]] * 2)
        self.conv_kernel, self.is_torgb, self.conv_clamp = facts["kernel"], facts["colours"], facts["clamp"]
        self.up_factor, self.down_factor, self.up_taps, self.down_taps = (facts[k] for k in ("up", "down", "up_taps", "down_taps"))
        self.padding = facts["padding"] * 2
        self.affine = Linear(w_dim, self.in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(self.out_channels, self.in_channels, self.conv_kernel, self.conv_kernel) * 1.7)
        self.bias = nn.Parameter(torch.randn(self.out_channels) * 0.2)
        self.register_buffer("magnitude_ema", torch.rand([]) + 0.5)
        for name, taps in zip(("up_filter", "down_filter"), filters, strict=True):
            self.register_buffer(name, None if len(taps) == 1 else torch.as_tensor(taps, dtype=torch.float32))

    def forward(self, x, w):
        s, weight, images = self.affine(w), self.weight, []
        if self.is_torgb:
            s = s / math.sqrt(self.in_channels)
        else:
            weight = torch.stack([v / v.square().mean().sqrt() for v in weight])
            s = s / s.square().mean().sqrt()  # over the batch, as published
        for image, style in zip(x, s, strict=True):
            mine = weight * style[None, :, None, None]
            if not self.is_torgb:
                mine = torch.stack([v / (v.square().sum() + 1e-8).sqrt() for v in mine])
            images.append(F.conv2d(image[None], mine / self.magnitude_ema.sqrt(), padding=self.conv_kernel - 1)[0])
        return self.filtered(torch.stack(images) + self.bias[:, None, None])

    def filtered(self, x):
        low, high = self.padding[:2]
        up, down = (torch.ones(1) if f is None else f for f in (self.up_filter, self.down_filter))
        x = upfirdn(x, up.to(x) * self.up_factor, self.up_factor, 1, low, high)
        if not self.is_torgb:
            x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
        return upfirdn(x.clamp(-self.conv_clamp, self.conv_clamp), down.to(x), 1, self.down_factor, 0, 0)


class Synthesis(nn.Module):
    def __init__(self, facts, filters):
        super().__init__()
        self.output_scale, self.input = facts["output_scale"], Fourier(facts["input"], facts["w_dim"])
        self.layer_names = [layer["name"] for layer in facts["layers"]]
        for layer, two in reversed(list(zip(facts["layers"], filters, strict=True))):  # names in another order than calls
            setattr(self, layer["name"], Layer(layer, two, facts["w_dim"]))

    def forward(self, ws):
        x = self.input(ws[:, 0])
        for k, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, ws[:, k + 1])
        return x * self.output_scale


class Published(nn.Module):
    def __init__(self, facts, filters):
        super().__init__()
        self.mapping, self.synthesis = Mapping(facts), Synthesis(facts, filters)

    def forward(self, z, c):
        return self.synthesis(self.mapping(z, c))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_stylegan_xl", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny():
    """Return (facts, the naive generator): 16 pixels, 5 layers, of which 2 stay, and 4 for 32 pixels."""
    torch.manual_seed(0)
    facts, filters = published(16, 4, [3], base=64, widest=6)
    facts |= {"z_dim": 4, "w_dim": 8, "classes": 3, "embedding": 5}
    return facts, Published(facts, filters).requires_grad_(False)


@pytest.fixture(scope="module")
def converted(script, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("xl") / "tiny.safetensors"
    script.write(str(path), *script.convert(tiny[1], "0" * 64))
    return path


@pytest.fixture(scope="module")
def net(converted):
    return stylegan_xl.load(converted).double()


def styles(g, n, seed=2):
    """Return ws that differ from stage to stage, so that a mixed-up index shows."""
    return torch.randn(n, g.num_ws, g.w_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def changed(path, tmp_path, tensors=(), **meta):
    """Return the path of a copy with other metadata and tensors."""
    held, old = load_tensors(path)
    out = tmp_path / "changed.safetensors"
    save_tensors(out, held | dict(tensors), old | meta)
    return out


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


def test_a_loaded_generator_is_frozen_and_its_facts_are_those_of_the_source(tiny, converted):
    g = stylegan_xl.load(converted)
    assert not g.training
    assert not any(p.requires_grad for p in g.parameters())
    assert {p.dtype for p in g.state_dict().values()} == {torch.float32}
    assert json.loads(g.facts.model_dump_json()) == json.loads(json.dumps(tiny[0]))
    assert (g.channels, g.size, g.classes) == (3, (32, 32), 3)
    _, meta = load_tensors(converted)
    assert meta["config"]["generator"] == "stylegan_xl"
    assert meta["source_sha256"] == "0" * 64


def test_the_check_reproduces_the_samples_of_the_source_and_sees_where_they_differ(converted, tmp_path):
    assert max(stylegan_xl.check(converted).values()) < 1e-4
    tensors, _ = load_tensors(converted)
    worse = {"generator.stages.3.magnitude": tensors["generator.stages.3.magnitude"] * 1.5}
    with pytest.raises(ArtifactError, match=r"not reproduced.*from cut 4 on"):
        stylegan_xl.check(changed(converted, tmp_path, worse))
    with pytest.raises(ArtifactError, match="not reproduced: ws nan"):
        stylegan_xl.check(changed(converted, tmp_path, {"check.ws": tensors["check.ws"] * math.nan}))
    few = {name: value for name, value in tensors.items() if name != "check.rms"}
    save_tensors(tmp_path / "few.safetensors", few, load_tensors(converted)[1])
    with pytest.raises(ArtifactError, match=r"check\.rms is missing"):
        stylegan_xl.check(tmp_path / "few.safetensors")
    assert stylegan_xl.load(tmp_path / "few.safetensors").num_stages == 6


def test_damaged_and_foreign_files_are_refused_with_reasons(converted, tmp_path):
    tensors, meta = load_tensors(converted)
    facts = meta["stylegan_xl"]

    def message(given=(), **other):
        with pytest.raises(ArtifactError) as error:
            stylegan_xl.load(changed(converted, tmp_path, given, **other))
        return str(error.value)

    assert "config.generator is 'mini'" in message(config={"generator": "mini"})
    assert "config.generator is None" in message(config=None)
    assert "w_dim: is missing" in message(stylegan_xl={key: value for key, value in facts.items() if key != "w_dim"})
    assert "z_dim: value 'four'" in message(stylegan_xl=facts | {"z_dim": "four"})
    layers = [dict(layer) for layer in facts["layers"]]
    layers[2]["out_size"] += 1
    text = message(stylegan_xl=facts | {"layers": layers})
    assert "layers.2 (L2): out_size: value" in text
    assert "layers.3 (L3): takes" in text
    layers = [*facts["layers"][:-1], facts["layers"][-1] | {"colours": False}]
    assert "layers.5 (L5): colours: value False" in message(stylegan_xl=facts | {"layers": layers})
    weight = tensors["generator.stages.1.weight"]
    assert "unknown: odd" in message({"generator.odd": weight})
    assert "another shape: stages.1.weight" in message({"generator.stages.1.weight": weight[:, :1]})
    assert "not of float32: stages.1.weight (torch.float64)" in message({"generator.stages.1.weight": weight.double()})
    assert "not finite: stages.1.weight" in message({"generator.stages.1.weight": weight / 0})
    fewer = {name: value for name, value in tensors.items() if name != "generator.input.mix"}
    save_tensors(tmp_path / "fewer.safetensors", fewer, meta)
    with pytest.raises(ArtifactError, match=r"missing: input\.mix"):
        stylegan_xl.load(tmp_path / "fewer.safetensors")
    with pytest.raises(ArtifactError, match="no such file"):
        stylegan_xl.load(tmp_path / "absent.safetensors")
    broken = bytearray(converted.read_bytes())
    broken[-5] ^= 1
    (tmp_path / "broken.safetensors").write_bytes(broken)
    with pytest.raises(ArtifactError, match="damaged"):
        stylegan_xl.load(tmp_path / "broken.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        stylegan_xl.load(tmp_path / "broken.safetensors")


def test_the_conversion_says_what_it_does_not_know(script):
    def fresh(**other):
        torch.manual_seed(0)
        facts, filters = published(16, 4, [], base=16, widest=3)
        facts |= {"z_dim": 4, "w_dim": 8, "classes": 3, "embedding": 5}
        return Published(facts | other, filters)

    def message(change):
        g = fresh()
        change(g)
        with pytest.raises(script.Unexpected) as error:
            script.convert(g, "")
        return str(error.value)

    assert "w_avg: this is no generator" in message(lambda g: delattr(g.mapping, "w_avg"))
    assert "one row for each class" in message(lambda g: g.mapping.register_buffer("w_avg", torch.zeros(8)))
    assert "layer L1 (Layer) lacks up_taps; it has affine, bias" in message(lambda g: delattr(g.synthesis.L1, "up_taps"))
    assert "stages.1.affine (Linear) lacks weight_gain" in message(
        lambda g: g.register_forward_hook(lambda *_: delattr(g.synthesis.L1.affine, "weight_gain"))
    )
    assert "stages.1.affine: activation 'relu'; expected 'linear'" in message(
        lambda g: setattr(g.synthesis.L1.affine, "activation", "relu")
    )
    assert "output_scale: found [0.25, 3.0]" in message(lambda g: setattr(g.mapping, "output_scale", 3.0))
    assert "the images are not output_scale times" in message(lambda g: setattr(g, "forward", lambda z, c: Published.forward(g, z, c) + 1))
    assert "not all numbers are finite" in message(lambda g: g.mapping.w_avg.fill_(math.inf))
    assert "the layer called as number 0 does not read style 1" in message(lambda g: g.synthesis.L0.register_forward_pre_hook(twist))
    assert "in_size" in message(lambda g: setattr(g.synthesis.L1, "in_size", np.array([36, 35])))
    assert "padding" in message(lambda g: g.synthesis.L1.padding.__setitem__(3, 99))


def twist(layer, given):
    """Let a layer read another style than its own."""
    return given[0], given[1] * 1.1


def test_the_script_runs_as_a_program_on_a_pickle_that_the_authors_code_reads(script, tmp_path, monkeypatch, capsys, tiny):
    code = tmp_path / "code"
    code.mkdir()
    (code / "legacy.py").write_text(
        "import held\n\ndef load_network_pkl(file):\n    assert file.read() == b'pickle'\n    return held.content\n"
    )
    (code / "held.py").write_text("content = {'G': 1}\n")
    (tmp_path / "g.pkl").write_bytes(b"pickle")
    out = tmp_path / "g.safetensors"
    monkeypatch.setattr("sys.argv", ["convert", str(tmp_path / "g.pkl"), str(out), "--code", str(code)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match="has no G_ema; it has G"):
        script.main()
    assert not out.exists()
    sys.modules["held"].content["G_ema"] = tiny[1]
    script.main()
    assert "stage  5  L5" in capsys.readouterr().out
    assert max(stylegan_xl.check(out).values()) < 1e-4
