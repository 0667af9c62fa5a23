"""From stored pixels to raw units ([0, 1]; log-magnitudes of sounds), to the networks' input space, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dd.errors import ConfigError

MOST = 3 * 64 * 64  # numbers of an image: the covariance in float64 then takes 1.2 GB
EPS = 0.1  # of ZCA, added to the eigenvalues: MTT, TESLA, ELF


def raw(stored: Tensor) -> Tensor:
    """Return float32 images in raw units: uint8 is divided by 255, floats are in raw units already."""
    return stored if stored.is_floating_point() else stored.float().div_(255)


class Normalisation:
    """Per-channel (x - mean) / std, for (n, c, h, w) in raw units."""

    def __init__(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float32)
        self.std = torch.as_tensor(std, dtype=torch.float32)

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean.to(x).view(1, -1, 1, 1), self.std.to(x).view(1, -1, 1, 1)

    def apply(self, x: Tensor) -> Tensor:
        """Return normalised images."""
        mean, std = self._shaped(x)
        return (x - mean) / std

    def apply_(self, x: Tensor) -> Tensor:
        """Normalise images in place, to the bits of `apply`; return them."""
        mean, std = self._shaped(x)
        return x.sub_(mean).div_(std)

    def to(self, device: str | torch.device) -> Normalisation:
        """Return the same normalisation with its numbers on `device`."""
        return Normalisation(self.mean.to(device), self.std.to(device))

    def invert(self, x: Tensor) -> Tensor:
        """Return images in raw units (values outside their range are possible) from normalised ones."""
        mean, std = self._shaped(x)
        return x * std + mean


class ZCA:
    r"""Whitening: :math:`x' = (x - \mu) U (s + \epsilon)^{-1/2} U^T`, with :math:`\Sigma = U s U^T` of the train images.

    epsilon is added to the eigenvalues (0.1 in MTT, TESLA and ELF). Images are in [0, 1] and not normalised otherwise; test
    images are whitened with the transform of the train images.

    Differs from the paper: the codes take the SVD of a float32 covariance, this an eigendecomposition in float64, which is the
    same transform, closer to exact. FRePo's whitening is another one.
    """

    def __init__(self, mean: Tensor, transform: Tensor, inverse: Tensor) -> None:
        self.mean, self.transform, self.inverse = mean, transform, inverse

    @classmethod
    def fit(cls, images: Tensor, eps: float = EPS) -> ZCA:
        """Fit on train images, (n, c, h, w) as stored or float in raw units, n > 1; the covariance is divided by n - 1.

        Raises:
            ConfigError: the images are too large for a matrix of that side.
        """
        side = images[0].numel()
        if side > MOST:
            raise ConfigError(f"zca: images of {side} numbers cannot be whitened, by a matrix of that side; allowed: up to {MOST}")
        parts = images.flatten(1).split(5000)  # all rows at once in float64 would be 1.2 GB for CIFAR-10
        mean = torch.stack([raw(rows).double().sum(0) for rows in parts]).sum(0) / len(images)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=images.device)
        for rows in parts:
            centred = raw(rows).double() - mean
            covariance += centred.T @ centred
        values, vectors = torch.linalg.eigh(covariance / (len(images) - 1))
        values = values.clamp_min(0) + eps
        matrices = (mean, (vectors * values.rsqrt()) @ vectors.T, (vectors * values.sqrt()) @ vectors.T)
        return cls(*(matrix.to(images.dtype if images.is_floating_point() else torch.float32) for matrix in matrices))

    def to(self, device: str | torch.device) -> ZCA:
        """Return the same whitening with its matrices on `device`."""
        return ZCA(self.mean.to(device), self.transform.to(device), self.inverse.to(device))

    def apply(self, x: Tensor) -> Tensor:
        """Return whitened images of the same shape."""
        return ((x.flatten(1) - self.mean.to(x)) @ self.transform.to(x)).view_as(x)

    def apply_(self, x: Tensor) -> Tensor:
        """Return whitened images; `x` stays, since a product cannot be formed in place."""
        return self.apply(x)

    def invert(self, x: Tensor) -> Tensor:
        """Return images in [0, 1] units from whitened ones."""
        return (x.flatten(1) @ self.inverse.to(x) + self.mean.to(x)).view_as(x)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the fitted matrices."""
        return {"mean": self.mean, "transform": self.transform, "inverse": self.inverse}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> ZCA:
        """Return the whitening that `state_dict` described."""
        return cls(state["mean"], state["transform"], state["inverse"])
