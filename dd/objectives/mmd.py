"""Matching whole distributions of features by a kernel, class by class (M3D)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from dd.objectives.distribution import class_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dd.types import Batches

Kernel = Literal["gaussian", "linear", "polynomial", "laplace"]
MULTIPLIERS = (0.25, 0.5, 1.0, 2.0, 4.0)
GAMMAS = (0.1, 1.0, 5.0)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return (c, m, k), a_i'b_j for (c, m, d) and (c, k, d)."""
    return a @ b.mT


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    r"""Return (c, m, k), :math:`|a_i - b_j|^2` for (c, m, d) and (c, k, d), by :math:`|a|^2 + |b|^2 - 2ab`, not below 0.

    The parts cancel and leave an error in proportion to the largest: take a common offset off both sides before.
    """
    return (a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1) - 2 * products(a, b)).clamp_min(0)


def bandwidth(ss: Tensor, st: Tensor, tt: Tensor) -> Tensor:
    r"""Return (c,), the mean squared distance of two different ones of the N features of both sets, :math:`\sum / (N^2 - N)`.

    ss: (c, m, m), st: (c, m, k), tt: (c, k, k): squared distances among synthetic, across, and among real features.
    """
    n = st.shape[1] + st.shape[2]
    return (ss.sum((1, 2)) + 2 * st.sum((1, 2)) + tt.sum((1, 2))) / (n * n - n)


def squared_mmd(synthetic: Tensor, real: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the squared maximum mean discrepancy of two sets of features, for each class.

    .. math:: \frac{1}{m^2}\sum_{ij} k(s_i, s_j) - \frac{2}{mk}\sum_{ij} k(s_i, t_j) + \frac{1}{k^2}\sum_{ij} k(t_i, t_j)

    Full blocks, with their diagonals: the biased estimate, never negative but for rounding. Kernels:

    - gaussian: the sum of exp(-|a - b|^2 / (h q)) over q in {1/4, 1/2, 1, 2, 4} (no 2 in the exponent), h as `bandwidth` says, anew for
      each class and step, and a constant through which no gradient goes;
    - linear: a'b, with which this is the squared distance of the means, DM's loss;
    - polynomial: (a'b + 1)^2, which matches means and uncentred second moments;
    - laplace: the sum of exp(-g |a - b|^2) over g in {0.1, 1, 5}. It is called so in the released code, but has squared distances: it
      is no Laplace kernel but a Gaussian one of fixed widths.

    Args:
        synthetic: (classes, m, d), gradients flow. real: (classes, k, d), a constant.

    Returns:
        (classes,).

    Differs from the released code by rounding alone. It squares `cdist`; here the real mean is taken off all features first (but for
    the polynomial, which it would change), because the common offset of what ReLUs put out would drown small distances in float32. And
    h does not fall below the float32 epsilon times the mean |t|^2, where all features are equal or nearly so: then there is no loss, and
    no NaN.
    """
    real = real.detach()
    offset = real.mean(1, keepdim=True)
    least = torch.finfo(real.dtype).eps * real.square().sum(2).mean(1) + torch.finfo(real.dtype).tiny ** 0.5
    if kernel != "polynomial":  # the others do not change when all features are moved alike
        synthetic, real = synthetic - offset, real - offset
    between = squared_distances if kernel in ("gaussian", "laplace") else products
    ss, st, tt = between(synthetic, synthetic), between(synthetic, real), between(real, real)

    def k(block: Tensor) -> Tensor:
        if kernel == "gaussian":
            return _bells(block / h, [1 / q for q in MULTIPLIERS])
        if kernel == "laplace":
            return _bells(block, GAMMAS)
        return block if kernel == "linear" else (block + 1).square()

    h = torch.maximum(bandwidth(ss.detach(), st.detach(), tt), least).view(-1, 1, 1)  # of distances: for the gaussian alone
    return k(ss).mean((1, 2)) - 2 * k(st).mean((1, 2)) + k(tt).mean((1, 2))


def _bells(x: Tensor, rates: Sequence[float]) -> Tensor:
    return torch.stack([torch.exp(-rate * x) for rate in rates]).sum(0)


class MMD:
    """Sum over classes of the squared MMD between the features of synthetic and real images (M3D).

    Class c's part depends on class c's pixels only. Kernels are computed in float32 at least, whatever autocast says: the three blocks
    nearly cancel. With 100 classes, 200 synthetic and 256 real features of each, a block of all classes has 16 to 26 MB.
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
            found = squared_mmd(_precise(features), _precise(target), self._kernel)
        self.facts = {"largest_class": found.detach().max()}
        return found.sum()

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""


def _precise(features: Tensor) -> Tensor:
    return features if features.dtype in (torch.float32, torch.float64) else features.float()
