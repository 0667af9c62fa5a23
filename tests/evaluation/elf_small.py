"""ELF made small, for digits."""

from __future__ import annotations

from typing import Any

from dd.config import parse
from dd.evaluation.protocols.elf import Elf

NET = "convnet3_in_w8"
SMALL = {"features": {"network": NET, "epochs": 1}, "epochs": 3, "lr": 0.02}


def settings(**fields: Any) -> Elf:
    return parse(Elf, {**SMALL, **fields}, "test")
