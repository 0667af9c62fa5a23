"""Matching trajectories: a student that learns from the images should arrive where an expert arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from dd.objectives.unroll import Unroll
    from dd.sources.trajectories import Segment
    from dd.types import Batch

PIECE = 500  # images that are labelled at once


class TrajectoryMatch:
    r"""The squared distance of the student from the expert, relative to the way that the expert went (MTT, equation 3).

    .. math:: L = \frac{\| \theta_N - \theta^*_{t+M} \|^2}{\| \theta^*_t - \theta^*_{t+M} \|^2}

    theta_N is the student after N plain gradient steps from theta*_t, each on a mini-batch of augmented synthetic images
    (`UnrolledBatches.minibatch`), with the mean cross-entropy. Without steps the loss is 1; one that stays at 1 means that `lr_img` is too
    small.

    unroll: how the steps are taken and differentiated, see `dd.objectives.unroll`. steps: N. step_size: alpha, a scalar. relabel: called
    with the segment and all synthetic images before the steps, returns the labels that they learn from; None takes those that the
    images have. facts: `step_size`, as it was in the update.
    """

    def __init__(self, unroll: Unroll, steps: int, step_size: Tensor, relabel: Callable[[Segment, Tensor], Tensor] | None = None) -> None:
        self._unroll = unroll
        self._steps = steps
        self._step_size = step_size
        self._relabel = relabel
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Any, net: Segment) -> Tensor:
        """Return the loss of one update, a scalar; `batches` are `dd.batches.UnrolledBatches`, `net` is the stretch."""
        whole: Batch = batches.synthetic()
        labels = whole.y if self._relabel is None else self._relabel(net, whole.x.detach())

        def loss(i: int, theta: Tensor, images: Tensor) -> Tensor:
            batch = batches.minibatch(i, images, labels)
            with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
                return F.cross_entropy(net.network(theta, batch.x), batch.y)

        end = self._unroll(loss, whole.x, net.start, self._step_size, self._steps)
        self.facts = {"step_size": self._step_size.detach().clone()}
        return (end - net.target).square().sum() / (net.start - net.target).square().sum()


def target_labels(segment: Segment, images: Tensor) -> Tensor:
    """Return the probabilities, (n, k), that the expert at the end of the segment gives to un-augmented images, in eval mode."""
    with torch.no_grad():
        logits = [segment.network(segment.target, piece, train=False) for piece in images.split(PIECE)]
        return torch.cat(logits).softmax(1)
