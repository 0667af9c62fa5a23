"""Values that are chosen from results: which sets compete, where they are judged, and the job that picks one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.config import digest
from dd.plan.job import PATHS, Job
from dd.sources.guides import architecture


@dataclass(frozen=True)
class Judged:
    """One candidate's scores. id: of the evaluation."""

    id: str
    scores: list[str]


def candidates(config: Mapping[str, Any]) -> dict[int, dict[str, Any]] | None:
    """Return what each candidate for the epoch of the guides is judged by, or None where a point leaves nothing to a choice.

    A candidate guides alone: one network of the first architecture, with that architecture's weight, as in Figure 2 of the clom paper;
    its sets are judged by that architecture. On the held-out tenth, neither guides nor sets are trained on those images.
    """
    guidance = config.get("guidance")
    if not guidance or not isinstance(guidance["epochs"], dict):
        return None
    rule, alpha = guidance["epochs"], guidance["alpha"]
    found = {}
    for epoch in rule["candidates"]:
        one = deepcopy(dict(config))
        first = guidance["networks"][0]
        one["guidance"] |= {"networks": [first], "models": 1, "epochs": epoch, "alpha": alpha[0] if isinstance(alpha, list) else alpha}
        one["network"] = architecture(first)
        one.pop("step", None)
        if rule["split"] == "holdout":
            one |= {"split": "fit", "tested_on": "holdout"}
        found[epoch] = one
    return found


def job(judged: Mapping[int, Judged], split: str) -> Job:
    """Return the job that picks the epoch with the largest mean accuracy; the earlier one of equals."""
    config = {"stage": "choose", "version": 1, "criterion": "largest mean accuracy", "split": split,
              "candidates": {str(epoch): one.id for epoch, one in judged.items()}}  # fmt: skip
    config["scores"] = {str(epoch): [Path(path).name for path in one.scores] for epoch, one in judged.items()}  # which sets, which networks
    id_ = digest(config)
    files = {str(epoch): one.scores for epoch, one in judged.items()}
    inputs = list(dict.fromkeys(path for one in judged.values() for path in one.scores))
    return Job("choose", [PATHS["choose"].format(id=id_)], inputs, {**config, "files": files}, ["dd.choose"], {"id": id_})
