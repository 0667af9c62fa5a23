"""Latents that move from one cut of a generator to the next, and what of each space is kept: H-PD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dd.errors import ArtifactError
from dd.parameterizations.gan import GanLatent, bounded
from dd.types import Batches, Term

Score = Callable[[Tensor, Tensor], Tensor]  # images and labels -> what is to be small


class HierarchicalGan:
    """Latents at the first of several cuts, which `hand_over` takes to the next: the features go through the stages between both.

    latents: at cuts[0]. cuts: rising. keep: which latents of a space are handed over and published: `last`; those with the least `loss`
    of the method; or those whose images, as they are and of all stored ones, `score` least (the class-relevant feature distance). All
    states of a space count, from the one it begins with to the one after its last update, which only `score` can judge. What is kept
    is a copy: the latents themselves go on changing.
    """

    def __init__(self, latents: GanLatent, cuts: tuple[int, ...], keep: str, score: Score | None = None) -> None:
        self.latents, self.cuts, self.space = latents, cuts, 0
        self._keep, self._score = keep, score
        self._best, self._kept_loss = math.inf, math.nan
        self._kept: tuple[Tensor, Tensor] | None = None
        self._distance: Tensor | None = None

    @property
    def facts(self) -> dict[str, Tensor]:
        """What `score` said; nothing where it is not asked.

        `distance` is of the latents that were judged last, `kept_distance` of those that are kept of this space so far, and `kept_loss`
        their loss (NaN where it was not known).
        """
        if self._distance is None:
            return {}
        kept = {"kept_distance": torch.tensor(self._best, dtype=torch.float64), "kept_loss": torch.tensor(self._kept_loss)}
        return {"distance": self._distance, **kept}

    def parameters(self) -> list[dict[str, Any]]:
        """Return the groups of the space as it is; another optimizer must be made after `hand_over`."""
        return self.latents.parameters()

    def decode(self, index: Tensor) -> Tensor:
        """Return the images at `index`."""
        return self.latents.decode(index)

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels at `index`."""
        return self.latents.labels(index)

    def project_(self) -> None:
        """Do nothing: latents are free."""

    def judge(self, loss: Tensor | None) -> None:
        """Keep a copy of the latents as they are, if they are better than all before them in this space.

        loss: the method's, of these latents; None where it is not known.
        """
        if self._keep == "last" or (self._keep == "loss" and loss is None):
            return
        score = loss
        if self._keep == "feature_distance":
            score = self._distance = self._scored()
        assert score is not None
        value = float(score)
        if self._kept is None or value < self._best or (math.isnan(self._best) and not math.isnan(value)):
            self._best, self._kept = value, (self.latents.f.detach().clone(), self.latents.ws.detach().clone())
            self._kept_loss = math.nan if loss is None else float(loss)

    @torch.no_grad()
    def _scored(self) -> Tensor:
        assert self._score is not None
        every = torch.arange(len(self.latents.ws), device=self.latents.ws.device)
        return self._score(self.decode(every), self.labels(every))

    def hand_over(self) -> None:
        """Go to the next cut with what was kept of this space."""
        f, ws = self._finished()
        generator, now, then = self.latents.generator, self.cuts[self.space], self.cuts[self.space + 1]
        with torch.no_grad():
            f = bounded(generator.advance(f, ws, now, then - now))
        self.space += 1
        self.latents = self.latents.at(f, ws, then)
        self._best, self._kept, self._kept_loss = math.inf, None, math.nan

    def _finished(self) -> tuple[Tensor, Tensor]:
        """Return what is kept of this space, after its last state was judged too."""
        self.judge(None)
        return self._kept or (self.latents.f.detach(), self.latents.ws.detach())

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Let images be those of what is kept of this space, inside the block."""
        now = self.latents
        was = self._best, self._kept, self._kept_loss
        self.latents = now.at(*self._finished(), now.cut)
        try:
            yield
        finally:
            self.latents, (self._best, self._kept, self._kept_loss) = now, was

    def state_dict(self) -> dict[str, Tensor]:
        """Return the latents, where they are, and what is kept."""
        state = {**self.latents.state_dict(), "space": torch.tensor(self.space)}
        if self._kept is None:
            return state
        best, loss = torch.tensor(self._best, dtype=torch.float64), torch.tensor(self._kept_loss, dtype=torch.float64)
        return {**state, "kept_f": self._kept[0], "kept_ws": self._kept[1], "best": best, "kept_loss": loss}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it all back; the optimizer must be made anew, since latents of another cut are other tensors.

        Raises:
            ArtifactError: features that are not of the cut of their space.
        """
        self.space = int(state["space"])
        wanted, found = self.latents.generator.feature_shape(self.cuts[self.space]), tuple(state["f"].shape[1:])
        if found != wanted:
            raise ArtifactError(f"state of a run: features {found} are not those of space {self.space}, {wanted}; delete it and run again")
        self.latents = self.latents.at(state["f"], state["ws"], self.cuts[self.space])
        self._kept = (state["kept_f"], state["kept_ws"]) if "kept_f" in state else None
        self._best = float(state["best"]) if "best" in state else math.inf
        self._kept_loss = float(state["kept_loss"]) if "kept_loss" in state else math.nan


class Judged:
    """A method's term that shows the latents its loss, before they are updated."""

    def __init__(self, term: Term[Any], latents: HierarchicalGan) -> None:
        self._term, self._latents = term, latents

    def __call__(self, batches: Batches, net: Any) -> Tensor:
        """Return the term's scalar."""
        loss = self._term(batches, net)
        self._latents.judge(loss.detach())
        return loss

    @property
    def facts(self) -> dict[str, Tensor]:
        """What the term reports for the log, and the distance of the same latents."""
        return {**getattr(self._term, "facts", {}), **self._latents.facts}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the term."""
        return self._term.state_dict() if hasattr(self._term, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        if hasattr(self._term, "load_state_dict"):
            self._term.load_state_dict(state)
