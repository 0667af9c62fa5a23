"""The one supervised loop, for real and for distilled images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dd import fast
from dd.annealing import half_cosine
from dd.augment import cutmix
from dd.augment.policies import make
from dd.augment.strategies import default_strategy
from dd.networks._layers import reseed
from dd.rng import stream
from dd.train.config import Training

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
WARMUP = 1e-7  # where `warmup_cosine` begins, in rates


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean cross-entropy, logits) of augmented images; index: their positions, which this loss does not look at."""
    logits = net(x)
    return F.cross_entropy(logits, y), logits


@dataclass
class Fitted:
    """How a training ended.

    momentum: the optimizer's buffers by parameter name, for the next stretch. loss: mean over the images of the last epoch; its
    accuracy: in [0, 1], on the images as they were augmented; a soft label counts as its most probable class, and one that CutMix
    mixed as the class of what stayed. diverged: None, or {epoch, step, loss, grad_norm}, see `fit`.
    """

    momentum: dict[str, Tensor] = field(default_factory=dict)
    loss: float = math.nan
    accuracy: float = math.nan
    diverged: dict[str, float | str] | None = None


def rate(training: Training, epoch: int) -> float:
    """Return the learning rate of epoch `epoch`, counted from 0."""
    if training.schedule == "halfway_reset" and epoch > training.epochs // 2 + 1:
        return training.lr * 0.1
    if training.schedule == "multistep":
        passed = sum(epoch >= milestone for milestone in (2 * training.epochs // 3, 5 * training.epochs // 6))
        return training.lr * 0.2**passed
    if training.schedule == "thirds":
        passed = sum(epoch >= milestone for milestone in (training.epochs // 3, 2 * training.epochs // 3))
        return training.lr * 0.1**passed
    if training.schedule == "warmup_cosine":
        return training.lr * _warmup_cosine(epoch, max(1, training.epochs // 2))
    if training.schedule == "cosine":
        return training.lr * half_cosine(epoch / training.epochs)
    return training.lr


def _warmup_cosine(epoch: int, half: int) -> float:
    """Return the factor of GLaD's two schedulers: LinearLR for epochs 0 to `half`, one more at 1, then CosineAnnealingLR to 0.

    The code goes over from the first to the second after the pass `half`, whose step it takes with the first: hence the extra epoch.
    """
    if epoch <= half:
        return WARMUP + (1 - WARMUP) * epoch / half
    return half_cosine((epoch - half - 1) / half)


def resets(training: Training, epoch: int) -> bool:
    """Tell whether the optimizer is made anew at the start of this epoch, as the DC lineage's evaluator does with its rate."""
    return training.schedule == "halfway_reset" and epoch == training.epochs // 2 + 2


def for_data(training: Training, facts: Mapping[str, Any]) -> Training:
    """Return the training without augmentation, where the dataset's manifest says that its images must not be augmented (sounds)."""
    return training if facts.get("augment", True) else training.model_copy(update={"augment": "none", "cutmix": 0.0})


def strategy_of(training: Training, flip: bool, use: str) -> str:
    """Return the augmentation strategy: the configured one, or the default of the policy's lineage for `use` (train or eval)."""
    if training.strategy is not None:
        return training.strategy
    lineage = "idc" if training.augment == "stack" else "dc"
    return default_strategy(flip, lineage, use, cutmix=training.cutmix > 0 and lineage == "idc")


def fit(
    net: nn.Module,
    fetch: Fetch,
    n: int,
    training: Training,
    *,
    seed: int,
    names: Sequence[object],
    first_epoch: int,
    last_epoch: int,
    shape: tuple[int, int, int],
    flip: bool,
    use: str = "train",
    momentum: dict[str, Tensor] | None = None,
    loss: Loss = cross_entropy,
    optimizer: str = "sgd",
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Fitted:
    """Train `net` in place over epochs first_epoch .. last_epoch - 1 with the mean cross-entropy of a mini-batch, or another loss.

    Args:
        fetch: returns un-augmented, normalised (x, y) for positions below n > 0; y are class ids (m,) or probabilities (m, k).
        seed, names: every random number of epoch e is a function of (seed, *names, e), so that a training continued from a
            milestone equals an uninterrupted one bit for bit.
        shape: (c, h, w) of an image. flip: whether a mirrored image keeps its class; with `use`, "train" (networks that a method
            looks through) or "eval" (students), it picks the default strategy.
        momentum: buffers of the epoch before `first_epoch`. on_epoch: called with the number of epochs done, after each.
        loss: called with the network, augmented images, their labels and their positions (on the device); returns (scalar, logits).
            Under CutMix it is not asked: that mixes cross-entropies.
        optimizer: "sgd", or "adamw", which has no momentum to hand on: for trainings in one stretch.

    Returns:
        Buffers, loss and accuracy. Nothing is read back from the device but once an epoch: the epoch in which a loss, or after
        which a weight, is not finite ends the training with `diverged` set: that epoch, the step (counted from epoch 0) and the
        loss where it began, and the norm of the last gradient; numbers that are not finite as text ("nan", "inf").
    """
    net.train()
    parameters = dict(net.named_parameters())
    device = next(iter(parameters.values())).device
    steps = _optimizer(optimizer, parameters, training, momentum or {})
    augment = make(training.augment, strategy_of(training, flip, use), training.align_corners)
    sizes = torch.tensor([len(index) for index in torch.arange(n).split(training.batch)], device=device)
    losses, right = torch.full((len(sizes),), math.nan, device=device), torch.tensor(math.nan)
    for epoch in range(first_epoch, last_epoch):
        if resets(training, epoch):
            steps = _optimizer(optimizer, parameters, training, {})
        for group in steps.param_groups:
            group["lr"] = rate(training, epoch)
        generator = stream(seed, *names, "epoch", epoch)
        reseed(net, seed, *names, "epoch", epoch)  # its masks, where it has dropout; a test after an epoch takes them away
        seen: list[Tensor] = []
        right = torch.zeros((), dtype=torch.int64, device=device)
        for index in torch.randperm(n, generator=generator).split(training.batch):
            positions = index.to(device)
            x, y = fetch(positions)
            x = augment.apply(x, augment.draw(generator, len(index), shape, shared=False), torch.arange(len(index)))
            steps.zero_grad(set_to_none=True)
            if training.cutmix:
                x, y_a, y_b, share = cutmix.apply(x, y, cutmix.draw(generator, len(index), shape[1:], training.cutmix))
                logits = net(x)
                value = share * F.cross_entropy(logits, y_a) + (1 - share) * F.cross_entropy(logits, y_b)
            else:
                value, logits = loss(net, x, y, positions)
            value.backward()
            steps.step()
            seen.append(value.detach())
            right += (logits.detach().argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum()
        losses = torch.stack(seen)
        weights = get_total_norm([p.detach() for p in parameters.values()])
        if not (losses.isfinite().all() & weights.isfinite()):
            return Fitted(diverged=_where(epoch, losses, [p.grad for p in parameters.values() if p.grad is not None]))
        on_epoch(epoch + 1)
    net.train()  # takes the stream of its masks away: whoever looks through the network next must give one
    return Fitted(_momentum(parameters, steps), ((losses * sizes).sum() / n).item(), right.item() / n)


def _where(epoch: int, losses: Tensor, gradients: list[Tensor]) -> dict[str, float | str]:
    bad = (~losses.isfinite()).nonzero()
    at = int(bad[0]) if len(bad) else len(losses) - 1  # none: it was the last update that broke the weights
    return {"epoch": epoch, "step": epoch * len(losses) + at, "loss": _safe(losses[at]), "grad_norm": _safe(get_total_norm(gradients))}


def _safe(value: Tensor) -> float | str:
    number = value.item()
    return number if math.isfinite(number) else str(number)


def _optimizer(kind: str, parameters: dict[str, nn.Parameter], training: Training, momentum: dict[str, Tensor]) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(parameters.values(), lr=training.lr, weight_decay=training.weight_decay)
    optimizer = torch.optim.SGD(parameters.values(), lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay)
    for name, buffer in momentum.items():
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer.to(parameters[name].device).clone()
    return optimizer


def _momentum(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in parameters.items() if p in optimizer.state}
    return {name: buffer.detach().clone() for name, buffer in buffers.items() if buffer is not None}


def accuracy(net: nn.Module, fetch: Fetch, n: int, classes: int, batch: int = 500) -> tuple[float, list[float]]:
    """Return (accuracy, accuracy of each class) in [0, 1] over positions 0..n-1, in eval mode; a class without images has 0.

    An image whose logits are not numbers counts as wrong: a network that diverged says nothing, rather than class 0.
    """
    training = net.training
    device = next(net.parameters()).device
    net.eval()
    hits, labels = [], []
    with torch.no_grad():
        for index in torch.arange(n, device=device).split(batch):
            x, y = fetch(index)
            logits = torch.cat([net(piece) for piece in x.split(fast.at_once(x, batch))])
            hits.append((logits.argmax(1) == y) & ~logits.isnan().any(1))
            labels.append(y)
    net.train(training)
    hit, label = torch.cat(hits).cpu(), torch.cat(labels).cpu()
    right = torch.bincount(label[hit], minlength=classes).tolist()
    total = torch.bincount(label, minlength=classes).tolist()
    return sum(right) / n, [r / max(t, 1) for r, t in zip(right, total, strict=True)]
