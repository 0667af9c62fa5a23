"""Features of real images that are computed once, since they cannot change: of a network that stays as it is, without augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dd.data.pool import RealPool
    from dd.types import Network

PIECE = 256  # images forwarded together
ROOM = 2**30  # bytes that the features of all networks of a source may take


class Known:
    """Features of the images of a pool, through one network, by position.

    Neighbouring positions are forwarded together, in pieces of 256, when one of them is first asked for, so that all together cost at most
    one pass over the pool. A piece is the same images whatever was asked for before: a feature has the same bits in a run that was
    interrupted, which computes it again, and in one that was not.

    One pass pays where updates times images of an update are more than the pool times the networks: at paper scale always, in a short run
    on a large dataset perhaps not.

    share: networks of the source, of which each has features of its own. All of them together are kept in at most `ROOM` bytes, on the
    device of the pool; where they need more, none are kept.
    """

    def __init__(self, net: Network, pool: RealPool, share: int) -> None:
        self._net = net
        self._pool = pool
        self._share = share
        self._features: Tensor | None = None
        self._missing = set(range(-(-len(pool) // PIECE)))
        self._too_large = False

    @torch.no_grad()
    def at(self, index: Tensor) -> Tensor | None:
        """Return the features (m, d) at (m,) positions; None if they are not kept."""
        if self._too_large:
            return None
        if self._missing:  # later the device need not be asked for positions
            for piece in sorted(self._missing.intersection((index // PIECE).unique().tolist())):
                self._forward(piece)
                if self._too_large:
                    return None
        assert self._features is not None
        return self._features[index]

    def _forward(self, piece: int) -> None:
        where = torch.arange(piece * PIECE, min((piece + 1) * PIECE, len(self._pool)), device=self._pool.device)
        found = self._net.embed(self._pool.x(where))
        if self._features is None:
            self._too_large = self._share * len(self._pool) * found[0].nbytes > ROOM
            if self._too_large:
                return
            self._features = found.new_empty(len(self._pool), found.shape[1])
        self._features[where] = found
        self._missing.remove(piece)


def attach(net: nn.Module, pool: RealPool, share: int) -> nn.Module:
    """Return the network, which from now on stays as it is, with a `known`: its features of the pool's images."""
    net.known = Known(net, pool, share)  # type: ignore[arg-type,assignment]  # every network of dd.networks has embed
    return net
