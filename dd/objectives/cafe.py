"""Matching the mean features of every layer, and telling real images apart by synthetic centres (CAFE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dd.objectives.distribution import mixes

if TYPE_CHECKING:
    from dd.types import Batches

PIECE = 1024  # images forwarded at once: the features of all layers are held together
LATE = 3  # layers at the end of the list that have weight 1


def layers(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the features that CAFE matches, in order.

    Of each stage, what goes into its pooling layers; of a stage without pooling, its output. Then the output of the last stage,
    unless that is in the list already, and the embedding, which is the same numbers flattened. A ConvNet-3 on 32x32 images gives
    (n, 128, 32, 32), (n, 128, 16, 16), (n, 128, 8, 8), (n, 128, 4, 4) and (n, 2048), as the released code does.

    Args:
        net: a network of `dd.networks`: a chain of `blocks`. Its pooling layers are `nn.AvgPool2d` and `nn.MaxPool2d`; pooling
            over all pixels is a stage of its own.
        x: (n, c, h, w).

    Returns:
        At least two tensors with n rows; the last one is (n, d).
    """
    found: list[Tensor] = []

    def note(feature: Tensor) -> None:
        if all(feature is not other for other in found):
            found.append(feature)

    def before(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        note(given[0])

    hooks = [m.register_forward_pre_hook(before) for m in net.modules() if isinstance(m, (nn.AvgPool2d, nn.MaxPool2d))]
    x = net.lay_out(x)
    try:
        for block in net.blocks:  # type: ignore[union-attr]
            already = len(found)
            x = block(x)
            if len(found) == already:
                note(x)
    finally:
        for hook in hooks:
            hook.remove()
    note(x)
    return [*found, x.flatten(1)]


def layer_weights(count: int, early: float) -> list[float]:
    """Return the weight of each of `count` layers: 1 for the last three, `early` for those before.

    For a ConvNet-3 these are the released (0.1, 0.1, 1, 1, 1) with early = 0.1. The released code knows no other depth.
    """
    return [early if number < count - LATE else 1.0 for number in range(count)]


def class_means(net: nn.Module, x: Tensor, classes: int) -> tuple[list[Tensor], Tensor]:
    """Return the class means of every layer, and the embeddings of all images.

    Args:
        net: as of `layers`.
        x: (classes * m, c, h, w), sorted by class.

    Returns:
        A list of (classes, ...), one for each layer, and (classes * m, d). Images pass in pieces of whole classes, unless batch
        statistics need all of them together; where gradients are wanted, a piece is forwarded again for the backward pass.
    """

    def look(piece: Tensor) -> tuple[Tensor, ...]:
        features = layers(net, piece)
        return (*(f.unflatten(0, (-1, each)).mean(1) for f in features), features[-1])

    each = len(x) // classes
    at_once = len(x) if mixes(net) else max(1, PIECE // each) * each
    pieces = x.split(at_once)
    if len(pieces) > 1 and torch.is_grad_enabled() and x.requires_grad:
        seen = [checkpoint(look, piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    else:
        seen = [look(piece) for piece in pieces]
    *means, embedded = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return means, embedded


class FeatureAlignment:
    r"""Layer-wise feature alignment and discrimination loss, summed over classes.

    .. math:: L = \sum_l w_l \sum_c \| \bar f^l_c(T) - \bar f^l_c(S) \|^2
              + \beta \sum_{(x, y) \in T} CE\big(\langle f(x), \bar f_{c'}(S) \rangle_{c'},\; y\big)

    (CAFE, equations 2 to 5.) f^l are the features of layer l, f the embedding, a bar the mean over the images of a class; squares
    are summed over classes, channels and pixels; the cross-entropy takes inner products with the synthetic centres as logits, and
    is summed over all real images, not averaged. Real features are constants.

    Differs from the released code: that adds the cross-entropy of the network's own logits on the real images. It does not depend
    on the synthetic images, and what it does to the network's gradients is thrown away, so it is left out.

    Args:
        early: weight of all layers but the last three, see `layer_weights`. beta: weight of the discrimination loss.
        more: returns further facts for the log.
    """

    def __init__(self, classes: int, early: float = 0.1, beta: float = 0.01, more: Callable[[], dict[str, Tensor]] = dict) -> None:
        self._classes = classes
        self._early = early
        self._beta = beta
        self._more = more
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a scalar."""
        synthetic, real = batches.pair(net)
        with torch.no_grad():
            targets, embedded = class_means(net, real.x, self._classes)
        means, _ = class_means(net, synthetic.x, self._classes)
        weights = layer_weights(len(means), self._early)
        gaps = [weight * (mean - target).square().sum() for weight, mean, target in zip(weights, means, targets, strict=True)]
        alignment = torch.stack(gaps).sum()
        discrimination = self._beta * F.cross_entropy(embedded @ means[-1].mT, real.y, reduction="sum")
        self.facts = {"alignment": alignment.detach(), "discrimination": discrimination.detach(), **self._more()}
        return alignment + discrimination

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the term remembers nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
