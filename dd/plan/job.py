"""A job of the graph, and where its files stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dd.config import canonical
from dd.plan.code import code_id
from dd.plan.points import Point

PATHS = {
    "download": "data/raw/{dataset}/{file}",
    "prepare": "data/prepared/{dataset}/manifest.json",
    "whiten": "data/prepared/{dataset}/zca.safetensors",
    "teacher": "data/teachers/{name}.safetensors",
    "pretrain": "results/pretrained/{dataset}/{network}/{id}/epoch{epoch}/seed{seed}.safetensors",
    "generator": "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.safetensors",
    "generator_file": "results/generators/files/{name}.safetensors",
    "quality": "results/generators/{dataset}/{generator}/{id}/epoch{epoch}.quality.json",
    "experts": "results/experts/{dataset}/{network}/{id}/expert{seed}.safetensors",
    "distill": "results/distilled/{dataset}/{method}/ipc{ipc}-{id}/seed{seed}/distilled.safetensors",
    "evaluate": "results/scores/{distilled}/{network}-{protocol}-{id}/set{set}-nets{first}-{last}.json",
    "analyse": "results/analyses/{distilled}/{kind}-{id}/set{set}.safetensors",
    "choose": "results/choices/{id}.json",
    "artifact": "results/papers/{scale}/{paper}/claims.json",
}
DRAWN = ("csv", "md", "png", "pdf")


@dataclass
class Job:
    """One call of `python -m dd`. config: what is hashed; modules: the code it runs, beyond what the config names."""

    stage: str
    outputs: list[str]
    inputs: list[str]
    config: dict[str, Any]
    modules: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The configuration as canonical JSON, as the job reads it."""
        return canonical(self.config)

    @property
    def code(self) -> str:
        """Identity of the code."""
        return code_id(self.modules)


@dataclass
class Cell:
    """A point with the ids and files of its results. choice: where the epoch of its guides is chosen."""

    point: Point
    distilled: str
    evaluated: str
    sets: list[str]
    scores: list[str]
    analysis: str | None = None
    choice: str | None = None
