"""Layers of an alias-free generator (StyleGAN3, Karras et al., NeurIPS 2021, as StyleGAN-XL uses them), and the facts that size them.

A layer is a convolution whose weights are modulated by a style, and a leaky ReLU that is applied at a higher sampling rate, between two
low-pass filters, so that what it adds above the signal's band is removed again. Filters stand in the file, none is designed here.
Inference only: no equalised learning rates (their gains are part of the stored weights), no noise, magnitudes as they were when
training ended.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dd.config import Frozen
from dd.generators._layers import activate, unit

EPS = 1e-8  # under the root of the demodulation

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class InputFacts(Frozen):
    """The Fourier features: channels; size, a side in samples; sampling_rate and bandwidth, in cycles over the image's side."""

    channels: Count
    size: Count
    sampling_rate: Rate
    bandwidth: Rate


class LayerFacts(Frozen):
    """One layer; every image is square.

    inputs, outputs: channels. in_size, out_size: sides. kernel: side of the convolution, which pads by kernel - 1. up, down: factors of
    the two changes of sampling rate; up_taps, down_taps: lengths of their filters; padding: samples before and after, at the
    higher rate, negative to cut off. colours: the last layer, which is linear and not demodulated. clamp: bound of |x|, or null.
    """

    name: str
    inputs: Count
    outputs: Count
    in_size: Count
    out_size: Count
    kernel: Count
    up: Count
    down: Count
    up_taps: Count
    down_taps: Count
    padding: tuple[int, int]
    colours: bool
    clamp: Rate | None

    @property
    def high(self) -> int:
        """Side of what the leaky ReLU sees."""
        return (self.in_size + self.kernel - 1) * self.up + sum(self.padding) - self.up_taps + 1


class Facts(Frozen):
    """A whole generator.

    embedding: length of a class's vector before it is brought to z_dim. mapping_layers: linear layers of the mapping network after that.
    output_scale: factor of the last layer's output.
    """

    z_dim: Count
    w_dim: Count
    classes: Count
    embedding: Count
    mapping_layers: Count
    output_scale: Rate
    input: InputFacts
    layers: Annotated[tuple[LayerFacts, ...], Field(min_length=1)]

    def faults(self) -> list[str]:
        """Return what does not fit together, one line each: sizes and channels along the chain, and the place of the colours."""
        found, channels, size = [], self.input.channels, self.input.size
        for k, layer in enumerate(self.layers):
            where = f"layers.{k} ({layer.name})"
            if (layer.inputs, layer.in_size) != (channels, size):
                found.append(f"{where}: takes {layer.inputs} channels of {layer.in_size}^2; what comes before gives {channels} of {size}^2")
            made = (layer.high - layer.down_taps) // layer.down + 1
            if made != layer.out_size:
                found.append(f"{where}: out_size: value {layer.out_size}; its factors, filters and padding make {made}")
            if layer.colours != (k == len(self.layers) - 1):
                found.append(f"{where}: colours: value {layer.colours}; true for the last layer and no other")
            channels, size = layer.outputs, layer.out_size
        return found


def resampling(taps: Tensor, up: int, down: int, low: int, inputs: int, outputs: int) -> Tensor:
    """Return the matrix (outputs, inputs) of one axis: up - 1 zeros after every sample, `low` zeros before them all, the convolution with
    the filter `taps` (t,), and every down-th of its values, from the first that has all its terms.

        y_o = sum_i taps[t - 1 - k] x_i,  k = low + up i - down o  in 0 .. t - 1

    As matrices all four changes of rate of a layer take 5 (at 36x36) to 20 percent (at 148x148, 1024 channels) of the multiplications of
    the convolution before them; their gradients are matrices as well.
    """  # noqa: D205
    o, i = (torch.arange(n, device=taps.device) for n in (outputs, inputs))
    k = low + up * i[None, :] - down * o[:, None]
    inside = (k >= 0) & (k < len(taps))
    return torch.where(inside, taps.flip(0)[k.clamp(0, len(taps) - 1)], torch.zeros((), dtype=taps.dtype, device=taps.device))


def on_both_axes(x: Tensor, matrix: Tensor) -> Tensor:
    """Return (n, c, o, o): rows and columns of x (n, c, i, i) mapped by `matrix` (o, i)."""
    return torch.matmul(matrix, torch.matmul(x, matrix.t()))


