r"""Matching the gradients of the weights, class by class (DC, DSA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from dd.types import Batches

EPS = 1e-6  # added to the product of two norms, as the released code does
Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def rows(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    r"""Return the sum over output rows of one minus their cosine, for each class.

    .. math:: D = \sum_{l} \sum_i 1 - \frac{\langle a_{li}, b_{li} \rangle}{\|a_{li}\| \|b_{li}\| + 10^{-6}}

    (The layer-wise distance of DC.) A row is what belongs to one output of a layer: in * k * k numbers of a convolution, in of a
    linear layer. Biases and the weights of normalisations, which have one dimension, count nothing.

    Args:
        one, other: gradients of the same weights in the same order, each (classes, *shape of the weight).

    Returns:
        (classes,); 394 rows for a ConvNet-3 of width 128 and ten classes, each in [0, 2].
    """
    total = one[0].new_zeros(len(one[0]))
    for a, b in zip(one, other, strict=True):
        if a.ndim > 2:
            a, b = a.flatten(2), b.flatten(2)
            total = total + (1 - _cosine(a, b)).sum(1)
    return total


def squared(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Return the squared l2 distance of all weights' gradients together, biases included, for each class: (classes,). As `rows`."""
    return (_joined(one) - _joined(other)).square().sum(1)


def angle(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Return one minus the cosine of all weights' gradients together, biases included, for each class: (classes,). As `rows`."""
    return 1 - _cosine(_joined(one), _joined(other))


DISTANCES: dict[str, Distance] = {"ours": rows, "mse": squared, "cos": angle}


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + EPS)


def _joined(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1)


def weight_gradient(net: nn.Module, x: Tensor, y: Tensor, *, graph: bool = False) -> list[Tensor]:
    """Return the gradient of a batch's mean cross-entropy with respect to every parameter, (1, *shape) each.

    Args:
        net: all its parameters require gradients; their `.grad` is left alone.
        x: (n, c, h, w). y: (n,) int64. graph: whether the gradients can be differentiated in turn.
    """
    with sdpa_kernel(SDPBackend.MATH):  # attention's other kernels have no second derivative
        loss = F.cross_entropy(net(x), y)
    return [gradient.unsqueeze(0) for gradient in torch.autograd.grad(loss, list(net.parameters()), create_graph=graph)]


class GradientMatch:
    r"""Sum over classes of the distance between what real and synthetic images of the class would teach the network.

    .. math:: L = \sum_c D\big( \nabla_\theta CE(net(A_\omega S_c), c),\; \nabla_\theta CE(net(A_\omega X_c), c) \big)

    (What DC and DSA sum over the steps of algorithm 1.) Cross-entropies are means over the images; the real side is a constant. Both
    batches hold equally many images of every class, sorted by class. A network with batch normalisation should have it in evaluation
    mode, see `dd.sources.trainee.statistics`; otherwise the statistics are of one class.

    One class is differentiated twice at a time, so that memory does not grow with the number of classes. What is returned has the
    value of L and hands the gradient of L, which is known by then, on to the augmentation and the pixels.

    Differs from the released code, which keeps the graphs of all classes until the end: the numbers are the same. A loop is also
    the fastest way here. Medians of interleaved runs on one CPU core, ten classes of 64 real and 10 synthetic 32x32 images, ConvNet-3
    of width 64 (128): loop 1.4 s (3.8 s); `torch.func.vmap` of `grad` over all classes 3.8 s (13.4 s), on the synthetic side only 1.4 s
    (4.5 s); forward-over-reverse instead of two reverse passes 1.6 s (4.2 s).

    facts: `gradient_norm_real` and `gradient_norm_syn`, norms of all weights' gradients, means over the classes.
    """

    def __init__(self, classes: int, distance: str = "ours") -> None:
        self._classes = classes
        self._distance = DISTANCES[distance]
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar."""
        synthetic, real = batches.pair(net)
        values, gradients, norms = [], [], []
        parts = [batch.chunk(self._classes) for batch in (real.x, real.y, synthetic.x.detach(), synthetic.y)]
        for x, y, images, labels in zip(*parts, strict=True):
            leaf = images.requires_grad_(True)
            target = weight_gradient(net, x, y)
            found = weight_gradient(net, leaf, labels, graph=True)
            value = self._distance(found, target).sum()
            gradients.append(torch.autograd.grad(value, leaf)[0])
            values.append(value.detach())
            norms.append(torch.stack([_joined(target).norm(), _joined(found).detach().norm()]))
        self.facts = dict(zip(("gradient_norm_real", "gradient_norm_syn"), torch.stack(norms).mean(0), strict=True))
        return _with_gradient(torch.stack(values).sum(), synthetic.x, torch.cat(gradients))

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""


def _with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar equal to `value`, whose gradient with respect to `x` is `gradient`; of finite images and gradients."""
    return value + ((x - x.detach()) * gradient).sum()
