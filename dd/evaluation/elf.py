"""What students learn from features of a distilled set: the distances and losses of ELF, and where networks are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dd import networks
from dd.errors import ConfigError
from dd.train.pretrain import check_trained, load_network

if TYPE_CHECKING:
    from dd.evaluation.protocols.elf import Elf
    from dd.train.supervised import Fetch, Loss

Shape = tuple[int, ...]
BATCH = 500  # images of the set whose features are computed at once
# The stage that ends the front, by family: of ResNet-18 the first block of 512 channels at 32x32 and the last one of 256 at 64x64; of
# VGG-11 the fifth convolution at 32x32 and the sixth, with its pooling, at 64x64. Of a ConvNet it is the last block.
SPLITS = {"resnet": 7, "resnet18_torchvision": 6, "vgg": 4}
SPLIT_VGG_IMAGENET = 5


def distance(kind: str, s: Tensor, f: Tensor) -> Tensor:
    r"""Return the scalar distance D of student features s from features f, both (n, c, h, w) or (n, c), or (n, t, c) of tokens.

    ce: the released default, :math:`-\frac{1}{n h w} \sum_{b, p} \sum_c f_{b c p} \log softmax_c(s_{b \cdot p})`: features as they are,
    neither probabilities nor scaled, are targets over channels. Its gradient at a place is weighted by the sum of its features, so with
    weight 1 it outweighs the other losses by far; s is drawn towards log f, but for a constant at each place.
    mae, mse: mean absolute and mean squared difference of all entries. cos: 1 - <s, f> / (|s| |f| + 1e-6), of the whole mini-batch as
    one vector.
    """
    if kind == "ce":
        return F.cross_entropy(s.mT, f.mT) if s.ndim == 3 else F.cross_entropy(s, f)  # tokens have their channels last
    if kind == "cos":
        return 1 - (s * f).sum() / (s.norm() * f.norm() + 1e-6)
    return F.l1_loss(s, f) if kind == "mae" else F.mse_loss(s, f)


class Lessons:
    """Features of a set's images, and the loss that they teach by.

    protocol: weights, distance, and which network the features are of. file: its checkpoint. facts: manifest of the set's dataset. fetch:
    un-augmented, normalised images of the set by position, n in all.

    Attributes:
        features: (n, ...) float32, on the device; in memory for the whole of the evaluation.
        detail: what is noted beside every score: `feature_bytes`, what storing the features takes; `features_diverged`, where and how,
            if the feature network did.

    Raises:
        ArtifactError: the checkpoint is damaged, or not that of the protocol's feature network on this dataset.
    """

    def __init__(self, protocol: Elf, file: Path, facts: Mapping[str, Any], fetch: Fetch, n: int, device: str) -> None:
        self.protocol = protocol
        net, diverged = _network(protocol, file, facts)
        net.to(device)
        stage = _feature_stage(protocol, _shapes(net, (facts["channels"], *facts["size"])))
        self.features = features(net, fetch, n, stage, device)
        self.detail: dict[str, Any] = {"feature_bytes": self.features.numel() * self.features.element_size()}
        if diverged is not None:
            self.detail["features_diverged"] = diverged

    def loss(self, name: str, net: nn.Module, shape: tuple[int, int, int]) -> Loss:
        """Return the loss of a student, a network called `name` for (c, h, w) images.

        Raises:
            ConfigError: no stage of it is of the features' shape, or the one that the protocol names is not.
        """
        stage = split(name, _shapes(net, shape), tuple(self.features.shape[1:]), self.protocol)
        return student_loss(self.features, stage, self.protocol)


def student_loss(features: Tensor, stage: int, weights: Elf) -> Loss:
    """Return ELF's loss (Eqs. 6 to 9) for a student whose front ends after `stage`.

    features: of all images of the set, by position; weights: `task`, `front`, `rear`, and the `distance`. In training mode, batch
    normalisation of the rear sees the augmented images first and the features second, and remembers both.
    """

    def loss(net: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        outputs = net.stages(x)
        logits: Tensor = net.rear(outputs[-1], len(outputs) - 1)
        f, parts = features[index], []
        if weights.task:
            parts.append(weights.task * F.cross_entropy(logits, y))
        if weights.rear:
            parts.append(weights.rear * F.cross_entropy(net.rear(f, stage), y))
        if weights.front:
            parts.append(weights.front * distance(weights.distance, outputs[stage], f))
        return torch.stack(parts).sum(), logits

    return loss


def features(net: nn.Module, fetch: Fetch, n: int, stage: int, device: str) -> Tensor:
    """Return the output of a stage for n images, (n, ...), in eval mode and without gradients."""
    net.eval()
    with torch.no_grad():
        return torch.cat([net.stages(fetch(index)[0])[stage] for index in torch.arange(n, device=device).split(BATCH)])


def published_split(name: str) -> int | None:
    """Return the stage after which ELF splits a network, or None for families that the paper does not have."""
    family, fields = networks.module_of(name).rpartition(".")[2], networks.parse(name)
    if family == "convnet":
        return int(fields["depth"]) - 1
    if family == "vgg" and fields.get("form") == "imagenet":
        return SPLIT_VGG_IMAGENET
    return SPLITS.get(family)


def split(name: str, shapes: Sequence[Shape], wanted: Shape, protocol: Elf) -> int:
    """Return the stage after which a student's front ends.

    shapes: of its stages. wanted: that of the features. The protocol's `stage`, or else the published one, or of other families the last
    one that fits.

    Raises:
        ConfigError: that stage is not of the wanted shape, or none is; the message lists those that are.
    """
    fits = [stage for stage, shape in enumerate(shapes) if shape == wanted]
    stage = protocol.stage if protocol.stage is not None else published_split(name)
    if stage is None and fits:
        return fits[-1]
    if stage in fits:
        return int(stage)  # type: ignore[arg-type]  # not None: it is in the list
    own = f"features of {protocol.features.network} are {_text(wanted)}"
    what = f"protocol elf: {name}: {own}"
    if stage is not None:
        there = f"gives {_text(shapes[stage])}" if stage < len(shapes) else "is not there"
        which = f"stage: value {stage}: that stage" if protocol.stage is not None else f"the published stage {stage}"
        what = f"protocol elf: {which} of {name} {there}, {own}"
    if fits:
        raise ConfigError(f"{what}; stages of {name} that fit: {', '.join(map(str, fits))}; set stage to one of them")
    every = ", ".join(f"{number} {_text(shape)}" for number, shape in enumerate(shapes))
    raise ConfigError(f"{what}; no stage of {name} fits: {every}. Take a features.network whose last block has one of these shapes")


def check(protocol: Elf, network: str, shape: tuple[int, int, int], classes: int) -> None:
    """Check that a student can learn from the protocol's features of (c, h, w) images, without computing anything; see `split`.

    Raises:
        ConfigError: it cannot.
    """
    own = _counted(protocol.features.network, shape, classes)
    split(network, _counted(network, shape, classes), own[_feature_stage(protocol, own)], protocol)


def _feature_stage(protocol: Elf, shapes: Sequence[Shape]) -> int:
    one = protocol.features
    stage = one.stage if one.stage is not None else published_split(one.network)
    if stage is None or stage >= len(shapes):
        what = "is missing: the paper does not have this family" if stage is None else f"value {stage}: {one.network} has no such stage"
        every = ", ".join(f"{number} {_text(shape)}" for number, shape in enumerate(shapes))
        raise ConfigError(f"protocol elf: features.stage: {what}; its stages: {every}")
    return stage


def _network(protocol: Elf, file: Path, facts: Mapping[str, Any]) -> tuple[nn.Module, Any]:
    """Return the feature network, and what its file says of how it diverged, if it did."""
    one = protocol.features
    wanted = {"network": one.network, "epoch": one.epochs, "fingerprint": facts["fingerprint"], "training": one.trained()}
    diverged = check_trained(file, wanted).get("diverged")
    return load_network(file), diverged


def _shapes(net: nn.Module, shape: tuple[int, int, int]) -> list[Shape]:
    training = net.training
    net.eval()
    with torch.no_grad():
        found = [tuple(h.shape[1:]) for h in net.stages(next(net.parameters()).new_zeros(1, *shape))]
    net.train(training)
    return found


@cache
def _counted(name: str, shape: tuple[int, int, int], classes: int) -> list[Shape]:
    with torch.device("meta"):
        return _shapes(networks.build(name, shape[0], shape[1:], classes), shape)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
