"""Features that are computed once: what they are, when they are kept, and that resumed runs cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dd import networks
from dd.artifacts import save_tensors
from dd.augment.policies import make
from dd.batches import RealBatch, SiameseBatches
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.load import manifest, pool
from dd.data.pool import RealPool
from dd.distill import Stopped, distill
from dd.evaluation.io import read_distilled
from dd.objectives.distribution import known_features
from dd.parameterizations.pixels import Pixels
from dd.recipes import dm, dsdm
from dd.sources import known
from dd.sources.extractor import Extractor, source
from dd.types import Batch, Inputs

FIXED = {"network": "convnet3_in_w8", "mode": "fixed"}


@pytest.fixture
def real() -> RealPool:
    images = torch.randint(0, 256, (1000, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    return RealPool(images, torch.arange(1000) % 4, 4, [0.5], [0.25])


class Counted(nn.Module):
    """A network that notes the batches it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.net = networks.build("convnet3_in_w4", 1, (8, 8), 4, 0)
        self.sizes: list[int] = []

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return self.net.embed(x)


def counted(real: RealPool, share: int = 1) -> Counted:
    net = Counted()
    known.attach(net, real, share)
    return net


def test_every_image_is_forwarded_once(real: RealPool) -> None:
    net = counted(real)
    some = torch.tensor([999, 3, 255, 3])
    found = net.known.at(some)
    assert sorted(net.sizes) == [232, 256] and not found.requires_grad
    torch.testing.assert_close(found, net.net.embed(real.x(some)).detach(), rtol=1e-4, atol=1e-5)
    every = torch.randperm(1000)
    torch.testing.assert_close(net.known.at(every), net.net.embed(real.x(every)).detach(), rtol=1e-4, atol=1e-5)
    net.known.at(every)
    assert sum(net.sizes) == 1000


def test_a_feature_has_the_same_bits_whatever_was_asked_for_before(real: RealPool) -> None:
    one, other = counted(real), counted(real)
    one.known.at(torch.arange(300, 700))
    for index in (torch.tensor([999]), torch.tensor([5, 800, 40]), torch.arange(1000)):
        other.known.at(index.flip(0)[:1])
        assert torch.equal(one.known.at(index), other.known.at(index))


def test_what_needs_too_much_room_is_not_kept(real: RealPool, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1000 * 4 * net_width(real)
    for share, room, kept in ((1, size, True), (1, size - 1, False), (3, 3 * size - 1, False), (3, 3 * size, True)):
        monkeypatch.setattr(known, "ROOM", room)
        net = counted(real, share)
        for _ in range(2):
            assert (net.known.at(torch.arange(300)) is not None) == kept
        assert len(net.sizes) == (2 if kept else 1)


def net_width(real: RealPool) -> int:
    return Counted().embed(real.x(torch.arange(1))).shape[1]


@pytest.mark.parametrize(
    ("network", "norm", "policy", "applies"),
    [
        ("convnet3_in_w4", "train", "none", True),
        ("convnet3_bn_w4", "eval", "none", True),
        ("convnet3_bn_w4", "train", "none", False),
        ("convnet3_in_w4", "train", "oneof", False),
    ],
)
def test_only_images_alone_and_unaltered_are_known(real: RealPool, network: str, norm: str, policy: str, applies: bool) -> None:
    net = known.attach(networks.build(network, 1, (8, 8), 4, 0).train(norm == "train"), real, 1)
    pixels = Pixels(torch.randn(4, 1, 8, 8), torch.arange(4), 1.0)
    _, batch = SiameseBatches(real, pixels, 4, make(policy, "color"), 5, 0, 0).pair()
    assert isinstance(batch, RealBatch) == (policy == "none")
    found = known_features(net, batch)
    assert (found is not None) == applies
    if found is not None:
        torch.testing.assert_close(found, net.embed(batch.x).detach(), rtol=1e-4, atol=1e-5)
    assert known_features(net, Batch(batch.x, batch.y)) is None


def test_networks_that_come_once_are_not_asked(digits_dir: Path) -> None:
    real = pool(digits_dir, "train", "dc", "cpu")
    inputs = Inputs(digits_dir, manifest(digits_dir), 1, 0, "cpu", [], lambda: real)
    for mode, stays in (("fixed", True), ("dynamic", False)):
        net = source(parse(Extractor, {"network": "convnet3_in_w4", "mode": mode}, "t"), inputs).draw(3)
        assert hasattr(net, "known") == stays


def made(recipe, fields, digits_dir: Path, out: Path, **more):
    name = recipe.__name__.rpartition(".")[2]
    config = parse(recipe.Config, {"batch_real": 16, "iterations": 4, "augment": "none", **fields}, "t")
    distill(
        DistillConfig(dataset=Dataset(name="digits"), method=name, ipc=2, recipe=hashed(config)),
        digits_dir,
        more.pop("paths", []),
        0,
        out,
        **more,
    )
    return read_distilled(out / "distilled.safetensors", digits_dir).images


@pytest.mark.parametrize(("recipe", "fields"), [(dm, {}), (dsdm, {"history_start": 0, "lr_img": 0.1})])
def test_runs_are_the_same_with_and_without_and_if_interrupted(recipe, fields, digits_dir, tmp_path, monkeypatch) -> None:
    pools: list[list[Path]] = []
    fields = {**fields, "extractor": FIXED}
    if recipe is dsdm:  # two frozen networks, of which one is drawn in each round
        fields["extractor"] = {"network": "convnet3_in_w8", "pool": 2, "epochs": 3}
        pools.append([checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in range(2)])
    asked: list[int] = []
    at = known.Known.at
    monkeypatch.setattr(known.Known, "at", lambda self, index: asked.append(len(index)) or at(self, index))
    whole = made(recipe, fields, digits_dir, tmp_path / "whole", paths=pools)
    assert asked == [160] * 4
    while True:
        try:
            parts = made(recipe, fields, digits_dir, tmp_path / "parts", paths=pools, stop=lambda: True)
            break
        except Stopped:
            pass
    assert torch.equal(whole, parts)
    monkeypatch.setattr(known, "ROOM", 0)
    plain = made(recipe, fields, digits_dir, tmp_path / "plain", paths=pools)
    torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-5)


def checkpoint(file: Path, seed: int) -> Path:
    net = networks.build("convnet3_in_w8", 1, (16, 16), 10, seed)
    meta = {"config": {"network": "convnet3_in_w8"}, "channels": 1, "size": [16, 16], "classes": 10, "seed": seed}
    save_tensors(file, {f"model.{name}": value for name, value in net.state_dict().items()}, meta)
    return file
