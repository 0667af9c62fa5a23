"""Where in distilled images pre-trained networks see their class: Grad-CAM's maps, for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dd.analysis.cam import cam
from dd.analysis.look import Look
from dd.artifacts import save_tensors
from dd.config import hashed
from dd.config.stages import AnalyseConfig
from dd.errors import ConfigError


def cams(config: AnalyseConfig, dataset: Path, distilled: Path, checkpoints: Sequence[Path], out: Path, *, device: str = "cpu") -> None:
    """Write `images` (k, c, h, w), `labels` (k,) and `maps` (E, k, h, w): evidence of the images' own classes under E networks.

    The images are number `config.image` of each class of `config.labels`, in this order, in raw units; a class that has fewer is left out.
    The networks are one network at the epochs `config.earlier` and `config.epoch`, in this order; epoch 0 is not trained at all. Every map
    is scaled to [0, 1] by its own largest value (see `dd.analysis.cam`): what it says is where, not how much. Float32. The networks are in
    eval mode, nothing is augmented, and images are normalised with the statistics that the networks were trained with.

    Differs from the paper: its figures do not say how their maps are scaled.

    Raises:
        ConfigError, ArtifactError: see `Look`; a label that is no class of the dataset, or a network without pixels.
    """
    look = Look(config, dataset, distilled, checkpoints[-1], device)
    classes = list(look.facts["classes"])
    if wrong := [label for label in config.labels if not 0 <= label < len(classes)]:
        raise ConfigError(f"analyse: labels: value {wrong[0]}; allowed: 0 to {len(classes) - 1}")
    kept = [label for label in config.labels if len(look.raw(label)) > config.image]
    epochs = (*config.earlier, config.epoch)
    images, y, maps = torch.zeros(0), torch.tensor(kept, dtype=torch.int64), torch.zeros(len(checkpoints), 0)
    if kept:
        images, x = (torch.stack([of(label)[config.image] for label in kept]) for of in (look.raw, look.synthetic))
        networks = zip(checkpoints, epochs, strict=True)
        maps = torch.stack([cam(look.network(checkpoint, epoch=epoch), x, y.to(x.device)) for checkpoint, epoch in networks])
    about = {"config": hashed(config), "classes": classes, "range": list(look.facts["range"]), "epochs": epochs,
             "wanted": config.labels, "image": config.image}  # fmt: skip
    save_tensors(out, {"images": images.float(), "labels": y, "maps": maps}, about)
