r"""GLaD: generalizing dataset distillation via a deep generative prior (Cazenavette et al., CVPR 2023).

The images of any method are what the later stages of a generator G make of features f at a cut, and of the styles w of all stages:

.. math:: \min_{f, w} L\big( G_{K-1} \circ \dots \circ G_n (f, w),\; T \big)

with the method's own loss L. f starts as what the earlier stages make of the first styles; both are free afterwards.

The cuts of the paper are 12 (MTT), 16 (DSA) and 20 (DM) of StyleGAN-XL's 26 stages; of a small generator the nearest to the same relative
depths: 3, 4 and 5 of 6 stages, 4, 5 and 6 of 8. What is not given is the authors' for the base, or ours: see `dd.recipes._gan_presets`.

Differs from the paper: images are normalised with the dataset's mean and std (its code has another dataset's for ImageNet); latents are
float32; the last iterate counts, where its code keeps what is best on the test split; rates are parts of the latents' norms for
other generators than StyleGAN-XL, since the published ones are for that one (`rates: absolute`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dd.recipes import _gan_presets as presets
from dd.recipes._gan import Latents, assembled, entered, generator_work, lineage, work
from dd.recipes._gan import complete as with_defaults
from dd.recipes._gan import needs as base_needs

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run

__all__ = ["Config", "build", "complete", "generator_work", "lineage", "needs", "work"]


class Config(Latents):
    """Fields of GLaD; see `dd.recipes._gan.Latents`.

    cut: how many stages come before the features, 0 to K. steps: numbers of updates after which the set is published as well.
    """

    cut: int = Field(default=5, ge=0)
    steps: tuple[int, ...] = ()


def complete(fields: dict[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """Return the fields with what nobody gave: of `dd.recipes._gan`, the cut, and the updates."""
    known = with_defaults(fields, dataset, ipc)
    base = str(known.get("base", "dm"))
    return {"iterations": presets.updates(base)[0], "cut": presets.cut(base, known["generator"]["name"], dataset), **known}


def needs(config: Config, dataset: str) -> list[Need]:
    """Return what the base method needs, and the generator; see `dd.recipes._gan.needs` for errors."""
    return base_needs(config, dataset, (config.cut,))


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run: the base method's, on latents."""
    return assembled(config, inputs, lambda generator, labels: entered(config, inputs, generator, labels, config.cut), config.steps)
