"""Matching means of features while the networks' own classifiers must know the images (IDM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.objectives.distribution import class_features, class_outputs

if TYPE_CHECKING:
    from dd.types import Batches


class MatchAndClassify:
    r"""Sum over classes of the squared distance of mean features and a weighted cross-entropy of the synthetic images.

    .. math:: L = \sum_c \| \frac{1}{B}\sum_{x \in X_c} f(x) - \frac{1}{m}\sum_{s \in S_c} f(s) \|^2
              + w \, \frac{1}{m}\sum_{s \in S_c} CE(net(s), c)

    The square is summed over the features. weight: returns w, a scalar, for the network that was drawn last. One forward pass of the
    synthetic images gives features and logits. Class c's part depends on class c's pixels only.
    """

    def __init__(self, classes: int, weight: Callable[[], Tensor]) -> None:
        self._classes = classes
        self._weight = weight
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar."""
        synthetic, real = batches.pair(net)
        with torch.no_grad():
            target = class_features(net, real.x, self._classes).mean(1)
        features, logits = class_outputs(net, synthetic.x, self._classes)
        match = (features.mean(1) - target).square().sum()
        each = len(synthetic.y) // self._classes
        classify = F.cross_entropy(logits.flatten(0, 1), synthetic.y, reduction="sum") / each
        weight = self._weight().to(match)
        self.facts = {"match": match.detach(), "cross_entropy": classify.detach(), "weight": weight.detach()}
        return match + weight * classify

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing; the weight is the source's."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
