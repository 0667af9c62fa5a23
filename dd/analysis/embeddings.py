"""Features of one class, real and distilled, under one pre-trained network."""

from __future__ import annotations

from pathlib import Path

import torch

from dd.artifacts import read_meta, save_tensors
from dd.config import hashed
from dd.config.stages import AnalyseConfig
from dd.data.load import load, manifest
from dd.data.normalise import Normalisation
from dd.data.pool import RealPool
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import read_distilled
from dd.rng import stream
from dd.train.pretrain import load_network


def embeddings(config: AnalyseConfig, dataset: Path, distilled: Path, checkpoint: Path, out: Path, *, device: str = "cpu") -> None:
    """Write `real` (n, d) and `syn` (m, d), float32, the embeddings of class `config.label`.

    The n real images are drawn from the train split by a fixed stream; the network is in eval mode, nothing is augmented.

    Raises:
        ConfigError: the label is not a class of the dataset.
        ArtifactError: the checkpoint is not the one that the configuration names.
    """
    facts = manifest(dataset)
    classes = len(facts["classes"])
    if not 0 <= config.label < classes:
        raise ConfigError(f"analyse: label: value {config.label}; allowed: 0 to {classes - 1}")
    if read_meta(checkpoint)["epoch"] != config.epoch:
        raise ArtifactError(f"{checkpoint}: is of epoch {read_meta(checkpoint)['epoch']}, the analysis asks for epoch {config.epoch}")
    net = load_network(checkpoint, device).eval()
    images, labels = load(dataset, "train")
    pool = RealPool(images, labels, classes, **facts["lineages"]["dc"], device=device)
    members = pool.of_class(config.label).cpu()
    order = torch.randperm(len(members), generator=stream(0, "analyse", config.label))[: config.real]
    chosen = read_distilled(distilled, dataset)
    mine = chosen.labels == config.label if chosen.labels.ndim == 1 else chosen.labels.argmax(1) == config.label
    with torch.no_grad():
        real = net.embed(pool.x(members[order]))
        if chosen.indices is not None:
            syn = net.embed(pool.x(chosen.indices[mine]))
        else:
            syn = net.embed(Normalisation(chosen.mean, chosen.std).apply(chosen.images[mine]).to(device))
    save_tensors(out, {"real": real, "syn": syn}, {"config": hashed(config), "class": facts["classes"][config.label]})
