r"""MTT: dataset distillation by matching training trajectories (Cazenavette et al., CVPR 2022).

Networks that are trained on the synthetic images should go where networks that are trained on real ones went. Experts are trained on
all real images, and their parameters kept after every epoch. At every iteration a student starts from an expert's parameters after a
random epoch t, takes N gradient steps on synthetic images, and should then be where the expert was after M epochs more:

.. math:: L(S, \alpha) = \frac{\| \theta_N - \theta^*_{t+M} \|^2}{\| \theta^*_t - \theta^*_{t+M} \|^2}, \qquad
          \theta_{i+1} = \theta_i - \alpha \nabla_\theta \ell(\theta_i; A_i b_i), \quad \theta_0 = \theta^*_t

(Algorithm 1.) b_i is a mini-batch of synthetic images under an augmentation A_i of its own, with parameters for each image. The
gradient goes through all N steps to the images and to the step size alpha, which is learned too and belongs to the set: networks are
trained on it at that rate.

Differs from the paper, as the released code does: mini-batches are cut from a shuffled list of all images, of which the last piece is
taken first; scale and rotation sample with aligned corners; nothing keeps the images in a range.

Differs from the released code: alpha is at least 1e-6, where that code lets it become negative and diverge at the next evaluation;
the graph of a student's step is made again in the backward pass instead of kept (`unroll: adjoint`, and `checkpoint`, which is slower;
`full` keeps all graphs: the same gradient but for rounding); experts come in random order over all of them (see
`dd.sources.trajectories`); random numbers are functions of (seed, step); 5000 updates, where that code makes one more; the result is
the last iterate, where the authors print the best of 50 on the test split and do not save its alpha.

Settings are those of the README as its authors corrected them in issues: at CIFAR-10 with 10 images `lr_img` is 100, where the README's
100000 diverges; Tiny ImageNet takes a ConvNet of four blocks. Other numbers of images per class take the nearest of their dataset, other
datasets CIFAR-10's rows without whitening (with `lr_img` 100 or, from 31 images per class on, 1000): these are rules of ours. So do
ImageNet subsets, whose published rows are for 128 pixels. Without whitening, CIFAR-100 is normalised with its own mean and std, where the
released code takes CIFAR-10's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dd.recipes._trajectories import Matching, Row, lineage, nearest_row, needs, work
from dd.recipes._trajectories import build as assembled

if TYPE_CHECKING:
    from dd.types import Inputs, Run

__all__ = ["Config", "build", "defaults", "lineage", "needs", "work"]

# by images per class: syn_steps, expert_span, max_start, lr_img, lr_lr, step_size, batch_syn, zca
PUBLISHED: dict[str, dict[int, Row]] = {
    "cifar10": {
        1: (50, 2, 2, 100.0, 1e-7, 0.01, None, True),
        10: (30, 2, 20, 100.0, 1e-5, 0.001, None, True),
        50: (30, 2, 40, 1000.0, 1e-5, 0.001, None, False),
    },
    "cifar100": {
        1: (20, 3, 20, 1000.0, 1e-5, 0.01, None, True),
        10: (20, 2, 20, 1000.0, 1e-5, 0.01, None, False),
        50: (80, 2, 40, 1000.0, 1e-5, 0.01, 125, True),
    },
    "tiny_imagenet": {
        1: (10, 2, 10, 10_000.0, 1e-4, 0.01, None, False),
        10: (20, 2, 40, 10_000.0, 1e-4, 0.01, 200, False),
        50: (20, 2, 40, 10_000.0, 1e-4, 0.01, 300, False),
    },
}


class Config(Matching):
    """Fields of MTT; see `dd.recipes._trajectories.Matching`.

    unroll: how the student's steps are differentiated, see `dd.objectives.unroll`; changes memory, time and rounding only.
    """

    unroll: Literal["adjoint", "checkpoint", "full"] = "adjoint"


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the published settings, or the nearest."""
    return nearest_row(PUBLISHED, dataset, ipc)


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run, with the exact gradient."""
    from dd.objectives.unroll import UNROLLS

    return assembled(config, inputs, UNROLLS[config.unroll])
