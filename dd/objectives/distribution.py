"""Matching the mean of features, class by class (DM)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dd import fast
from dd.batches import RealBatch

if TYPE_CHECKING:
    from dd.types import Batch, Batches

Forward = Callable[[Tensor], tuple[Tensor, ...]]
CHUNK = 2560  # images forwarded at once; 100 classes x 256 images would need 13 GB of activations in one piece


def embed_in_chunks(net: nn.Module, x: Tensor) -> Tensor:
    """Return `net.embed(x)` in pieces of at most 2,560 images (32 on a CPU, without gradients), unless batch statistics need all together.

    Where gradients are wanted, a piece keeps its input only and is forwarded again for the backward pass: 100 classes of 200
    decoded images would not fit otherwise.

    Args:
        net: a network of `dd.networks`.
        x: (n, c, h, w).

    Returns:
        (n, d) features.
    """
    if mixes(net):
        return net.embed(x)
    (features,) = _in_chunks(lambda part: (net.embed(part),), x)
    return features


def mixes(net: nn.Module) -> bool:
    """Tell whether what the network makes of an image depends on the others of the batch."""
    return net.training and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def known_features(net: nn.Module, real: Batch) -> Tensor | None:
    """Return the features (n, d) of real images that need not be computed anew, see `dd.sources.known`; None where they must be."""
    known = getattr(net, "known", None)
    if known is None or not isinstance(real, RealBatch) or mixes(net):
        return None
    found: Tensor | None = known.at(real.index)
    return found


def class_features(net: nn.Module, x: Tensor, classes: int) -> Tensor:
    """Return the features of a batch sorted by class, each class as if it were alone.

    Args:
        net: a network of `dd.networks`.
        x: (classes * m, c, h, w).

    Returns:
        (classes, m, d). Batch normalisation in training mode takes the statistics of one class, as in code that visits the classes
        one after the other; then class c's features depend on class c's pixels only.
    """
    (features,) = _by_class(lambda part: (net.embed(part),), net, x, classes)
    return features


def class_outputs(net: nn.Module, x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return (features (classes, m, d), logits (classes, m, k)) as `class_features` does, from one forward pass."""

    def both(part: Tensor) -> tuple[Tensor, ...]:
        outputs = net.stages(part)
        return outputs[-1].flatten(1), net.rear(outputs[-1], len(outputs) - 1)

    features, logits = _by_class(both, net, x, classes)
    return features, logits


def _by_class(forward: Forward, net: nn.Module, x: Tensor, classes: int) -> list[Tensor]:
    found = _joined([forward(part) for part in x.chunk(classes)]) if mixes(net) else _in_chunks(forward, x)
    return [output.reshape(classes, -1, output.shape[1]) for output in found]


def _in_chunks(forward: Forward, x: Tensor) -> list[Tensor]:
    graph = torch.is_grad_enabled() and x.requires_grad
    most = CHUNK if graph else fast.at_once(x, CHUNK)
    if len(x) <= most:
        return list(forward(x))
    if graph:
        return _joined([checkpoint(forward, part, use_reentrant=False, preserve_rng_state=False) for part in x.split(most)])
    return _joined([forward(part) for part in x.split(most)])


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


class MeanMatch:
    r"""Sum over classes of the squared distance between mean real and mean synthetic features.

    .. math:: L = \sum_c \| \frac{1}{B}\sum_{x \in X_c} f(x) - \frac{1}{n}\sum_{s \in S_c} f(s) \|^2

    (DM, equation 5; extractors paper, equation 3.) The square is summed over the features, not averaged; the real side is a
    constant. Both batches hold equally many images of every class, sorted by class.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar."""
        synthetic, real = batches.pair(net)
        with torch.no_grad():
            known = known_features(net, real)
            target = self._means(embed_in_chunks(net, real.x) if known is None else known)
        means = self._means(net.embed(synthetic.x))
        self.facts = {"feature_norm_real": target.norm(dim=1).mean(), "feature_norm_syn": means.detach().norm(dim=1).mean()}
        return (means - target).square().sum()

    def _means(self, features: Tensor) -> Tensor:
        return features.reshape(self._classes, -1, features.shape[1]).mean(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
