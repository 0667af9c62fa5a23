"""What tests of networks share: networks without numbers, numbers that leave no norm at its default, and formulas written out."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd import networks

State = dict[str, Tensor]
PLAN: list[int | str] = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]  # VGG-11: widths and poolings


def count(name: str, channels: int = 3, side: int = 32, classes: int = 10) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in networks.build(name, channels, (side, side), classes).parameters())


def shapes(name: str, channels: int, side: int) -> list[tuple[int, ...]]:
    """Return the shape of every stage, without the number of images."""
    with torch.device("meta"):
        net = networks.build(name, channels, (side, side), 10)
        return [tuple(stage.shape[1:]) for stage in net.stages(torch.zeros(2, channels, side, side))]


def embedding(name: str, side: int) -> tuple[int, ...]:
    """Return the shape of the embedding of two images with three channels."""
    with torch.device("meta"):
        return tuple(networks.build(name, 3, (side, side), 10).embed(torch.zeros(2, 3, side, side)).shape)


def filled(net: nn.Module, g: torch.Generator) -> State:
    """Draw every vector of a network in float64, so that no norm or statistic stays at its default; return a copy of its tensors."""
    for value in net.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=g, dtype=torch.float64) + 0.5)
    return {key: value.clone() for key, value in net.state_dict().items()}


# Numbers of parameters.


def conv(inputs: int, outputs: int, kernel: int = 3, bias: bool = True) -> int:
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


def convnet_parameters(depth: int, left: int) -> int:
    """Of a ConvNet of 128 channels with norms, for three channels and ten classes; left: pixels on a side of the last stage."""
    return conv(3, 128) + (depth - 1) * conv(128, 128) + depth * 256 + 128 * left**2 * 10 + 10


def alexnet_parameters(channels: int, classes: int, left: int = 4) -> int:
    """left: pixels on a side of the last stage."""
    layers = conv(channels, 128, 5) + conv(128, 192, 5) + conv(192, 256) + conv(256, 192) + conv(192, 192)
    return layers + 192 * left**2 * classes + classes


def vgg_parameters(channels: int, classes: int, linear: tuple[int, ...] = (512,)) -> int:
    """linear: inputs of the linear layers."""
    widths = [channels, *(item for item in PLAN if isinstance(item, int))]
    return sum(conv(i, o) + 2 * o for i, o in pairwise(widths)) + sum(i * o + o for i, o in pairwise((*linear, classes)))


def resnet18_parameters(channels: int, classes: int, stem: int) -> int:
    """stem: pixels on a side of the first convolution's kernel."""
    total, inputs = conv(channels, 64, stem, bias=False) + 128, 64
    for outputs in (64, 128, 256, 512):
        total += conv(inputs, outputs, bias=False) + 3 * conv(outputs, outputs, bias=False) + 8 * outputs
        total += conv(inputs, outputs, 1, bias=False) + 2 * outputs if inputs != outputs else 0
        inputs = outputs
    return total + 512 * classes + classes


# What networks compute.


def normed(x: Tensor, s: State, name: str, kind: str, training: bool) -> Tensor:
    """Return the norm `name` of x; kind: in or bn."""
    dims = (0, 2, 3) if kind == "bn" else (2, 3)
    mean, var = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
    if kind == "bn" and not training:
        mean, var = s[f"{name}.running_mean"].view(1, -1, 1, 1), s[f"{name}.running_var"].view(1, -1, 1, 1)
    return (x - mean) / (var + 1e-5).sqrt() * s[f"{name}.weight"].view(1, -1, 1, 1) + s[f"{name}.bias"].view(1, -1, 1, 1)


def vgg_features(x: Tensor, s: State, kind: str, training: bool, padding: int = 1, plan: list[int | str] = PLAN) -> Tensor:
    """Return what comes out of VGG's convolutions and poolings; padding: of the first."""
    block, h = 0, x
    for item in plan:
        if item == "M":
            h = F.max_pool2d(h, 2)
            continue
        p = f"blocks.{block}"
        h = F.conv2d(h, s[f"{p}.0.weight"], s[f"{p}.0.bias"], padding=padding if block == 0 else 1)
        h = normed(h, s, f"{p}.1", kind, training).clamp(min=0)
        block += 1
    return h
