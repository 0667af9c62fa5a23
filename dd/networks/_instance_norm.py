r"""Instance norm, alone or with the ReLU and 2x2 mean pooling that follow it in ConvNets, with derivatives written out, for the CPU.

With x̂ = (x - mean) r, r = 1 / sqrt(var + 1e-5), over the M pixels of one channel of one image, and P v = v - mean(v) - x̂ mean(v x̂):

.. math:: y = \gamma \hat x + \beta, \qquad
          \partial x = r \gamma P g, \quad \partial\gamma = \textstyle\sum g \hat x, \quad \partial\beta = \sum g

for a gradient g of y. What gradients of gradients need (MTT, DSA) is, for gradients v of ∂x, a of ∂γ and b of ∂β,

.. math:: \partial g &= r \gamma P v + a \hat x + b, \qquad \partial\gamma = \textstyle\sum r\, v\, P g, \\
          \partial x &= -r^2 \gamma \big( \hat x\, \overline{v\, P g} + \overline{g \hat x}\, P v + \overline{v \hat x}\, P g \big)
                        + a\, r P g.

All are sums over pixels, and then one number times x, g and v each: passes over memory in channels-last layout. Where ReLU and pooling
follow, g is the gradient of what they return, spread over four pixels where y > 0, and ∂g is gathered likewise.

What costs is not arithmetic but memory that is written for the first time. So y is not kept, but made again from x, and a temporary's
memory takes the next result (`out`). Torch's group norm takes several times as long backward in this layout, and it puts the second
derivative together from small operations. There are two derivatives and no third, and none of torch.func's transforms: `dd.fast.plain()`
is for those.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
        if not self.takes(x):
            return super().forward(x)
        y: Tensor = _Norm.apply(x, self.weight, self.bias, False)
        return y

    def pooled(self, x: Tensor) -> Tensor:
        """Return 2x2 means of ReLU of the normalised images, (n, c, h / 2, w / 2), of images that it `takes`; h and w are even."""
        y: Tensor = _Norm.apply(x, self.weight, self.bias, True)
        return y

    def takes(self, x: Tensor) -> bool:
        """Tell whether images take the fast path: in channels-last layout, which is the network's choice (`Chain.layout`)."""
        return fast.active(x) and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, pooled: bool) -> Tensor:
        y, mean, r = _normalised(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, mean, r)
        ctx.pooled = pooled
        return F.avg_pool2d(y.relu_(), 2) if pooled else y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_Backward.apply(g, *ctx.saved_tensors, ctx.pooled), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, r: Tensor, pooled: bool) -> Any:
        rows = _rows(x)
        g = _spread(g, x, _affine(rows, mean, r, weight, bias)) if pooled else _rows(g)
        product = g * rows
        sums = _sums(g, product, mean, r)
        ctx.save_for_backward(g, x, weight, bias, mean, r, *sums)
        ctx.pooled = pooled
        of_x = _mixed(rows, mean, r, 0.0, 0.0, (g, sums, r * weight), out=product)
        return _image(of_x, x), sums[1].sum((0, 1)), sums[0].sum((0, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, a: Tensor, b: Tensor) -> Any:
        g, x, weight, bias, mean, r, sum_g, sum_gx = ctx.saved_tensors
        rows, v = _rows(x), _rows(v)
        product = v * rows
        sum_v, sum_vx = _sums(v, product, mean, r)
        m, scale = rows.shape[1], -r.square() * weight
        sum_vpg = torch.mul(v, g, out=product).sum(1, keepdim=True) - (sum_v * sum_g + sum_vx * sum_gx) / m
        of_g = of_x = None
        if ctx.needs_input_grad[0]:
            of_g = _mixed(rows, mean, r, a, b, (v, (sum_v, sum_vx), r * weight), out=product)
            product = _affine(rows, mean, r, weight, bias) if ctx.pooled else torch.empty_like(rows)
            of_g = _gathered(of_g, x, product) if ctx.pooled else _image(of_g, x)
        if ctx.needs_input_grad[1]:
            parts = (v, (sum_v, sum_vx), scale * sum_gx / m), (g, (sum_g, sum_gx), scale * sum_vx / m + a * r)
            of_x = _image(_mixed(rows, mean, r, scale * sum_vpg / m, 0.0, *parts, out=product), x)
        return of_g, of_x, (r * sum_vpg).sum((0, 1)), None, None, None, None


def _normalised(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, (n, c, h, w), and mean and r, (n, 1, c) each.

    Torch's kernel for this layout is fast from 1,024 pixels on, but takes the variance as mean of squares less square of mean: that loses
    digits where a mean is many standard deviations, and then two passes are taken.
    """
    n, c, h, w = x.shape
    if h * w >= 1024:
        y, mean, r = torch.native_group_norm(x, weight, bias, n, c, h * w, c, EPS)
        if float((mean.abs() * r).max()) <= 8:
            return y, mean.unsqueeze(1), r.unsqueeze(1)
    y = torch.empty_like(x)  # not a view, which nobody could change in place
    rows, centred = _rows(x), _rows(y)
    mean = rows.mean(1, keepdim=True)
    torch.sub(rows, mean, out=centred)
    r = centred.square().mean(1, keepdim=True).add_(EPS).rsqrt_()
    torch.addcmul(bias, centred, r * weight, out=centred)
    return y, mean, r


def _rows(x: Tensor) -> Tensor:
    """Return (n, h * w, c) of (n, c, h, w), without a copy where channels are last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(rows: Tensor, x: Tensor) -> Tensor:
    """Return rows in the shape of x, (n, c, h, w)."""
    return rows.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def _affine(rows: Tensor, mean: Tensor, r: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return y of x, in rows."""
    return torch.addcmul(bias - mean * r * weight, rows, r * weight)


def _sums(v: Tensor, product: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over pixels of v and of v x̂, (n, 1, c) each, for product = v x."""
    total = v.sum(1, keepdim=True)
    return total, (product.sum(1, keepdim=True) - mean * total) * r


def _mixed(
    rows: Tensor, mean: Tensor, r: Tensor, hat: Any, shift: Any, *parts: tuple[Tensor, tuple[Tensor, Tensor], Tensor], out: Tensor
) -> Tensor:
    """Write hat x̂ + shift + the sum of scale P v over the parts (v, its sums, scale) into `out`, and return it."""
    m = rows.shape[1]
    for _, (total, with_hat), scale in parts:
        hat = hat - scale * with_hat / m
        shift = shift - scale * total / m
    torch.addcmul(shift - hat * r * mean, rows, hat * r, out=out)
    for v, _, scale in parts:
        out.addcmul_(v, scale)
    return out


def _spread(g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of y, in rows, for that of its pooled ReLU; y's memory takes it."""
    n, c, h, w = x.shape
    quarter = (g * 0.25).permute(0, 2, 3, 1).reshape(n, h // 2, 1, w // 2, 1, c)
    pixels = y.view(n, h // 2, 2, w // 2, 2, c)
    torch.ops.aten.threshold_backward.grad_input(quarter.expand_as(pixels), pixels, 0, grad_input=pixels)
    return y


def _gathered(of_g: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return what `_spread` makes of a gradient of its result: 2x2 means where y > 0."""
    torch.ops.aten.threshold_backward.grad_input(of_g, y, 0, grad_input=of_g)
    return F.avg_pool2d(_image(of_g, x), 2)
