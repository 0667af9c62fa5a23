"""Matching whole distributions of features by a kernel, class by class (M3D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from dd.objectives.distribution import class_features

if TYPE_CHECKING:
    from dd.types import Batches

Kernel = Literal["gaussian", "linear", "polynomial", "laplace"]
BLOCK = 16  # classes whose kernels are in memory at once: 100 classes of 456 images would be 0.8 GB for each of the five
MULTIPLIERS = (0.25, 0.5, 1.0, 2.0, 4.0)
GAMMAS = (0.1, 1.0, 5.0)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    r"""Return (c, m, k), :math:`|a_i - b_j|^2` for (c, m, d) and (c, k, d), by :math:`|a|^2 + |b|^2 - 2ab`, not below 0."""
    products = a @ b.mT
    return (a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1) - 2 * products).clamp_min(0)


def bandwidth(synthetic: Tensor, real: Tensor) -> Tensor:
    r"""Return (c,), the mean squared distance of two different ones of the N features of both sets, :math:`\sum / (N^2 - N)`.

    A constant: no gradient goes through it. It is at least the smallest normal number, so that equal features have a kernel of 1.
    """
    with torch.no_grad():
        both = torch.cat([synthetic, real], 1)
        n = both.shape[1]
        return (squared_distances(both, both).sum((1, 2)) / (n * n - n)).clamp_min(torch.finfo(both.dtype).tiny)


def _gaussian(synthetic: Tensor, real: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    h = bandwidth(synthetic, real).view(-1, 1, 1)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        scaled = squared_distances(a, b) / h
        return torch.stack([torch.exp(-scaled / multiplier) for multiplier in MULTIPLIERS]).sum(0)

    return kernel


def _linear(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.mT


def _polynomial(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT + 1).square()


def _laplace(a: Tensor, b: Tensor) -> Tensor:
    distances = squared_distances(a, b)
    return torch.stack([torch.exp(-gamma * distances) for gamma in GAMMAS]).sum(0)


def squared_mmd(synthetic: Tensor, real: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the squared maximum mean discrepancy of two sets of features, for each class.

    .. math:: \frac{1}{m^2}\sum_{ij} k(s_i, s_j) - \frac{2}{mk}\sum_{ij} k(s_i, t_j) + \frac{1}{k^2}\sum_{ij} k(t_i, t_j)

    Full blocks, with their diagonals: the biased estimate, never negative but for rounding. Kernels:

    - gaussian: the sum of exp(-|a - b|^2 / (h q)) over q in {1/4, 1/2, 1, 2, 4}, h as `bandwidth` says (no 2 in the exponent);
    - linear: a'b, with which this is the squared distance of the means, DM's loss;
    - polynomial: (a'b + 1)^2, which matches means and uncentred second moments;
    - laplace: the sum of exp(-g |a - b|^2) over g in {0.1, 1, 5}. It is called so in the released code, but has squared distances and
      is a Gaussian kernel of fixed widths.

    Args:
        synthetic: (classes, m, d), gradients flow. real: (classes, k, d), a constant.

    Returns:
        (classes,).
    """
    plain = {"linear": _linear, "polynomial": _polynomial, "laplace": _laplace}
    k = _gaussian(synthetic, real) if kernel == "gaussian" else plain[kernel]
    with torch.no_grad():
        constant = k(real, real).mean((1, 2))
    return k(synthetic, synthetic).mean((1, 2)) - 2 * k(synthetic, real).mean((1, 2)) + constant


class MMD:
    """Sum over classes of the squared MMD between the features of synthetic and real images (M3D, equation 8).

    Kernels are computed in float32 at least, whatever autocast says: the three blocks nearly cancel.
    """

    def __init__(self, classes: int, kernel: Kernel = "gaussian") -> None:
        self._classes = classes
        self._kernel = kernel
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar."""
        synthetic, real = batches.pair(net)
        with torch.no_grad():
            target = class_features(net, real.x, self._classes)
        features = class_features(net, synthetic.x, self._classes)
        with torch.autocast(features.device.type, enabled=False):
            parts = zip(_precise(features).split(BLOCK), _precise(target).split(BLOCK), strict=True)
            found = torch.cat([squared_mmd(one, other, self._kernel) for one, other in parts])
        self.facts = {"largest_class": found.detach().max()}
        return found.sum()

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""


def _precise(features: Tensor) -> Tensor:
    return features if features.dtype in (torch.float32, torch.float64) else features.float()
