"""The real images, resident on the device as they are stored, addressed by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dd.data.normalise import ZCA, Normalisation, raw
from dd.errors import ConfigError


class RealPool:
    """All images of one split.

    images: (n, c, h, w) uint8, or float32 (of sounds). labels: (n,) int64, sorted or not. mean, std: per channel, in raw units.
    zca: whitens instead of mean and std, which are then not looked at; `statistics` are those that leave raw units alone, 0 and 1.
    Positions (`index`) are int64 tensors; draws are functions of the generator alone, which lives on the CPU.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        *,
        zca: ZCA | None = None,
    ) -> None:
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.classes = classes
        self.device = device
        self.normalisation: Normalisation | ZCA = (zca or Normalisation(mean, std)).to(device)
        self._members = [(labels == c).nonzero().squeeze(1).cpu() for c in range(classes)]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def smallest(self) -> int:
        """Images in the smallest class."""
        return min(len(members) for members in self._members)

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """(mean, std), each (c,), on the CPU; of a whitened pool zeros and ones."""
        if isinstance(self.normalisation, ZCA):
            channels = self.images.shape[1]
            return torch.zeros(channels), torch.ones(channels)
        return self.normalisation.mean.cpu(), self.normalisation.std.cpu()

    def of_class(self, c: int) -> Tensor:
        """Return the positions of class c."""
        return self._members[c].to(self.device)

    def draw(self, generator: torch.Generator, per_class: int) -> Tensor:
        """Return (classes, per_class) positions, without replacement inside a class.

        Raises:
            ConfigError: `per_class` is below 1, or a class has fewer images.
        """
        smallest = min(range(self.classes), key=lambda c: len(self._members[c]))
        most = len(self._members[smallest])
        if not 1 <= per_class <= most:
            raise ConfigError(f"batch_real: value {per_class}: the smallest class, {smallest}, has {most} images; allowed: 1 to {most}")
        rows = [members[torch.randperm(len(members), generator=generator)[:per_class]] for members in self._members]
        return torch.stack(rows).to(self.device, non_blocking=True)

    def uniform(self, generator: torch.Generator, n: int) -> Tensor:
        """Return (n,) positions, uniform over all images, with replacement."""
        return torch.randint(len(self), (n,), generator=generator).to(self.device, non_blocking=True)

    def raw(self, index: Tensor) -> Tensor:
        """Return float32 images in raw units, (m, c, h, w): uint8 in [0, 1], floats as they are."""
        return raw(self.images[index])

    def x(self, index: Tensor) -> Tensor:
        """Return float32 normalised (or whitened) images, (m, c, h, w)."""
        return self.normalisation.apply_(self.raw(index))  # an index makes a copy

    def y(self, index: Tensor) -> Tensor:
        """Return labels, (m,) int64."""
        return self.labels[index]
