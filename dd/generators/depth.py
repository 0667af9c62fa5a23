"""How deep each generator is, before there is one. Plans are made and checked with it: it imports no torch, and is no family."""

from __future__ import annotations

STAGES = {16: 6, 28: 8, 32: 8, 64: 10}  # of `mini`, by the side of the images

# StyleGAN-XL for ImageNet, by name: stages, and operations of making one image, both from the authors' formulas for layers. A file has the
# last word on its stages: the paper prints those of 128 pixels only. CIFAR-10's were never published.
PUBLISHED = {"stylegan_xl_128": (26, 2.7e12), "stylegan_xl_256": (31, 4.6e12)}


def stages(name: str, side: int) -> int | None:
    """Return how many stages a generator of images of `side` pixels has; None where that is not known, or it makes no such images."""
    if name.startswith("stylegan_xl"):
        return PUBLISHED[name][0] if name in PUBLISHED else None
    return STAGES.get(side)
