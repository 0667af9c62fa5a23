"""StyleGAN-XL as published: its design from the formulas, and a naive version with the attribute names of the pickles."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import firwin
from torch import nn

MARGIN, CRITICAL, TAPS = 10, 2, 6
SCRIPT = Path(__file__).parents[2] / "docs" / "convert_stylegan_xl.py"


@cache
def conversion():
    """Return the conversion script as a module."""
    spec = importlib.util.spec_from_file_location("convert_stylegan_xl", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
