"""Optimizers of the images that PyTorch does not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class _MomentumSGD(torch.optim.Optimizer):
    """What both have in common: the check of the momentum, and a step that calls `_move` for every tensor with a gradient."""

    def __init__(self, groups: Iterable[Any], momentum: float, **defaults: Any) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), is {momentum}")
        super().__init__(groups, {"momentum": momentum, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make a step of every tensor that has a gradient."""
        for group in self.param_groups:
            for tensor in group["params"]:
                if tensor.grad is not None:
                    self._move(tensor, tensor.grad, group)

    def _move(self, tensor: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError


class PerClassSGD(_MomentumSGD):
    r"""SGD with momentum that steps once for each class, in the order of the classes, on one tensor that all classes share.

    IDC, IDM, M3D and DSDM visit the classes one after the other; each visit takes a gradient of one class (zero for the others) and
    steps the whole tensor, so that momentum goes on moving the classes that are not visited. Class c thus sees, in one iteration,
    c moves by momentum alone, its gradient step, and C - 1 - c moves by momentum alone. A move by momentum alone is
    :math:`v \leftarrow \mu v,\; S \leftarrow S - \eta v`, and k of them are

    .. math:: S \leftarrow S - \eta \mu \frac{1 - \mu^k}{1 - \mu} v, \qquad v \leftarrow \mu^k v.

    Because the gradient of a class depends on its own pixels only, all classes can be done at once: `begin` makes the moves before
    the gradients, then one backward pass of the sum over classes gives all gradients at the right places, and `step` makes the
    gradient steps and the moves after them. This equals the loop over classes exactly, but for rounding.

    groups: as of any optimizer; each tensor has one row for each of the stored images. labels: (n,) int64, their classes.
    momentum: in [0, 1).
    """

    def __init__(self, groups: Iterable[Any], labels: Tensor, classes: int, momentum: float) -> None:
        super().__init__(groups, momentum)
        self._before = labels
        self._after = classes - 1 - labels

    @torch.no_grad()
    def begin(self) -> None:
        """Make the moves by momentum that come before the gradient of each class."""
        for group in self.param_groups:
            for tensor in group["params"]:
                if "momentum_buffer" in self.state[tensor]:
                    self._coast(tensor, group, self._before)

    def _move(self, tensor: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Make the gradient step of every class, and the moves by momentum that come after it."""
        state = self.state[tensor]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(tensor)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        tensor.sub_(velocity, alpha=group["lr"])
        self._coast(tensor, group, self._after)

    def _coast(self, tensor: Tensor, group: dict[str, Any], moves: Tensor) -> None:
        """Make `moves` (n,) moves by momentum alone, a number of its own for each row."""
        momentum, velocity = group["momentum"], self.state[tensor]["momentum_buffer"]
        decay = (momentum ** moves.to(tensor)).view(-1, *[1] * (tensor.ndim - 1))
        tensor.sub_(velocity * (momentum * (1 - decay) / (1 - momentum)), alpha=group["lr"])
        velocity.mul_(decay)


class RelativeSGD(_MomentumSGD):
    r"""SGD with momentum, in which a group's rate may be relative: a part of each tensor's own size, measured once.

    At its first step with a tensor S and gradient g, the rate is :math:`\eta = r \, \|S\| / \|g\|`, and that stays: the first update
    moves S by the part r of its norm, whatever the scale of loss and generator. For latents of a generator that nobody published rates for.

    groups: as of any optimizer; `lr` is r where `relative` is true, and the rate itself where it is not given. momentum: in [0, 1).
    """

    def __init__(self, groups: Iterable[Any], momentum: float) -> None:
        super().__init__(groups, momentum, relative=False)

    def _move(self, tensor: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Make a step; with a relative rate, a tensor whose gradient is 0 waits for one that is not."""
        state = self.state[tensor]
        if "rate" not in state:
            size = gradient.norm()
            if group["relative"] and not size > 0:
                return
            state["rate"] = group["lr"] * tensor.norm() / size if group["relative"] else torch.as_tensor(group["lr"]).to(tensor)
            state["momentum_buffer"] = torch.zeros_like(tensor)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        tensor.sub_(velocity * state["rate"])
