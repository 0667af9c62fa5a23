"""Images that a trained network takes for its classes, and whose statistics are those that it remembers (SRe2L, DeepInversion)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dd.errors import ConfigError

Norm = nn.modules.batchnorm._BatchNorm


def norms(net: nn.Module) -> list[Norm]:
    """Return the network's batch normalisations that remember statistics, from the first to the last.

    Raises:
        ConfigError: there are none.
    """
    found = [module for module in net.modules() if isinstance(module, Norm) and module.running_mean is not None]
    if not found:
        raise ConfigError("the network has no batch normalisation, so it remembers no statistics that images could match")
    return found


@contextmanager
def recorded(layers: Sequence[nn.Module]) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Fill a dictionary, in each forward pass inside the block, with (mean, biased variance) (c,) of the input of each layer."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def watch(number: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(inputs[0].transpose(0, 1).flatten(1), 1, correction=0)
            seen[number] = mean, variance

        return hook

    handles = [layer.register_forward_pre_hook(watch(number)) for number, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def deviation(layers: Sequence[Norm], seen: dict[int, tuple[Tensor, Tensor]], first: float) -> Tensor:
    r"""Return how far a batch's statistics are from those that the layers remember, a scalar.

    .. math:: R = \sum_l m_l \big( \| \mu_l - \bar\mu_l \|_2 + \| \sigma^2_l - \bar\sigma^2_l \|_2 \big)

    The norms are not squared; m is `first` for the first layer and 1 for all others. seen: of `recorded`.
    """
    parts = []
    for number, layer in enumerate(layers):
        mean, variance = seen[number]
        distance = torch.linalg.vector_norm(mean - layer.running_mean) + torch.linalg.vector_norm(variance - layer.running_var)
        parts.append(distance * (first if number == 0 else 1.0))
    return torch.stack(parts).sum()


class Inversion:
    r"""Sum over blocks of images of the mean cross-entropy of a block and of how its statistics deviate from remembered ones.

    .. math:: L = \sum_b \Big[ \frac{1}{|b|} \sum_{x \in b} CE(net(V_b x), y) + r \, R(V_b b) \Big]

    V_b is one random view for all images of a block. The network is in eval mode: it normalises with what it remembers. A block's part
    depends on the block's own images only. One block at a time goes through the network, forth and back; what remains of it is the
    gradient of its images, so that memory is that of one block, however many there are.

    weight: r. first: the weight of the first layer in R.
    """

    def __init__(self, weight: float, first: float) -> None:
        self._weight, self._first = weight, first
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Any, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar whose gradient is known already; its means over blocks are the `facts`.

        batches: `dd.blocks.BlockBatches`.
        """
        layers = norms(net)
        images = batches.synthetic()
        gradient = torch.zeros_like(images.x)
        parts = []
        for index, view in batches.blocks():
            index = index.to(images.x.device)
            x = images.x.detach()[index].requires_grad_(True)
            with recorded(layers) as seen:
                cross = F.cross_entropy(net(view(x)), images.y[index])
            apart = deviation(layers, seen, self._first)
            (gradient[index],) = torch.autograd.grad(cross + self._weight * apart, x)
            parts.append(torch.stack([cross.detach(), apart.detach()]))
        cross, apart = torch.stack(parts).unbind(1)
        self.facts = {"cross_entropy": cross.mean(), "deviation": apart.mean()}
        value: Tensor = _Known.apply(images.x, (cross + self._weight * apart).sum(), gradient)
        return value

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""


class _Known(torch.autograd.Function):
    """A scalar of x whose gradient was computed before."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None
