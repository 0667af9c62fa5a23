"""Expert trajectories: the parameters of networks after every epoch of their training on real images."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dd.artifacts import discard, load_tensors, save_tensors
from dd.data.load import pool as real
from dd.data.pool import RealPool
from dd.errors import ArtifactError, DDError, Stopped
from dd.progress import Progress
from dd.train.config import ExpertConfig
from dd.train.functional import flat
from dd.train.pretrain import SAVE_EVERY, Learner, facts_of


def experts(
    config: ExpertConfig,
    dataset: Path,
    seeds: Sequence[int],
    outs: Sequence[Path],
    *,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> None:
    """Train one expert a seed from its initialisation, and write one file each (MTT, section 3.1).

    A file holds `trajectory`, (epochs + 1, P) float32: row 0 is the initialisation, row e the parameters after epoch e, flattened and
    concatenated in the order of `net.named_parameters()`; P is their number. Buffers and momentum are not in it. Its metadata:
    config, seed, fingerprint, channels, size, classes, `train_loss` and `train_accuracy` (one number for each epoch, of the images
    as they were augmented), and `rows`, the sha256 of the bytes of every row.

    Expert n is the same whatever the block that it is made in: all its random numbers are of the streams (n, "expert", network).
    An interrupted job keeps the experts that it finished, and the last saved epoch of the one it was at, in an undeclared `.resume`
    folder; files that are there already and are what this job makes are kept.

    Differs from the paper: the released code also measures the test accuracy after every epoch, and only prints it.

    Args:
        stop: asked after each epoch. save_every: seconds between saves inside an expert's training.

    Raises:
        Stopped: `stop` said so.
        DDError: an expert diverged; nothing of the block is published.
        ArtifactError: the prepared dataset is damaged or not the configuration's, or has no whitening yet, and the lineage is `zca`.
    """
    facts = facts_of(config, dataset)
    pool = real(dataset, config.split, config.lineage, device, first=config.images)
    made: list[tuple[Path, Path]] = []
    with Progress(f"experts {config.network}", len(seeds) * config.epochs) as progress:
        for number, (seed, out) in enumerate(zip(seeds, outs, strict=True)):
            kept = out.parent / ".resume" / out.name
            expert = Expert(config, facts, seed, device)
            if expert.finished(out):
                discard(kept)
                continue
            made.append((kept, out))
            if expert.finished(kept):
                continue
            expert.resume(kept)
            saved = time.monotonic()
            while expert.epoch < config.epochs:
                expert.advance(pool)
                progress.update(number * config.epochs + expert.epoch)
                done = expert.epoch == config.epochs
                stopping = stop() and not (done and number + 1 == len(seeds))
                if done:
                    expert.finish(kept)
                elif stopping or time.monotonic() - saved > save_every:
                    expert.save(kept)
                    saved = time.monotonic()
                if stopping:
                    raise Stopped(f"stopped after epoch {expert.epoch} of {config.epochs} of expert {seed}; start again to continue")
    for kept, out in made:  # a block appears as a whole, but for a crash in these lines
        kept.replace(out)
        discard(kept)


class Expert:
    """One expert on its way: its network, and a row for every epoch that it has behind it."""

    def __init__(self, config: ExpertConfig, facts: dict[str, Any], seed: int, device: str) -> None:
        self.epochs = config.epochs
        self.learner = Learner(config, facts, seed, device, "expert")
        size = sum(p.numel() for p in self.learner.net.parameters())
        self.trajectory = torch.full((config.epochs + 1, size), math.nan, dtype=torch.float32)  # a row that was never written shows
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self._note()

    @property
    def epoch(self) -> int:
        """Epochs behind it."""
        return self.learner.epoch

    def advance(self, pool: RealPool) -> None:
        """Train for one epoch and write down the parameters.

        Raises:
            DDError: the training diverged.
        """
        self.learner.advance(pool)
        fitted, training = self.learner.fitted, self.learner.config.training
        if fitted.diverged is not None:
            raise DDError(
                f"expert {self.learner.seed} of {self.learner.config.network}: diverged in epoch {self.epoch} of {self.epochs} "
                f"(loss {fitted.diverged['loss']}): its trajectory is of no use; training.lr: value {training.lr}; choose a smaller one"
            )
        self._note()
        self.losses.append(round(fitted.loss, 6))
        self.accuracies.append(round(fitted.accuracy, 6))

    def _note(self) -> None:
        """Copy the parameters as they are into the row of this epoch."""
        self.trajectory[self.epoch] = flat(self.learner.net.parameters())

    def save(self, path: Path) -> None:
        """Write what a later job needs to continue."""
        tensors, meta = self.learner.state()
        rows = self.trajectory[: self.epoch + 1]
        save_tensors(path, {**tensors, "trajectory": rows}, {**meta, "losses": self.losses, "accuracies": self.accuracies})

    def resume(self, path: Path) -> None:
        """Continue what an interrupted job saved at `path`, if it is this expert and sound; else stay at the initialisation."""
        try:
            tensors, meta = load_tensors(path)
            epoch = len(meta.get("losses", []))
            rows = tensors.get("trajectory", torch.empty(0))
            if not 0 < epoch < self.epochs or rows.shape != (epoch + 1, self.trajectory.shape[1]):
                return
            self.learner.take(tensors, meta, path, epoch)
        except ArtifactError:
            return  # made again
        self.trajectory[: epoch + 1] = rows
        self.losses, self.accuracies = meta["losses"], meta["accuracies"]

    def finish(self, path: Path) -> None:
        """Write the file of a finished expert."""
        learner = self.learner
        meta = {
            **learner.identity(), "channels": learner.shape[0], "size": list(learner.shape[1:]),
            "classes": len(learner.facts["classes"]), "train_loss": self.losses, "train_accuracy": self.accuracies,
            "rows": [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in self.trajectory],
        }  # fmt: skip
        save_tensors(path, {"trajectory": self.trajectory}, meta)

    def finished(self, path: Path) -> bool:
        """Tell whether `path` is the sound file of this very expert, finished."""
        try:
            tensors, meta = load_tensors(path)
        except ArtifactError:
            return False
        mine = all(meta.get(key) == value for key, value in self.learner.identity().items())
        return mine and set(tensors) == {"trajectory"} and tensors["trajectory"].shape == self.trajectory.shape
