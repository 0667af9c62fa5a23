"""What every analysis looks at: real images of a class, a distilled set, and networks that were trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.artifacts import read_meta
from dd.config import digest
from dd.config.stages import AnalyseConfig
from dd.data.load import manifest, pool
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import read_distilled
from dd.rng import stream
from dd.train.pretrain import load_network


class Look:
    """One distilled set and the real images, both normalised as the networks' training had it (not as the set's evaluation has it).

    pool: the real train split. labels: (n,) of the set's images; classes of soft labels are the likeliest ones.

    Raises:
        ConfigError: the label is not a class of the dataset.
        ArtifactError: a set or checkpoint is missing, damaged, or not what the configuration names.
    """

    def __init__(self, config: AnalyseConfig, dataset: Path, distilled: Path, checkpoint: Path, device: str) -> None:
        self.config, self.device = config, device
        self.facts = manifest(dataset)
        classes = len(self.facts["classes"])
        if not 0 <= config.label < classes:
            raise ConfigError(f"analyse: label: value {config.label}; allowed: 0 to {classes - 1}")
        lineage = self._meta(checkpoint)["config"].get("lineage", "dc")
        self.pool = pool(dataset, "train", lineage, device)
        self._set = read_distilled(distilled, dataset)
        self.labels = self._set.labels if self._set.labels.ndim == 1 else self._set.labels.argmax(1)

    def network(self, checkpoint: Path, seed: int | None = None, *, epoch: int | None = None) -> nn.Module:
        """Return a checkpoint's network in eval mode: what it makes of an image depends on no other image.

        seed, epoch: which ones it must be of; of any seed, and of the configuration's epoch, where they are not given.
        """
        meta = self._meta(checkpoint, epoch)
        if seed is not None and meta["seed"] != seed:
            raise ArtifactError(f"{checkpoint}: is of seed {meta['seed']}, the analysis asks for seed {seed} in this place")
        return load_network(checkpoint, self.device).eval()

    def real(self) -> Tensor:
        """Return `config.real` real images of class `config.label` (or all), the same ones for every set and network, (n, c, h, w)."""
        members = self.pool.of_class(self.config.label).cpu()
        order = torch.randperm(len(members), generator=stream(0, "analyse", self.config.label))[: self.config.real]
        return self.pool.x(members[order].to(self.device))

    def synthetic(self, label: int) -> Tensor:
        """Return the set's images of a class, as networks are trained on them (decoded, where decoding makes several of one)."""
        mine = self.labels == label
        if self._set.indices is not None and not len(self._set.images):
            return self.pool.x(self._set.indices[mine].to(self.device))
        return self.pool.normalisation.apply(self._set.images[mine].to(self.device))

    def raw(self, label: int) -> Tensor:
        """Return the images of `synthetic` in raw units, as the set has them."""
        mine = self.labels == label
        if self._set.indices is not None and not len(self._set.images):
            return self.pool.raw(self._set.indices[mine].to(self.device))
        return self._set.images[mine].to(self.device)

    def about(self) -> dict[str, Any]:
        """Return metadata: the class's name, how many of its images are embedded, and how many are stored for them."""
        embedded = int((self.labels == self.config.label).sum())
        stored = embedded if self._set.stored is None else embedded * len(self._set.stored) // max(1, len(self.labels))
        return {"class": self.facts["classes"][self.config.label], "embedded": embedded, "stored": stored}

    def _meta(self, checkpoint: Path, epoch: int | None = None) -> dict[str, Any]:
        meta = read_meta(checkpoint)
        try:
            found = (digest(meta["config"]), meta["epoch"])
        except KeyError as error:
            raise ArtifactError(f"{checkpoint}: is not a pre-trained network (its metadata lack {error})") from None
        wanted = (self.config.pretrained, self.config.epoch if epoch is None else epoch)
        if found != wanted:
            raise ArtifactError(f"{checkpoint}: is {found[0]} at epoch {found[1]}, the analysis asks for {wanted[0]} at epoch {wanted[1]}")
        return meta
