"""Where an interrupted evaluation continues: the scores of the networks that are done, and the training of the one that is not.

A training is cut into stretches of about `STRETCH` seconds, between which it can be saved: `dd.train.supervised.fit` continues one bit for
bit, since its random numbers are functions of the epoch. It cannot be cut where more than weights, momentum and an average goes on
from epoch to epoch: the moments of AdamW, and the random numbers of a teacher's views. Then only whole networks are kept.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.artifacts import load_tensors, save_tensors
from dd.errors import ArtifactError
from dd.train.ema import Ema
from dd.types import DistilledSet, Score

STRETCH = 10.0  # seconds between two questions whether to stop
SAVE_EVERY = 60.0  # seconds between saves inside one network's training

Reading = tuple[float, list[float]]


class Kept:
    """What is kept of an evaluation at `path`; with None nothing is.

    identity: JSON that tells this evaluation from every other. What is there and is damaged, or of another evaluation, is not used.

    Attributes:
        scores: of the networks that are done, in order.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.scores: list[Score] = []
        self._path, self._identity = path, dict(identity)
        self._tensors: dict[str, Tensor] = {}
        self._begun: dict[str, Any] = {}
        if path is None or not path.exists():
            return
        try:
            tensors, meta = load_tensors(path)
        except ArtifactError as error:
            print(f"{error}; evaluated from the beginning", file=sys.stderr, flush=True)
            return
        if meta.get("identity") != self._identity:
            print(f"{path}: is of another set or protocol; evaluated from the beginning", file=sys.stderr, flush=True)
            return
        self.scores = [Score(**score) for score in meta["scores"]]
        self._tensors, self._begun = tensors, meta["begun"]

    def done(self, score: Score, *, save: bool) -> None:
        """Take in a network's score; save it where networks are left."""
        self.scores.append(score)
        self._tensors, self._begun = {}, {}
        if save:
            self._save()

    def begin(self, net: nn.Module, average: Ema | None) -> tuple[int, dict[str, Tensor], list[Reading]]:
        """Bring the next network to where its training was saved; return epochs done, momentum and readings: 0 and none if it was not."""
        model = _of(self._tensors, "model")
        if not self._begun or _shapes(model) != _shapes(net.state_dict()):  # the network's code may have changed since
            return 0, {}, []
        epoch = int(self._begun["epoch"])
        net.load_state_dict(model)
        if average is not None:
            average.continue_from(_of(self._tensors, "average"), epoch)
        readings = [(float(value), [float(one) for one in each]) for value, each in self._begun["readings"]]
        return epoch, _of(self._tensors, "momentum"), readings

    def pause(self, net: nn.Module, average: Ema | None, epoch: int, momentum: Mapping[str, Tensor], readings: list[Reading]) -> None:
        """Save a training after so many epochs."""
        parts = {"model": net.state_dict(), "momentum": momentum, "average": {} if average is None else average.net.state_dict()}
        self._tensors = {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
        self._begun = {"epoch": epoch, "readings": readings}
        self._save()

    def _save(self) -> None:
        if self._path is not None:
            meta = {"identity": self._identity, "scores": [asdict(score) for score in self.scores], "begun": self._begun}
            save_tensors(self._path, self._tensors, meta)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}


def stretches(first: int, last: int, *, cut: bool) -> Iterator[tuple[int, int]]:
    """Yield (epoch, epoch) of stretches from `first` to `last`, as long as took about `STRETCH` seconds so far; without `cut` one."""
    if not cut:
        yield first, last
        return
    began, epoch = time.monotonic(), first
    while epoch < last:
        seconds = max(time.monotonic() - began, 1e-3)
        # The first epoch is slower than the others (it warms up), so this asks too often rather than too seldom.
        end = min(last, epoch + (max(1, int(STRETCH * (epoch - first) / seconds)) if epoch > first else 1))
        yield epoch, end
        epoch = end


def content(distilled: DistilledSet) -> str:
    """Return a sha256 of all of a set that an evaluation looks at, as 64 hex digits."""
    digest = hashlib.sha256(repr((distilled.step_size, distilled.zca, distilled.meta.get("diverged"))).encode())
    for tensor in (distilled.images, distilled.labels, distilled.mean, distilled.std, distilled.indices):
        digest.update(b"none" if tensor is None else f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor is not None and tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
