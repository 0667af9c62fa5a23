"""What students learn from the network that a set was recovered from: its probabilities for the very images that they see (SRe2L)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from dd.augment import cutmix
from dd.augment.policies import Nothing, make
from dd.augment.views import Views
from dd.rng import stream
from dd.train.pretrain import check_trained, load_network

if TYPE_CHECKING:
    from dd.evaluation.protocols.sre2l import Sre2l
    from dd.train.supervised import Loss
    from dd.types import Augment

Mix = Callable[[Generator, Tensor], Tensor]
ALPHA = 0.8  # of Mixup


class Taught:
    """A teacher, and the loss that it teaches by.

    protocol: temperature, view, and how images are mixed. file: the teacher's checkpoint. facts: manifest of the set's dataset.

    Attributes:
        detail: what is noted beside every score: `teacher_diverged`, where and how, if the teacher did.

    Raises:
        ArtifactError: the checkpoint is damaged, or not that of the protocol's teacher on this dataset.
    """

    def __init__(self, protocol: Sre2l, file: Path, facts: Mapping[str, Any], device: str) -> None:
        one = protocol.teacher
        wanted = {"network": one.network, "training": one.need(facts["name"]).config, "epoch": one.epochs}
        meta = check_trained(file, {**wanted, "fingerprint": facts["fingerprint"]})
        self._protocol = protocol
        self._teacher = load_network(file, device).eval().requires_grad_(False)
        self._augment = _augment(protocol, facts)
        self._mix = mixup if protocol.mix == "mixup" else _cutmix
        if not facts.get("augment", True):  # sounds: as they are
            self._mix = _unmixed
        self.detail: dict[str, Any] = {"teacher_diverged": meta["diverged"]} if meta.get("diverged") is not None else {}

    def loss(self, name: str, net: nn.Module, shape: tuple[int, int, int]) -> Loss:
        """Return the loss of a fresh student called `name` for (c, h, w) images.

        Views and mixtures are drawn from a stream that the student's first weights name: those are a function of set and number, so
        students of one set see different ones, and each the same in whatever block of students it is trained.
        """
        numbers = stream(_name_of(net), "views", name)

        def taught(student: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            params = self._augment.draw(numbers, len(x), shape, shared=False)
            x = self._mix(numbers, self._augment.apply(x, params, torch.arange(len(x))))
            logits: Tensor = student(x)
            with torch.no_grad():
                target = self._teacher(x)
            return distillation(logits, target, self._protocol.temperature), logits

        return taught


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Return the mean over images of the divergence of the student's softened probabilities from the teacher's, a scalar >= 0.

    .. math:: \frac{1}{n} \sum_{i} KL\big( softmax(t_i / T) \,\|\, softmax(s_i / T) \big)

    It is not multiplied by T^2, so gradients shrink with T^2; Adam does not care. student, teacher: logits, both (n, k).
    """
    soft, log = F.softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return F.kl_div(log, soft, reduction="batchmean")


def mixup(numbers: Generator, x: Tensor) -> Tensor:
    """Return a x + (1 - a) x', x' the images in another order, with one a ~ Beta(0.8, 0.8) for all (Zhang et al., ICLR 2018)."""
    share, order = beta(numbers, ALPHA), torch.randperm(len(x), generator=numbers).to(x.device)
    return share * x + (1 - share) * x[order]


def beta(numbers: Generator, alpha: float) -> float:
    """Return a number of Beta(alpha, alpha), by the quotient of powers of uniform ones that Jöhnk found (1964)."""
    while True:
        u, v = (torch.rand(2, generator=numbers, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < u + v <= 1:
            return float(u / (u + v))


def _cutmix(numbers: Generator, x: Tensor) -> Tensor:
    size = (x.shape[2], x.shape[3])
    mixed, *_ = cutmix.apply(x, x.new_zeros(len(x), dtype=torch.int64), cutmix.draw(numbers, len(x), size, 1.0))
    return mixed


def _unmixed(numbers: Generator, x: Tensor) -> Tensor:
    return x


def _augment(protocol: Sre2l, facts: Mapping[str, Any]) -> Augment:
    if not facts.get("augment", True):
        return Nothing()
    if protocol.view == "crop":
        return Views(crop=True, flip=bool(facts["flip"]))
    return make("stack", "crop_flip" if facts["flip"] else "crop")


def _name_of(net: nn.Module) -> int:
    """Return a number below 2^63 that a network's first weights determine."""
    weights = next(net.parameters()).detach().cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(weights).digest()[:8], "little") >> 1
