"""Several training images from one stored image: IDC's multi-formation, which IDM calls partition and expansion."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dd.data.normalise import ZCA, Normalisation
from dd.data.pool import RealPool

Order = Literal["rows", "columns"]


class MultiFormation:
    """One stored image is cut into factor x factor parts, and each part, bilinearly enlarged to full size, is a training image.

    A set of n stored images counts as n images per class in the papers, although networks see n * factor**2.

    Args:
        images: (n, c, h, w) float32, raw pixels with a normalisation, else in the networks' input space.
        labels: (n,) int64. lr: the rate of the pixels, in units of `images`.
        factor: 1 decodes to the image itself.
        order: of the parts of one image: `rows` is top left, top right, bottom left, bottom right (IDC, M3D, DSDM); `columns` is top
            left, bottom left, top right, bottom right (IDM).
        normalisation: given, the stored numbers are raw pixels; decoded images are normalised. None: stored normalised already.
        low, high: the feasible set of stored numbers, restored at the start of each step; None is no bound.
        time_only: cut along the width alone, into `factor` parts (spectrograms).

    Where a side is no multiple of the factor, the image is padded at the right and at the bottom, with 0.5 (raw) or 0 (normalised),
    so that each part has ceil(side / factor) pixels.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        lr: float,
        *,
        factor: int = 2,
        order: Order = "rows",
        normalisation: Normalisation | ZCA | None = None,
        low: float | None = None,
        high: float | None = None,
        time_only: bool = False,
    ) -> None:
        if factor < 1:
            raise ValueError(f"factor must be at least 1, is {factor}")
        self.images = images.detach().clone().requires_grad_(True)
        self._labels = labels
        self._lr = lr
        self._factor = factor
        self._order = order
        self._normalisation = normalisation
        self._bounds = (low, high)
        self._time_only = time_only
        self.each = factor if time_only else factor**2

    def parameters(self) -> list[dict[str, Any]]:
        """Return the one optimizer group."""
        return [{"params": [self.images], "lr": self._lr}]

    def decode(self, index: Tensor) -> Tensor:
        """Return (m * each, c, h, w) images in the input space for the m stored images at `index`, index-major, differentiable."""
        images = self.expand(self.images[index])
        return images if self._normalisation is None else self._normalisation.apply(images)

    def expand(self, x: Tensor) -> Tensor:
        """Return (m * each, c, h, w), the enlarged parts of (m, c, h, w), in units of `x`; linear in x but for the padding."""
        if self._factor == 1:
            return x
        m, c, h, w = x.shape
        down, across = (1 if self._time_only else self._factor), self._factor
        rows, columns = -(-h // down), -(-w // across)
        padding = 0.5 if self._normalisation is not None else 0.0
        x = F.pad(x, (0, columns * across - w, 0, rows * down - h), value=padding)
        parts = x.reshape(m, c, down, rows, across, columns)
        parts = parts.permute(0, 2, 4, 1, 3, 5) if self._order == "rows" else parts.permute(0, 4, 2, 1, 3, 5)
        return F.interpolate(parts.reshape(-1, c, rows, columns), size=(h, w), mode="bilinear", align_corners=False)

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels of `decode(index)`, (m * each,)."""
        return self._labels[index].repeat_interleave(self.each)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the stored numbers to [low, high]."""
        if self._bounds != (None, None):
            self.images.clamp_(*self._bounds)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the stored numbers."""
        return {"images": self.images.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take them back, in place, so that the optimizer keeps its hold of them."""
        with torch.no_grad():
            self.images.copy_(state["images"])


def mix(pool: RealPool, ipc: int, factor: int, generator: Generator | None = None, *, time_only: bool = False) -> Tensor:
    """Return raw (classes * ipc, c, h, w) images whose parts are shrunk real images: IDC's "mix" initialisation.

    The first ipc * parts images of each class are taken (of a random order, with a generator); block k of ipc images goes to part k,
    in rows, shrunk by nearest neighbour, which keeps every second pixel at factor 2. A class with fewer images begins again.

    Differs from the papers: "first" is in the prepared order of images, which does not depend on where they came from.
    """
    each = factor if time_only else factor**2
    blocks = torch.stack([_members(pool, c, ipc * each, generator).view(each, ipc) for c in range(pool.classes)], 1)
    parts = [pool.raw(block.reshape(-1)) for block in blocks]  # each (classes * ipc, c, h, w)
    return _mosaic(parts, factor, "nearest", time_only)


def draws(pool: RealPool, ipc: int, factor: int, generator: Generator, *, time_only: bool = False) -> Tensor:
    """Return normalised (classes * ipc, c, h, w) images whose parts are shrunk real images: IDM's initialisation.

    Each part is an independent draw of ipc images a class, without replacement, shrunk bilinearly (at factor 2, 2x2 means).
    """
    each = factor if time_only else factor**2
    parts = [pool.x(torch.cat([_members(pool, c, ipc, generator) for c in range(pool.classes)])) for _ in range(each)]
    return _mosaic(parts, factor, "bilinear", time_only)


def _members(pool: RealPool, c: int, count: int, generator: Generator | None) -> Tensor:
    members = pool.of_class(c)
    if generator is not None:
        members = members[torch.randperm(len(members), generator=generator).to(members.device)]
    return members.repeat(-(-count // len(members)))[:count]


def _mosaic(parts: list[Tensor], factor: int, mode: str, time_only: bool) -> Tensor:
    """Return images of the parts' own size, with each part shrunk into its place, in rows; what hangs over is cut off."""
    h, w = parts[0].shape[2:]
    if factor == 1:
        return parts[0]
    down, across = (1 if time_only else factor), factor
    size = (-(-h // down), -(-w // across))
    more: dict[str, Any] = {} if mode == "nearest" else {"align_corners": False}
    small = [F.interpolate(part, size=size, mode=mode, **more) for part in parts]
    rows = [torch.cat(small[i * across : (i + 1) * across], 3) for i in range(down)]
    return torch.cat(rows, 2)[:, :, :h, :w].contiguous()
