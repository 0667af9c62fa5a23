r"""A student's training as a function of its images and its step size, in several ways that differ in memory.

.. math:: \theta_{i+1} = \theta_i - \alpha \nabla_\theta \ell_i(\theta_i, X), \qquad i = 0 \dots N - 1

(MTT, algorithm 1.) Plain gradient steps: no momentum, no weight decay. All functions here have one signature and return theta_N, (P,), a
tensor whose backward gives gradients to the images X and to alpha, and to theta_0 where it asks for one:

- loss(i, theta, images): the scalar that step i descends. It must be a function of these three alone, whatever is random in it: it is
  called again in the backward pass and must say the same.
- images: (n, c, h, w), the images of all steps. theta: theta_0, (P,). alpha: the step size, a scalar. steps: N; 0 returns theta_0.

`full`, `checkpoint` and `adjoint` have the same value and the same gradient but for rounding. `full` keeps the graphs of all steps, so
its memory grows with N by a step's activations and their gradients; the other two keep N parameter vectors, and the graph of one step at a
time. Of these, `adjoint` takes less time. On a CPU, the C library may keep what `checkpoint` gives back in pieces that it cannot use
again, so that a process grows all the same (benchmarks/unroll_memory.py). `frozen` is another gradient, TESLA's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import checkpoint as checkpointing

Loss = Callable[[int, Tensor, Tensor], Tensor]
Unroll = Callable[[Loss, Tensor, Tensor, Tensor, int], Tensor]


def full(loss: Loss, images: Tensor, theta: Tensor, alpha: Tensor, steps: int) -> Tensor:
    """Return theta_N with the graph of every step kept, as the released code of MTT does."""
    theta = _differentiable(theta)
    for i in range(steps):
        theta = _step(loss, i, images, theta, alpha)
    return theta


def checkpoint(loss: Loss, images: Tensor, theta: Tensor, alpha: Tensor, steps: int) -> Tensor:
    """Return theta_N; each step's graph is made again when the backward pass comes to it."""
    theta = _differentiable(theta)
    for i in range(steps):
        theta = checkpointing.checkpoint(
            _step, loss, i, images, theta, alpha, use_reentrant=False, preserve_rng_state=False
        )  # nothing in a step draws from the global generator
    return theta


def adjoint(loss: Loss, images: Tensor, theta: Tensor, alpha: Tensor, steps: int) -> Tensor:
    r"""Return theta_N; the backward pass walks back over the stored theta_i.

    With :math:`\lambda = \partial L / \partial \theta_N` and :math:`s_i(\theta, X) = \lambda^T \nabla_\theta \ell_i(\theta, X)`, for i from
    N - 1 down to 0:

    .. math:: \nabla_X \mathrel{-}= \alpha \, \partial s_i / \partial X, \quad \nabla_\alpha \mathrel{-}= s_i, \quad
              \lambda \leftarrow \lambda - \alpha \, \partial s_i / \partial \theta
    """
    end: Tensor = _Walk.apply(loss, steps, True, 1.0, images, theta, alpha)
    return end


def frozen(loss: Loss, images: Tensor, theta: Tensor, alpha: Tensor, steps: int, factor: float = 1.0) -> Tensor:
    r"""Return theta_N, with a gradient for which every theta_i is a constant at the place where the gradient of step i is taken.

    This is TESLA's (Cui et al., ICML 2023, section 3): an image then influences theta_N only through the steps that look at it,
    :math:`\theta_N = \theta_0 - \alpha \sum_i g_i(X)`, and

    .. math:: \partial L / \partial X = -\alpha \sum_i \lambda^T \partial g_i / \partial X, \qquad
              \partial L / \partial \alpha = -\lambda^T \sum_i g_i

    with the one :math:`\lambda = \partial L / \partial \theta_N`. It is not the gradient of theta_N, which has a factor
    :math:`I - \alpha H_j` for every later step j; the two are near each other where alpha times N is small.

    factor: of the gradient to the images; that to alpha has none. theta_0 gets lambda itself.
    """
    end: Tensor = _Walk.apply(loss, steps, False, factor, images, theta, alpha)
    return end


UNROLLS: dict[str, Unroll] = {"full": full, "checkpoint": checkpoint, "adjoint": adjoint}


def _differentiable(theta: Tensor) -> Tensor:
    """Return theta, such that a gradient can be taken with respect to it."""
    return theta if theta.requires_grad else theta.detach().requires_grad_(True)


def _step(loss: Loss, i: int, images: Tensor, theta: Tensor, alpha: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(i, theta, images), theta, create_graph=True)
    return theta - alpha * gradient


class _Walk(torch.autograd.Function):
    """The steps forward without graphs between them, and the walk back; see `adjoint` and `frozen`."""

    @staticmethod
    def forward(ctx: Any, loss: Loss, steps: int, recursion: bool, factor: float, images: Tensor, theta: Tensor, alpha: Tensor) -> Tensor:
        ctx.loss, ctx.recursion, ctx.factor = loss, recursion, factor
        seen = []
        for i in range(steps):
            seen.append(theta)
            with torch.enable_grad():
                at = theta.detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(loss(i, at, images.detach()), at)
            theta = theta - alpha * gradient
        ctx.save_for_backward(images, alpha, *seen)
        return theta if seen else theta.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (adjoint,) = grads
        images, alpha, *seen = ctx.saved_tensors
        to_images, to_alpha = torch.zeros_like(images), torch.zeros_like(alpha)
        for i in reversed(range(len(seen))):
            with torch.enable_grad():
                x, at = images.detach().requires_grad_(True), seen[i].detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(ctx.loss(i, at, x), at, create_graph=True)
                product = (gradient * adjoint).sum()
            to_alpha -= product.detach()
            if ctx.recursion:
                of_x, of_theta = torch.autograd.grad(product, (x, at))
                adjoint = adjoint - alpha * of_theta
            else:
                (of_x,) = torch.autograd.grad(product, x)
            to_images.sub_(alpha * of_x)
        return None, None, None, None, to_images * ctx.factor, adjoint, to_alpha
