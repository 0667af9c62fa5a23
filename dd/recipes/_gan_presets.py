"""What GLaD and H-PD take where nobody says otherwise: generators, their training, rates, cuts and numbers of updates.

Published, for StyleGAN-XL at 128 pixels (GLaD's code, whose settings H-PD takes over): cuts, absolute rates, the bases' own settings for
ImageNet's subsets, 1000 updates of GLaD (5000 for trajectories, as H-PD has it), H-PD's 100 updates a space (20 for DM). Its spaces begin
at every second stage from 1 on, which is inferred from its 12 spaces; so are the 15 at 256 pixels.

Ours, since nobody published a small generator for this: everything of `mini`. Cuts are at about the same part of its depth. Rates are
relative. It is trained on digits as `GanTraining` says; on larger images with batches of 256, R1 of 0.0002 side^2 / batch (StyleGAN2-ADA's
rule, 28 pixels being 32 here), mirrored where the dataset may be, for about 1.5 million images, or 2 million of 64 pixels. Datasets that
are not registered count as 32x32 pixels and are not mirrored. The StyleGAN-XL of CIFAR-10, of whose use nothing is published, is
entered and moved as `mini`.
"""

from __future__ import annotations

from typing import Any

from dd.data.imagenet_subsets import POSITIONS
from dd.data.registry import DATASETS
from dd.generators.depth import PUBLISHED, STAGES
from dd.generators.files import FILES

TRAJECTORIES = ("mtt", "tesla")
GRADIENTS = ("dc", "dsa")
RATES = {"tesla": (10.0, 1e4), "mtt": (10.0, 1e4), "dsa": (1e-3, 1.0), "dc": (1e-3, 1.0), "dm": (0.01, 10.0)}  # lr_w, lr_f
CUTS = {"tesla": 12, "mtt": 12, "sre2l": 12, "dsa": 16, "dc": 16, "dm": 20}
DEEP = 26  # stages that the published cuts are of
AVERAGE = 1000  # draws of w, at one image per class
BATCH, SEEN, SEEN_64 = 256, 1_500_000, 2_000_000


def side_of(dataset: str) -> int:
    """Return the height of a dataset's images in pixels; 32 where it is not registered."""
    return DATASETS[dataset].size[0] if dataset in DATASETS else 32


def generator_of(dataset: str) -> str:
    """Return the generator of a dataset: StyleGAN-XL for GLaD's and H-PD's subsets of ImageNet, else `mini`."""
    subset, _, side = dataset.rpartition("_")
    name = f"stylegan_xl_{side}"
    return name if subset in POSITIONS and name in PUBLISHED else "mini"


def generator_fields(name: str, dataset: str) -> dict[str, Any]:
    """Return the fields of a generator: its epochs, and where it is trained here, how."""
    if name in FILES:
        return {"name": name, "epochs": 0}
    side, known = side_of(dataset), DATASETS.get(dataset)
    if side == 16:
        return {"name": name, "epochs": 14, "training": {"lr": 5e-3, "batch": 32, "r1_every": 8, "r1_gamma": 0.1}}
    working = 32 if side == 28 else side
    training = {
        "batch": BATCH,
        "r1_gamma": round(2e-4 * working**2 / BATCH, 6),
        "augment": "flip" if known is not None and known.flip else "none",
    }
    seen = SEEN_64 if side == 64 else SEEN
    return {"name": name, "epochs": max(1, round(seen / known.train)) if known is not None else 30, "training": training}


def rates(base: str, name: str, kind: str | None) -> dict[str, Any]:
    """Return rates, lr_w and lr_f; kind: `relative`, `absolute`, or None for that of the generator."""
    chosen = kind or ("absolute" if name in PUBLISHED and base in RATES else "relative")
    lr_w, lr_f = RATES[base] if chosen == "absolute" and base in RATES else (0.005, 0.02)
    return {"rates": chosen, "lr_w": lr_w, "lr_f": lr_f}


def cut(base: str, name: str, dataset: str) -> int:
    """Return where GLaD enters the generator."""
    if name in PUBLISHED:
        return CUTS.get(base, CUTS["dm"])
    return round(CUTS.get(base, CUTS["dm"]) / DEEP * STAGES.get(side_of(dataset), STAGES[32]))


def cuts(name: str, dataset: str, every: int = 2) -> list[int]:
    """Return where H-PD's spaces begin, `every` so many stages: of StyleGAN-XL from 1 on and only whole spaces, of `mini` from 0 on."""
    if name in PUBLISHED:
        return list(range(1, PUBLISHED[name][0] - every + 1, every))
    return list(range(0, STAGES.get(side_of(dataset), STAGES[32]), every))


def updates(base: str) -> tuple[int, int]:
    """Return the updates of GLaD, and those of each of H-PD's spaces."""
    return 5000 if base in TRAJECTORIES else 1000, 20 if base == "dm" else 100


def settings(base: str, dataset: str) -> dict[str, Any]:
    """Return the base's own fields as GLaD and H-PD have them.

    For all datasets: networks that learn nothing between two updates (DC, DSA), no whitening, and TESLA's whole gradient. For subsets of
    ImageNet also the network, and the experts and students of trajectory matching.
    """
    found: dict[str, Any] = {}
    if base in GRADIENTS:
        found = {"outer": 1, "inner": 1}
    elif base in TRAJECTORIES:
        found = {"zca": False} | ({"gradient_factor": 1.0} if base == "tesla" else {})
    if generator_of(dataset) not in PUBLISHED:
        return found
    network = "convnet5_in" if side_of(dataset) == 128 else "convnet6_in"
    if base in GRADIENTS:
        return {**found, "network": network}
    if base in TRAJECTORIES:
        student = {"syn_steps": 20, "expert_span": 3, "max_start": 5, "lr_lr": 1e-6, "step_size": 0.01, "batch_syn": None}
        return {**found, **student, "experts": {"network": network, "count": 200, "epochs": 15}}
    return {"extractor": {"network": network}} if base == "dm" else found
