r"""DSA: dataset condensation with differentiable siamese augmentation (Zhao and Bilen, ICML 2021).

The method of `dd.recipes.dc`, where everything is said, with one operation of an augmentation, drawn anew for each class and
update, applied to all real and all synthetic images of the class alike, and differentiated through:

.. math:: \min_S D\big( \nabla_\theta L(A_\omega S, \theta_t),\; \nabla_\theta L(A_\omega T, \theta_t) \big)

The images start from random real ones. The networks are trained on the synthetic images with the same operations, one
a mini-batch, with values for each image.

Differs from the released code as DC does; and classes are augmented independently of each other, where that code, which seeds its
draws by the clock, may give two classes visited in one millisecond the same.
"""

from __future__ import annotations

from typing import Literal

from dd.recipes._gradients import Gradients, build, defaults, needs, work

__all__ = ["Config", "build", "defaults", "needs", "work"]


class Config(Gradients):
    """Fields of DSA; see `dd.recipes._gradients.Gradients`. From real images, with augmentation."""

    init: Literal["noise", "real"] = "real"
    augment: Literal["oneof", "none"] = "oneof"
