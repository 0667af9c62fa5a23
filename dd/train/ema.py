"""A running average of a network's weights over its training.

Only evaluation tests one. The average is no part of what `dd.train.supervised.fit` returns for the next stretch, and no checkpoint of a
pre-training holds one; an evaluation that was stopped keeps it with the network (`dd.evaluation.resume`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def decay(beta: float, update: int) -> float:
    """Return what share of the average stays at update t, counted from 0: min(beta, t / (t + 1)), with beta in [0, 1).

    So the first 1 / (1 - beta) updates make the plain mean of all weights seen so far, whatever the weights of a network that was not
    trained yet; later ones forget. This is (1 - (1 + t)^-1), the warm-up of the usual implementations with power 1.
    """
    return min(beta, update / (update + 1))


class Ema:
    """The average of a network's weights, as a network of its own, in eval mode.

    Each update is a <- d a + (1 - d) w, d the `decay` of that update. Buffers of floating-point numbers, the running statistics of batch
    normalisation, are averaged as weights are; those of integers, its counter, are copied.

    Differs from the code that GLaD calls: that copies the weights at the first two updates, where this has their mean at the second; and
    its older versions leave buffers as they were before the training, which says nothing of networks without batch normalisation.
    """

    def __init__(self, net: nn.Module, beta: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self._beta = beta
        self._updates = 0

    def continue_from(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Take over an average as it was after so many updates: weights and buffers, by name."""
        self.net.load_state_dict(dict(weights))
        self._updates = updates

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the weights that `net`, of the same architecture and on the same device, has now."""
        stays = decay(self._beta, self._updates)
        self._updates += 1
        average: dict[str, Tensor] = self.net.state_dict()  # not copies: writing into them changes the network
        for name, now in net.state_dict().items():
            if now.is_floating_point():
                average[name].lerp_(now, 1 - stays)
            else:
                average[name].copy_(now)
