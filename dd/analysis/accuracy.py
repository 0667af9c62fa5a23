"""What one pre-trained network says of the distilled images of every class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dd.analysis.look import Look
from dd.artifacts import save_tensors
from dd.config import hashed
from dd.config.stages import AnalyseConfig

CHUNK = 256  # images that pass through the network at once


def accuracy(config: AnalyseConfig, dataset: Path, distilled: Path, checkpoints: Sequence[Path], out: Path, *, device: str = "cpu") -> None:
    """Write `right` and `count`, each (C,) int64: of each class, the distilled images that a network takes for it, and all of them.

    The network is in eval mode, nothing is augmented, and images are normalised with the statistics that it was trained with. The class
    of an image with a soft label is the likeliest one. `label` and `real` of the configuration have no meaning here.

    Differs from the paper: the clom paper does not say how the accuracies of its figure 1 are taken; this is one reading, accuracies of
    networks that are trained on the set are the other.

    Raises:
        ConfigError, ArtifactError: see `Look`.
    """
    (checkpoint,) = checkpoints
    look = Look(config, dataset, distilled, checkpoint, device)
    net = look.network(checkpoint)
    found = [_right(net, look.synthetic(c), c) for c in range(look.pool.classes)]
    right, count = (torch.tensor(column, dtype=torch.int64) for column in zip(*found, strict=True))
    save_tensors(out, {"right": right, "count": count}, {"config": hashed(config), "classes": list(look.facts["classes"])})


def _right(net: nn.Module, images: Tensor, label: int) -> tuple[int, int]:
    """Return how many images (n, c, h, w) the network takes for class `label`, and n."""
    with torch.no_grad():
        right = sum(int((net(part).argmax(1) == label).sum()) for part in images.split(CHUNK)) if len(images) else 0
    return right, len(images)
