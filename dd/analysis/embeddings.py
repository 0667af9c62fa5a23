"""Features of one class, real and distilled, under one pre-trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dd.analysis.look import Look
from dd.artifacts import save_tensors
from dd.config import hashed
from dd.config.stages import AnalyseConfig
from dd.objectives.distribution import embed_in_chunks


def embeddings(
    config: AnalyseConfig, dataset: Path, distilled: Path, checkpoints: Sequence[Path], out: Path, *, device: str = "cpu"
) -> None:
    """Write `real` (n, d) and `syn` (m, d), float32, the embeddings of class `config.label`.

    The n real images are drawn from the train split by a fixed stream; the network is in eval mode, nothing is augmented, and both
    are normalised with the statistics that the network was trained with.

    Raises:
        ConfigError, ArtifactError: see `Look`.
    """
    (checkpoint,) = checkpoints
    look = Look(config, dataset, distilled, checkpoint, device)
    net = look.network(checkpoint)
    with torch.no_grad():
        real, syn = (embed_in_chunks(net, x) for x in (look.real(), look.synthetic(config.label)))
    save_tensors(out, {"real": real, "syn": syn}, {"config": hashed(config), **look.about()})
