"""What protocols need before a set can be judged, made small: networks pre-trained on digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dd.config import canonical, digest, hashed, parse
from dd.config.stages import Dataset
from dd.evaluation.protocols._protocol import Protocol
from dd.train.config import PretrainConfig

TAUGHT = {"teacher": {"network": "convnet3_bn_w8", "epochs": 4, "training": {"epochs": 4, "batch": 64}}, "batch": 25}
NARROW = {  # of protocols that look through a network
    "elf": {"features": {"network": "convnet3_in_w8", "epochs": 1}},
    **dict.fromkeys(("sre2l", "sre2l_cifar", "sre2l_short"), TAUGHT),
}


@pytest.fixture(scope="session")
def narrow() -> Callable[[str], dict[str, Any]]:
    """Return `narrow(name)`, the settings with which a protocol's needs are cheap; most need nothing, and keep their own."""
    return lambda name: NARROW.get(name, {})


@pytest.fixture(scope="session")
def supply(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[list[Path]]]:
    """Return `supply(protocol)`, the files of what a protocol needs for a set of digits, each made once."""
    from dd.train.pretrain import pretrain

    root = tmp_path_factory.mktemp("needs")

    def files(protocol: Protocol, lineage: str = "dc", dataset: Path = digits_dir) -> list[list[Path]]:
        groups = []
        for need in protocol.needs("digits", lineage, "train"):
            assert need.kind == "pretrained", "the only kind that a protocol needs today"
            about = {"network": need.network, "training": need.config, "lineage": need.lineage, "split": need.split}
            config = parse(PretrainConfig, {"dataset": hashed(Dataset(name=need.dataset)), **about}, "test")
            group = []
            for epoch in need.epochs:
                outs = [root / f"{digest(hashed(config))}-{canonical([epoch, seed])}.safetensors" for seed in need.seeds or ()]
                pretrain(config, dataset, epoch, need.seeds or (), outs)
                group += outs
            groups.append(group)
        return groups

    return files
