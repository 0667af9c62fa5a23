"""Networks as functions of one flat vector of parameters, and tensors as one flat vector."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Flat:
    """A network without weights of its own: its parameters are an argument, flattened and concatenated.

    The order is that of `net.named_parameters()`, which is the order of the rows of expert trajectories. Buffers are those of `net`, and
    are never changed: with batch normalisation a student normalises with the statistics of its batch, and the running ones stay as they
    were. So a call is a function of its arguments alone, and may be repeated.

    net: any module; its own parameters are not looked at after this, but for `flatten`. size: P, the number of parameters.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._shapes = {name: p.shape for name, p in net.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self.size = sum(self._sizes)

    @property
    def remembers(self) -> bool:
        """Whether the network has buffers: numbers that it learned and that a flat vector does not hold."""
        return next(self._net.buffers(), None) is not None

    def __call__(self, theta: Tensor, x: Tensor, *, train: bool = True) -> Tensor:
        """Return (n, k) logits of (n, c, h, w) images for the parameters theta, (P,); differentiable in both.

        train: the mode of the module; students are in train mode.
        """
        self._net.train(train)
        buffers = {name: buffer.clone() for name, buffer in self._net.named_buffers()}  # batch normalisation writes into them
        logits: Tensor = functional_call(self._net, {**self.unflatten(theta), **buffers}, (x,))
        return logits

    def flatten(self, net: nn.Module) -> Tensor:
        """Return the parameters of a network of this architecture, (P,), detached."""
        return flat(net.parameters())

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the parameters in theta, (P,), by name: views, so that gradients flow through.

        Raises:
            ValueError: theta has another length.
        """
        if theta.shape != (self.size,):
            raise ValueError(f"theta must be of shape ({self.size},), is {tuple(theta.shape)}")
        parts = theta.split(self._sizes)  # one operation: its gradient is one concatenation, not a zero-filled vector a slice
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors flattened and concatenated, detached; whole numbers among them (counters) become floating-point ones."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def fill_(tensors: Iterable[Tensor], numbers: Tensor) -> None:
    """Write what `flat` returned into the tensors, each in the storage that it has: views would be aligned otherwise than before."""
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(numbers[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()
