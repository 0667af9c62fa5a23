r"""Instance norm whose first and second derivatives are written out, for the CPU.

With x̂ = (x - mean) r, r = 1 / sqrt(var + 1e-5), over the M pixels of one channel of one image, and P v = v - mean(v) - x̂ mean(v x̂):

.. math:: y = \gamma \hat x + \beta, \qquad
          \partial x = r \gamma P g, \quad \partial\gamma = \textstyle\sum g \hat x, \quad \partial\beta = \sum g

for a gradient g of y. What gradients of gradients need (MTT, DSA) is, for gradients v of ∂x, a of ∂γ and b of ∂β,

.. math:: \partial g &= r \gamma P v + a \hat x + b, \qquad \partial\gamma = \textstyle\sum r\, v\, P g, \\
          \partial x &= -r^2 \gamma \big( \hat x\, \overline{v\, P g} + \overline{g \hat x}\, P v + \overline{v \hat x}\, P g \big)
                        + a\, r P g.

All are sums over pixels, and then one number times x, g and v each: a few passes over memory in channels-last layout, where torch's own
group norm takes 4 times as long backward, and 10 times as long for the second derivative, which it puts together from small operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dd import fast

EPS = 1e-5


class InstanceNorm(nn.GroupNorm):
    """One channel a group: `nn.GroupNorm(channels, channels)`, which it is but for the CPU's fast path (`dd.fast`)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (n, c, h, w)."""
        if not fast.active(x):
            return super().forward(x)
        y: Tensor = _Norm.apply(x.contiguous(memory_format=torch.channels_last), self.weight, self.bias)
        return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y, mean, r = torch.native_group_norm(x, weight, bias, n, c, h * w, c, EPS)
        ctx.save_for_backward(x, weight, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Backward.apply(g, *ctx.saved_tensors)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> Any:
        rows, given, mean, r = _rows(x), _rows(g), mean.unsqueeze(1), r.unsqueeze(1)
        sums = _sums(given, rows, mean, r)
        ctx.save_for_backward(g, x, weight, mean, r, *sums)
        of_x = _mixed(x, mean, r, 0.0, 0.0, (given, sums, r * weight))
        return of_x, sums[1].sum((0, 1)), sums[0].sum((0, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, a: Tensor, b: Tensor) -> Any:
        g, x, weight, mean, r, sum_g, sum_gx = ctx.saved_tensors
        rows, given, second = _rows(x), _rows(g), _rows(v)
        sum_v, sum_vx = _sums(second, rows, mean, r)
        m, scale = rows.shape[1], -r.square() * weight
        sum_vpg = (second * given).sum(1, keepdim=True) - (sum_v * sum_g + sum_vx * sum_gx) / m
        of_g = of_x = None
        if ctx.needs_input_grad[0]:
            of_g = _mixed(x, mean, r, a, b, (second, (sum_v, sum_vx), r * weight))
        if ctx.needs_input_grad[1]:
            parts = (second, (sum_v, sum_vx), scale * sum_gx / m), (given, (sum_g, sum_gx), scale * sum_vx / m + a * r)
            of_x = _mixed(x, mean, r, scale * sum_vpg / m, 0.0, *parts)
        return of_g, of_x, (r * sum_vpg).sum((0, 1)), None, None


def _rows(x: Tensor) -> Tensor:
    """Return (n, h * w, c) of (n, c, h, w), without a copy where channels are last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _sums(v: Tensor, rows: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over pixels of v and of v x̂, (n, 1, c) each."""
    total = v.sum(1, keepdim=True)
    return total, ((v * rows).sum(1, keepdim=True) - mean * total) * r


def _mixed(x: Tensor, mean: Tensor, r: Tensor, hat: Any, shift: Any, *parts: tuple[Tensor, tuple[Tensor, Tensor], Tensor]) -> Tensor:
    """Return hat x̂ + shift + sum of scale P v over the parts (v, its sums, scale), (n, c, h, w)."""
    n, c, h, w = x.shape
    for _, (total, with_hat), scale in parts:
        hat = hat - scale * with_hat / (h * w)
        shift = shift - scale * total / (h * w)
    out = torch.addcmul(shift - hat * r * mean, _rows(x), hat * r)
    for v, _, scale in parts:
        out.addcmul_(v, scale)
    return out.view(n, h, w, c).permute(0, 3, 1, 2)
