r"""TESLA: scaling up dataset distillation to ImageNet-1K with constant memory (Cui et al., ICML 2023).

MTT's loss (see `dd.recipes.mtt`), with a gradient that needs the graph of only one of the student's N steps at a time. With
:math:`\theta_N = \theta_0 - \alpha \sum_i g_i`, where g_i is the gradient of step i,

.. math:: \frac{\partial L}{\partial b_i} = -\frac{2 \alpha}{D} (\theta_N - \theta^*)^T \frac{\partial g_i}{\partial b_i}, \qquad
          \frac{\partial L}{\partial \alpha} = \frac{2}{D} \Big[ \alpha \, G^T G + (\theta^* - \theta_0)^T G \Big], \qquad
          G = \sum_i g_i, \quad D = \| \theta_0 - \theta^* \|^2

if the theta_i at which the gradients are taken are constants. (Section 3.) With `soft_labels`, all images are labelled anew at every
iteration with the probabilities that the expert at the end of the stretch, theta*, gives to them un-augmented (section 3.3); the set
is published with those of its last iteration: one random expert's, at a random early epoch.

Differs from the paper: it says that this is MTT's gradient; it is not, since an early step also moves the places where all later gradients
are taken, which the formula leaves out. Both are near each other for small alpha times N only (for a small ConvNet a cosine of 0.998
at 0.1 and of 0.91 at 1, where the norm is 1.6 times MTT's). MTT's own gradient needs no more memory: `mtt`.

`gradient_factor` 0.5 is the released code, which loses the factor 2 of the first formula (it multiplies a tuple by 2); its published
rates are for that gradient. 1 is the formula. The gradient of alpha has no such factor.

Differs from the released code: alpha is at least 1e-6; soft labels also for sets of 50 images and fewer and for all datasets, where
that code crashes; with them a set has its classes as labels, with certainty, until the first iteration; 10000 updates instead of 10001;
random numbers are functions of (seed, step); the result is the last iterate, where that code keeps the best on the test split. Networks
with batch normalisation cannot give soft labels.

Settings are the three published commands (CIFAR-10 with 1 image, CIFAR-100 with 50, ImageNet-1K at 64 x 64 pixels with 1). Whether the
first whitens is not known, since the experts of its README do and its distillation does not, which does not run; here it does, as MTT. All
else takes MTT's settings, as the published CIFAR-100 row does: a rule of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dd.recipes import mtt
from dd.recipes._trajectories import Matching, Row, lineage, nearest_row, needs, work
from dd.recipes._trajectories import build as assembled

if TYPE_CHECKING:
    from dd.types import Inputs, Run

__all__ = ["Config", "build", "defaults", "lineage", "needs", "work"]

# as in `dd.recipes.mtt`, where the authors published other values
PUBLISHED: dict[str, dict[int, Row]] = {
    **mtt.PUBLISHED,
    "cifar10": {**mtt.PUBLISHED["cifar10"], 1: (50, 2, 5, 1000.0, 1e-7, 0.01, None, True)},
    "imagenet64": {1: (10, 3, 10, 10_000.0, 1e-4, 0.01, 100, False)},
}


class Config(Matching):
    """Fields of TESLA; see `dd.recipes._trajectories.Matching`.

    gradient_factor: of the images' gradient: 0.5 as released, 1 as derived. soft_labels: label all images with the experts.
    """

    iterations: int = Field(default=10_000, ge=0)
    gradient_factor: float = Field(default=0.5, gt=0)
    soft_labels: bool = False


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the published settings, or the nearest; soft labels for ImageNet-1K only."""
    soft = {"soft_labels": True} if dataset == "imagenet64" else {}
    table = PUBLISHED if dataset in PUBLISHED else mtt.PUBLISHED  # what was set for CIFAR-10 here is for no other dataset
    return {**nearest_row(table, dataset, ipc), **soft}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run, with TESLA's gradient."""
    from functools import partial

    from dd.objectives.unroll import frozen

    return assembled(config, inputs, partial(frozen, factor=config.gradient_factor), soft_labels=config.soft_labels)
