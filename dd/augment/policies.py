"""How the ops of a strategy meet an image: one of them (DC lineage), or several in a row (IDC lineage).

All randomness is in `draw`, none in `apply`. Applying one draw to the real and to the synthetic images of a class is what
"siamese" means. Groups: a class each in matching (`shared=True`), an image each in training networks (`shared=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from dd import fast
from dd.augment.dsa_ops import OPS, RESAMPLED
from dd.augment.strategies import check, ops_of
from dd.types import Augment

LONG = 8  # images of a group in a row, on average, from which on a slice for each group beats an index for each image (on a CPU)
STACK = (("flip",), ("color",), ("crop", "scale", "rotate"), ("cutout",))


@dataclass(frozen=True, slots=True)
class Drawn:
    """The values of one draw, on the CPU.

    which: (groups,) int64, the op of each group, counted in the policy's names. values: for each op that some group has, a row
    for every group, as `dd.augment.dsa_ops` says.
    """

    which: Tensor
    values: dict[str, Tensor]


class OneOf:
    """One op of the strategy, chosen uniformly (DSA, ICML 2021).

    Args:
        strategy: op names joined by "_".
        align_corners: how scale and rotate sample. False in DC, DSA and DM; True in MTT, TESLA and ELF's evaluation. Both ops
            keep the centre, so this makes no difference but rounding for square images.

    Differs from the code of the paper: there, classes visited within a millisecond share op and values; here classes are
    independent, which is the distribution that the paper means.
    """

    def __init__(self, strategy: str, align_corners: bool = False) -> None:
        self.names = ops_of(strategy)
        self.ops = {name: OPS[name].apply for name in self.names}
        for name in set(RESAMPLED) & set(self.names):
            self.ops[name] = partial(self.ops[name], align_corners=align_corners)

    def draw(self, generator: Generator, groups: int, shape: tuple[int, int, int], *, shared: bool) -> Drawn:
        """Draw for `groups` groups of (c, h, w) images: values for each group, and one op a group (shared) or for all (not)."""
        which = torch.randint(len(self.names), (groups if shared else 1,), generator=generator).expand(groups)
        chosen = [self.names[index] for index in which.unique().tolist()]
        return Drawn(which, {name: OPS[name].draw(generator, groups, shape) for name in chosen})

    def apply(self, x: Tensor, params: Drawn, group: Tensor) -> Tensor:
        """Return (n, c, h, w) images, each transformed with the values of its group.

        Args:
            x: images; gradients flow through.
            params: of `draw`.
            group: (n,) int64, the group of each image; best on the CPU, where the ops are looked up: a device must be waited for.
        """
        group = group.cpu()
        found, lengths = group.unique_consecutive(return_counts=True)
        if fast.active(x) and len(group) >= LONG * len(found):
            return self._in_runs(x, params, found.tolist(), lengths.tolist())
        which = params.which[group]
        pieces, rows = [], []
        for index in which.unique().tolist():
            row = (which == index).nonzero().squeeze(1)
            part = x if len(row) == len(x) else x.index_select(0, row.to(x.device, non_blocking=True))
            name = self.names[index]
            pieces.append(self.ops[name](part, params.values[name][group[row]]))
            rows.append(row)
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat(pieces).index_select(0, torch.cat(rows).argsort().to(x.device, non_blocking=True))

    def _in_runs(self, x: Tensor, params: Drawn, groups: list[int], lengths: list[int]) -> Tensor:
        """Return the images transformed run by run: a run is a slice, and all of its images have one row of values."""
        pieces = []
        for g, part in zip(groups, x.split(lengths), strict=True):
            name = self.names[int(params.which[g])]
            pieces.append(self.ops[name](part, params.values[name][g : g + 1]))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


class Stack:
    """Flip, colour, one of crop, scale and rotate chosen uniformly, cutout: in this order, what the strategy lists (IDC).

    Each is a `OneOf`, so `shared` has the same meaning: with it a class is flipped as a whole or not at all, and has its own
    choice among crop, scale and rotate; without it values are drawn for each image and that choice once for all.

    Args: as of `OneOf`.
    """

    def __init__(self, strategy: str, align_corners: bool = False) -> None:
        listed = ops_of(strategy)
        layers = [[name for name in layer if name in listed] for layer in STACK]
        self.layers = [OneOf("_".join(layer), align_corners) for layer in layers if layer]

    def draw(self, generator: Generator, groups: int, shape: tuple[int, int, int], *, shared: bool) -> list[Drawn]:
        """Draw for `groups` groups of (c, h, w) images, each layer in turn."""
        return [layer.draw(generator, groups, shape, shared=shared) for layer in self.layers]

    def apply(self, x: Tensor, params: list[Drawn], group: Tensor) -> Tensor:
        """Return (n, c, h, w) images, each transformed with the values of its group, (n,) int64."""
        for layer, drawn in zip(self.layers, params, strict=True):
            x = layer.apply(x, drawn, group)
        return x


class Nothing:
    """No augmentation."""

    def draw(self, generator: Generator, groups: int, shape: tuple[int, int, int], *, shared: bool) -> None:
        """Draw nothing."""

    def apply(self, x: Tensor, params: None, group: Tensor) -> Tensor:
        """Return `x` itself."""
        return x


def make(policy: str, strategy: str, align_corners: bool = False) -> Augment:
    """Return the augmentation of a configuration.

    Args:
        policy: oneof, stack or none.
        strategy: op names joined by "_"; with the policy none also "" or "none".
        align_corners: see `OneOf`.

    Raises:
        ConfigError: an unknown policy or op, with the nearest match.
    """
    check(policy, strategy)
    if policy == "none":
        return Nothing()
    return OneOf(strategy, align_corners) if policy == "oneof" else Stack(strategy, align_corners)
