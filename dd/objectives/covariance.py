"""Matching mean, covariance and remembered mean of features, class by class (DSDM)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from dd.objectives.distribution import class_features, known_features

if TYPE_CHECKING:
    from dd.batches import SiameseBatches
    from dd.types import Batches


def covariance_gap(synthetic: Tensor, real: Tensor, *, unbiased: bool) -> Tensor:
    r"""Return, for each class, the squared Frobenius distance of the covariances of two sets of features.

    With A and R the features, centred by their own mean and divided by the root of their number (less one, if unbiased), the
    covariances are A'A and R'R, both d x d. The distance needs the much smaller Gram matrices only, and is exact:

    .. math:: \| A^\top A - R^\top R \|_F^2 = \| A A^\top \|_F^2 + \| R R^\top \|_F^2 - 2 \| A R^\top \|_F^2

    The three terms nearly cancel, so all is computed in float64, which neither autocast nor TF32 touches.

    Args:
        synthetic: (classes, m, d), gradients flow. real: (classes, k, d), a constant. m and k are at least 2 for an unbiased one.

    Returns:
        (classes,) float64.
    """
    a = _scaled(synthetic, unbiased)
    with torch.no_grad():
        r = _scaled(real, unbiased)
        constant = _square(r @ r.mT)
    return _square(a @ a.mT) + constant - 2 * _square(a @ r.mT)


def _scaled(features: Tensor, unbiased: bool) -> Tensor:
    features = features.double()
    return (features - features.mean(1, keepdim=True)) / (features.shape[1] - unbiased) ** 0.5


def _square(matrices: Tensor) -> Tensor:
    return matrices.square().sum((1, 2))


class SemanticMatch:
    r"""DSDM's loss: distances of means, of covariances, and to means of the past, summed over classes.

    .. math:: L = \sum_c \| \mu_T - \mu_S \|^2 + \frac{\lambda_1}{d} \| Cov_T - Cov_S \|_F^2 + \lambda_2 \| \mu_S - h \|^2

    (DSDM, equations 4, 5, 6 and 9.) mu and Cov are mean and covariance of the d features of one class; the squares are summed over
    features; the real side and h are constants. h is the integrated prototype (equations 7 and 8), one vector a class: after each
    update, `remember` moves it to the means of the updated images, seen through the same network,
    h <- alpha h + (1 - alpha) mu. Class c's part depends on class c's pixels only.

    Paper and released code read these differently; see the table in `dd.recipes.dsdm`, whose rows are arguments here.

    Args:
        lambda1, lambda2, alpha: as above; alpha in [0, 1).
        covariance, history: whether the second and the third part are there.
        unbiased: divide covariances by one less than the number of images.
        per_feature: divide the third part by d.
        start: the third part acts in steps after this one, counted from 0; never in step 0, which has no h.
        first: what h is after step 0: zeros, or the prototypes.
    """

    def __init__(
        self,
        classes: int,
        *,
        lambda1: float,
        lambda2: float,
        alpha: float,
        covariance: bool,
        history: bool,
        unbiased: bool,
        per_feature: bool,
        start: int,
        first: Literal["zeros", "prototypes"],
    ) -> None:
        self._classes = classes
        self._lambda1 = lambda1
        self._lambda2 = lambda2
        self._alpha = alpha
        self._covariance = covariance
        self._keeps = history
        self._unbiased = unbiased
        self._per_feature = per_feature
        self._start = start
        self._first = first
        self._history: Tensor | None = None  # (classes, d) float64
        self._remembered = 0  # updates behind us: the number of the step
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: nn.Module) -> Tensor:
        """Return the loss of one step, a float64 scalar."""
        synthetic, real = batches.pair(net)
        with torch.no_grad():
            known = known_features(net, real)
            target = class_features(net, real.x, self._classes) if known is None else known.unflatten(0, (self._classes, -1))
        features = class_features(net, synthetic.x, self._classes)
        d = features.shape[2]
        means = features.double().mean(1)
        total = (means - target.double().mean(1)).square().sum()
        self.facts = {"prototypes": total.detach()}
        if self._covariance:
            gap = self._lambda1 / d * covariance_gap(features, target, unbiased=self._unbiased).sum()
            self.facts["covariance"] = gap.detach()
            total = total + gap
        if self._keeps:
            past = torch.zeros_like(total)
            if self._history is not None and self._remembered > self._start:
                past = self._lambda2 / (d if self._per_feature else 1) * (means - self._history.to(means)).square().sum()
            self.facts["history"] = past.detach()
            total = total + past
        return total

    @torch.no_grad()
    def remember(self, batches: SiameseBatches, net: nn.Module) -> None:
        """Move h to the prototypes of the updated images, seen through the network of the update under a new augmentation."""
        now = class_features(net, batches.augmented().x, self._classes).double().mean(1)
        if self._history is None:
            self._history = torch.zeros_like(now) if self._first == "zeros" else now
        else:
            self._history = self._alpha * self._history.to(now) + (1 - self._alpha) * now
        self._remembered += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return h and the number of updates that it has seen; nothing before the first."""
        return {} if self._history is None else {"history": self._history, "remembered": torch.tensor(self._remembered)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self._history = state.get("history")
        self._remembered = int(state["remembered"]) if "remembered" in state else 0