class Mapping(nn.Module):
    """z (n, z_dim) and class ids (n,) -> w (n, w_dim); w_avg (classes, w_dim): the average w of each class, kept by the training."""

    w_avg: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(facts.classes, facts.embedding))
        self.project = nn.Linear(facts.embedding, facts.z_dim)
        widths = [2 * facts.z_dim] + [facts.w_dim] * facts.mapping_layers
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.register_buffer("w_avg", torch.zeros(facts.classes, facts.w_dim))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Return w; of z and of the label's vector only the directions matter."""
        w = torch.cat([unit(z), unit(activate(self.project(self.embedding[y])))], 1)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class Input(nn.Module):
    """Fourier features that w turns and moves: w (n, w_dim) -> f0 (n, channels, size, size).

    (c, s, t_x, t_y) = affine(w), divided by sqrt(c^2 + s^2). At the place u (cycles; the image spans [-1/2, 1/2] and the margin lies
    outside), with R = ((c, -s), (s, c)) and the file's own transform T:

        x_j(u) = a_j sin(2 pi (g_j . R (T u - t) + phase_j)),  a_j = 1 - (|R^T g_j| - bandwidth) / (rate / 2 - bandwidth), within [0, 1]

    (with T's linear part in |.| as well), and then channels are mixed linearly.
    """

    frequencies: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts = facts.input
        channels = facts.input.channels
        self.affine = nn.Linear(facts.w_dim, 4)
        self.mix = nn.Parameter(torch.zeros(channels, channels))
        self.register_buffer("frequencies", torch.zeros(channels, 2))  # (x, y), cycles over the image's side
        self.register_buffer("phases", torch.zeros(channels))
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor) -> Tensor:
        """Return f0 (n, channels, size, size)."""
        raw = self.affine(w)
        c, s, *move = (raw / raw[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        turn = torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)  # (n, 2, 2)
        offset = (turn @ (self.transform[:2, 2] - torch.stack(move, 1))[:, :, None])[:, :, 0]
        g = self.frequencies @ (turn @ self.transform[:2, :2])  # (n, channels, 2)
        phase = self.phases + offset @ self.frequencies.t()
        fade = (g.norm(dim=2) - self.facts.bandwidth) / (self.facts.sampling_rate / 2 - self.facts.bandwidth)
        at = (torch.arange(self.facts.size, dtype=w.dtype, device=w.device) + 0.5 - self.facts.size / 2) / self.facts.sampling_rate
        cycles = g[:, :, 1, None, None] * at[:, None] + g[:, :, 0, None, None] * at + phase[:, :, None, None]
        waves = torch.sin(2 * math.pi * cycles) * (1.0 - fade).clamp(0.0, 1.0)[:, :, None, None]
        return F.conv2d(waves, self.mix[:, :, None, None])


class Layer(nn.Module):
    """A modulated convolution and a filtered leaky ReLU: f (n, inputs, in_size, in_size), w (n, w_dim) -> (n, outputs, out_size, out_size).

    With s = affine(w), every filter V_j of the weights scaled to a mean square of 1, and s as well (per image):

        out_j = (sum_i V_ji * (s_i x_i)) / sqrt(sum_{i,k} (V_jik s_i)^2 + 1e-8) / sqrt(magnitude) + b_j

    and then: up, leaky ReLU of slope 0.2 times sqrt(2), clamp, down. The layer of the colours has s / sqrt(inputs k^2) instead of both
    scalings and of the root, and no leaky ReLU.

    Differs from the paper: the authors scale s by its mean square over the whole batch. That factor cancels but for the 1e-8, which
    is beside a sum of about inputs k^2; scaled per image, an image does not depend on its batch at all.
    """

    magnitude: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, facts: LayerFacts, w_dim: int) -> None:
        super().__init__()
        self.facts = facts
        self.affine = nn.Linear(w_dim, facts.inputs)
        self.weight = nn.Parameter(torch.zeros(facts.outputs, facts.inputs, facts.kernel, facts.kernel))
        self.bias = nn.Parameter(torch.zeros(facts.outputs))
        self.register_buffer("magnitude", torch.ones(()))  # running mean square of the layer's input
        self.register_buffer("up_filter", torch.zeros(facts.up_taps))
        self.register_buffer("down_filter", torch.zeros(facts.down_taps))

    def forward(self, f: Tensor, w: Tensor) -> Tensor:
        """Return the features after this layer."""
        x = self.convolved(f, self.affine(w)) + self.bias[:, None, None]
        facts = self.facts
        up = resampling(self.up_filter, facts.up, 1, facts.padding[0], x.shape[-1], facts.high) * facts.up
        x = on_both_axes(x, up)
        if not facts.colours:
            x = activate(x)
        if facts.clamp is not None:
            x = x.clamp(-facts.clamp, facts.clamp)
        return on_both_axes(x, resampling(self.down_filter, 1, facts.down, 0, facts.high, facts.out_size))

    def convolved(self, f: Tensor, style: Tensor) -> Tensor:
        """Return f convolved with the weights that `style` (n, inputs) modulates, without bias; sides grow by kernel - 1."""
        padding, gain = self.facts.kernel - 1, self.magnitude.rsqrt()
        if self.facts.colours:
            scale = gain / math.sqrt(self.facts.inputs * self.facts.kernel**2)
            return F.conv2d(f * (style * scale)[:, :, None, None], self.weight, padding=padding)
        weight = self.weight * self.weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        style = style * style.square().mean(1, keepdim=True).rsqrt()
        back = (style.square() @ weight.square().sum((2, 3)).t() + EPS).rsqrt()
        return F.conv2d(f * (style * gain)[:, :, None, None], weight, padding=padding) * back[:, :, None, None]
