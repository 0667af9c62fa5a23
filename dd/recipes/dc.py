r"""DC: dataset condensation with gradient matching (Zhao, Mopuri and Bilen, ICLR 2021).

A network that is trained on the synthetic images should take the way that it would take on the real ones. So each of 1000 random
networks in turn is trained on the synthetic images, and before each stretch of its training the images are updated such that the
gradients of its weights are, class by class, those that real images give:

.. math:: \min_S E_{\theta_0} \sum_{t < T} \sum_c D\big( \nabla_\theta L^{S_c}(\theta_t),\; \nabla_\theta L^{T_c}(\theta_t) \big),
          \qquad \theta_{t+1} = \mathrm{SGD}_{\varsigma}(\theta_t; S)

(Algorithm 1.) T is the field `outer`, the epochs of the stretch (the paper's varsigma) are `inner`; with one image
per class T is 1, and no network is ever trained. The images start from noise and are never clamped; all classes take one joint step
with momentum. Nothing is augmented. With an MLP as the network, the authors take `lr_img` 0.01.

Differs from the paper, as the released code does: all classes step together, where algorithm 1 steps class by class. A class's
gradient does not depend on the images of another, so only the momentum could tell.

Differs from the released code: draws come from named random streams instead of the clock; a class with fewer images than
`batch_real` limits all classes to its number; other numbers of images per class than its table of loops knows, where that code
exits, follow the rule of `dd.recipes._gradients.loops`; after the last network comes no other, where that code begins one more
after it has measured its result. Batch normalisation, where a network has it, is treated as there: before each update it sees 16 real
images of each class, and then stands still.
"""

from __future__ import annotations

from dd.recipes._gradients import Gradients, build, defaults, needs, work

__all__ = ["Config", "build", "defaults", "needs", "work"]


class Config(Gradients):
    """Fields of DC; see `dd.recipes._gradients.Gradients`. From noise, without augmentation."""
