"""Stretches of the training of experts, read from their files when they are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dd.artifacts import read_meta
from dd.errors import ArtifactError, ConfigError
from dd.rng import stream

if TYPE_CHECKING:
    from dd.train.functional import Flat
    from dd.types import Batches

NAME = "trajectory"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an expert's training: its architecture, and its parameters where the stretch starts and ends, (P,) each."""

    network: Flat
    start: Tensor
    target: Tensor


class Trajectories:
    """Hand out one stretch a step: epochs t to t + span of an expert.

    Experts are taken in a random order, each once before any comes again, in an order of its own in each pass; t is uniform over 0 to
    max_start - 1. Both are functions of (seed, step). Only the two rows that are wanted are read, from the file on disk; each is compared
    with the checksum in the file's metadata when it is first read.

    files: of the experts, as `dd.train.experts` writes them. network: their architecture. about: what their metadata must say, by key,
    at the top (`fingerprint`) or in their `config` (`network`, `lineage`). device: of the rows.

    Raises (at once, from the files' headers):
        ArtifactError: a file is missing, damaged, of another network or other images, or of another training than the first one.
        ConfigError: they were not trained for max_start - 1 + span epochs.

    Differs from the released code: its 100 experts lie in files of ten, which it takes in random order, as it does the ten of a file;
    here the order is over all experts.
    """

    def __init__(
        self, files: Sequence[Path], span: int, max_start: int, seed: int, network: Flat, about: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        if not files or span < 1 or max_start < 1:
            raise ValueError(f"Trajectories needs files, a span and a max_start: has {len(files)} files, {span} and {max_start}")
        self._files = list(files)
        self._span = span
        self._max_start = max_start
        self._seed = seed
        self._network = network
        self._device = device
        self._checked: set[tuple[int, int]] = set()
        self._sums: list[list[str]] = []
        first: Any = None
        for file in self._files:
            meta = read_meta(file)
            self._sums.append(self._fitting(file, meta, about))
            first = first or meta.get("config")
            if meta.get("config") != first:
                raise ArtifactError(f"{file}: is not of the same training as {self._files[0]}; delete it and train the experts again")

    def _fitting(self, file: Path, meta: dict[str, Any], about: Mapping[str, Any]) -> list[str]:
        """Return the checksums of a file's rows, after checking that it is what is wanted."""
        for key, wanted in about.items():
            found = meta.get(key, meta.get("config", {}).get(key))
            if found != wanted:
                raise ArtifactError(f"{file}: {key}: is {found!r} of this expert, the method needs {wanted!r}; train experts for it")
        try:
            with safe_open(file, framework="pt") as opened:
                rows, size = opened.get_slice(NAME).get_shape()
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtifactError(f"{file}: holds no trajectory ({error}); delete it and train the expert again") from None
        if size != self._network.size:
            raise ArtifactError(f"{file}: has {size} parameters, the method's network {self._network.size}; train experts for it")
        sums: list[str] = meta.get("rows", [])
        if len(sums) != rows:
            raise ArtifactError(f"{file}: has {rows} rows, but checksums of {len(sums)}; delete it and train the expert again")
        least = self._max_start - 1 + self._span
        if rows - 1 < least:
            raise ConfigError(
                f"{file}: this expert was trained for {rows - 1} epochs; with max_start {self._max_start} and expert_span {self._span} it "
                f"must be {least} or more: set experts.epochs to that, or lower the others"
            )
        return sums

    def draw(self, step: int) -> Segment:
        """Return the stretch of this step.

        Raises:
            ArtifactError: the file is gone or damaged, or the expert did not move.
        """
        sweep, position = divmod(step, len(self._files))
        which = int(torch.randperm(len(self._files), generator=stream(self._seed, "experts", sweep))[position])
        t = int(torch.randint(self._max_start, (), generator=stream(self._seed, "start", step)))
        end = t + self._span
        if self._sums[which][t] == self._sums[which][end]:
            raise ArtifactError(f"{self._files[which]}: epochs {t} and {end} are equal: this expert learned nothing to be matched")
        start, target = self._rows(which, (t, end))
        return Segment(self._network, start, target)

    def _rows(self, which: int, wanted: tuple[int, int]) -> list[Tensor]:
        file = self._files[which]
        try:
            with safe_open(file, framework="pt") as opened:
                part = opened.get_slice(NAME)
                rows = [part[t] for t in wanted]
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{file}: cannot be read ({error}); train the expert again") from None
        for t, row in zip(wanted, rows, strict=True):
            if (which, t) not in self._checked and hashlib.sha256(row.numpy().data).hexdigest() != self._sums[which][t]:
                raise ArtifactError(f"{file}: epoch {t} is damaged (not what its checksum says); delete it and train the expert again")
            self._checked.add((which, t))
        return [row.to(self._device) for row in rows]

    def advance(self, net: Segment, batches: Batches) -> None:
        """Do nothing: experts are what they are."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: everything is a function of (seed, step)."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing."""
