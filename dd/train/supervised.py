"""The one supervised loop, for real and for distilled images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd.augment import cutmix
from dd.augment.policies import make
from dd.augment.strategies import default_strategy
from dd.rng import stream
from dd.train.config import Training


@dataclass
class Fitted:
    """How a training ended.

    momentum: the optimizer's buffers by parameter name, for the next stretch. loss: mean over the last epoch. accuracy: on the
    (augmented) images of the last epoch, with hard labels only. diverged: None, or {epoch, loss, grad_norm} as text-safe numbers.
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
    return training.lr


def resets(training: Training, epoch: int) -> bool:
    """Tell whether the optimizer is made anew at the start of this epoch, as the DC lineage's evaluator does with its rate."""
    return training.schedule == "halfway_reset" and epoch == training.epochs // 2 + 2


def strategy_of(training: Training, flip: bool) -> str:
    """Return the augmentation strategy: the configured one, or the default of the policy's lineage."""
    if training.strategy is not None:
        return training.strategy
    lineage = "idc" if training.augment == "stack" else "dc"
    return default_strategy(flip, lineage, "eval", cutmix=training.cutmix > 0 and lineage == "idc")


def fit(
    net: nn.Module,
    fetch: Callable[[Tensor], tuple[Tensor, Tensor]],
    n: int,
    training: Training,
    *,
    seed: int,
    names: Sequence[object],
    first_epoch: int,
    last_epoch: int,
    shape: tuple[int, int, int],
    flip: bool,
    momentum: dict[str, Tensor] | None = None,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Fitted:
    """Train `net` in place over epochs first_epoch .. last_epoch - 1.

    Args:
        fetch: returns un-augmented, normalised (x, y) for positions below n; y are class ids (m,) or probabilities (m, k).
        seed, names: every random number of epoch e is a function of (seed, *names, e), so that a training continued from a
            milestone equals an uninterrupted one bit for bit.
        momentum: buffers of the epoch before `first_epoch`. on_epoch: called with the number of epochs done, after each.

    Returns:
        Buffers, loss and accuracy. A loss that is not finite ends the training at the end of its epoch with `diverged` set.
    """
    net.train()
    parameters = dict(net.named_parameters())
    device = next(iter(parameters.values())).device
    optimizer = _sgd(parameters, training, momentum or {})
    augment = make(training.augment, strategy_of(training, flip))
    loss_sum, right, seen = torch.zeros((), device=device), torch.zeros((), device=device), 0
    hard = True
    for epoch in range(first_epoch, last_epoch):
        if resets(training, epoch):
            optimizer = _sgd(parameters, training, {})
        for group in optimizer.param_groups:
            group["lr"] = rate(training, epoch)
        generator = stream(seed, *names, "epoch", epoch)
        loss_sum, right, seen = torch.zeros_like(loss_sum), torch.zeros_like(right), 0
        for index in torch.randperm(n, generator=generator).split(training.batch):
            x, y = fetch(index.to(device))
            x = augment.apply(x, augment.draw(generator, len(index), shape, shared=False), torch.arange(len(index)))
            optimizer.zero_grad(set_to_none=True)
            if training.cutmix:
                x, y_a, y_b, share = cutmix.apply(x, y, cutmix.draw(generator, len(index), shape[1:], training.cutmix))
                logits = net(x)
                loss = share * F.cross_entropy(logits, y_a) + (1 - share) * F.cross_entropy(logits, y_b)
            else:
                logits = net(x)
                loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(index)
            hard = y.ndim == 1
            right += (logits.detach().argmax(1) == (y if hard else y.argmax(1))).sum()
            seen += len(index)
        if not torch.isfinite(loss_sum):
            norm = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()
            return Fitted(diverged={"epoch": epoch, "loss": _safe(loss_sum / seen), "grad_norm": _safe(norm)})
        on_epoch(epoch + 1)
    return Fitted(_momentum(parameters, optimizer), (loss_sum / max(seen, 1)).item(), (right / max(seen, 1)).item())


def _safe(value: Tensor) -> float | str:
    number = value.item()
    return number if math.isfinite(number) else str(number)


def _sgd(parameters: dict[str, nn.Parameter], training: Training, momentum: dict[str, Tensor]) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(
        parameters.values(), lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay
    )
    for name, buffer in momentum.items():
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer.to(parameters[name].device).clone()
    return optimizer


def _momentum(parameters: dict[str, nn.Parameter], optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    buffers = {name: optimizer.state[p].get("momentum_buffer") for name, p in parameters.items() if p in optimizer.state}
    return {name: buffer.detach().clone() for name, buffer in buffers.items() if buffer is not None}


def accuracy(
    net: nn.Module, fetch: Callable[[Tensor], tuple[Tensor, Tensor]], n: int, classes: int, batch: int = 500
) -> tuple[float, list[float]]:
    """Return (accuracy, accuracy of each class) in [0, 1] over positions 0..n-1, in eval mode; a class without images has 0."""
    training = net.training
    net.eval()
    right, total = torch.zeros(classes), torch.zeros(classes)
    with torch.no_grad():
        for index in torch.arange(n).split(batch):
            x, y = fetch(index)
            y = y.cpu()
            hit = net(x).argmax(1).cpu() == y
            right += torch.bincount(y, weights=hit.float(), minlength=classes)
            total += torch.bincount(y, minlength=classes)
    net.train(training)
    return (right.sum() / total.sum()).item(), (right / total.clamp_min(1)).tolist()
