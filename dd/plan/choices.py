"""Values that are chosen from results: which sets compete, where they are judged, and the job that picks one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd import recipes
from dd.config import digest
from dd.errors import ConfigError
from dd.plan.job import PATHS, Job
from dd.sources.guides import architecture

HELD_OUT = {"split": "fit", "tested_on": "holdout"}  # neither sets nor guides are shown the images that they are judged on


@dataclass(frozen=True)
class Judged:
    """One candidate's scores. id: of the evaluation, or of those of several judges, joined."""

    id: str
    scores: list[str]


@dataclass(frozen=True)
class Competition:
    """What is left to a choice: the epoch of the guides (`guidance`) or which published step counts (`step`).

    candidates: value -> the configurations that it is judged by, one for each judge. split: the images it is judged on. last: of steps,
    the final set's.
    """

    of: str
    candidates: dict[int, list[dict[str, Any]]]
    split: str
    last: int = 0


def competition(config: Mapping[str, Any]) -> Competition | None:
    """Return what a point leaves to a choice, or None where there is nothing to choose.

    Raises:
        ConfigError: it leaves both, the epoch of the guides and the step.
    """
    guidance = config.get("guidance")
    if guidance and isinstance(guidance["epochs"], dict) and isinstance(config.get("step"), dict):
        raise ConfigError("step, guidance.epochs: both are left to a choice; give one of them")
    if guidance and isinstance(guidance["epochs"], dict):
        return Competition("guidance", _guides(config), guidance["epochs"]["split"])
    if isinstance(config.get("step"), dict):
        return Competition("step", _steps(config), config["step"]["split"], config["recipe"]["iterations"])
    return None


def _steps(config: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return what each published step, and the final set, is judged by.

    On the held-out tenth, candidates are steps of other runs, of the same seeds, that were not shown those images; what is picked is
    then used of the runs on all of train. `judges` are networks, each with fields of the protocol that it has of its own; without them
    it is the network that the point is evaluated with.
    """
    rule, last = config["step"], config["recipe"]["iterations"]
    judges = rule.get("judges") or {config["network"]: {}}
    found = {}
    for step in dict.fromkeys([*recipes.published(config["method"], config["recipe"]), last]):
        if step == 0:
            continue  # what a run begins with is no result of it
        held = HELD_OUT if rule["split"] == "holdout" else {}
        one = {**config, "step": None if step == last else step, **held}
        found[step] = [{**one, "network": name, "protocol": {**config["protocol"], **own}} for name, own in judges.items()]
    return found


def _guides(config: Mapping[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Return what each candidate for the epoch of the guides is judged by.

    A candidate guides alone: one network of the first architecture, with that architecture's weight, as in Figure 2 of the clom paper;
    its sets are judged by that architecture. On the held-out tenth, neither guides nor sets are trained on those images.
    """
    guidance = config["guidance"]
    rule, alpha = guidance["epochs"], guidance["alpha"]
    found = {}
    for epoch in rule["candidates"]:
        one, first = dict(config), guidance["networks"][0]
        alone = {"networks": [first], "models": 1, "epochs": epoch, "alpha": alpha[0] if isinstance(alpha, list) else alpha}
        one["guidance"] = {**guidance, **alone}
        one["network"] = architecture(first)
        one.pop("step", None)
        if rule["split"] == "holdout":
            one |= HELD_OUT
        found[epoch] = [one]
    return found


def job(judged: Mapping[int, Judged], split: str) -> Job:
    """Return the job that picks the epoch, or the step, with the largest mean accuracy; the earlier one of equals."""
    config = {"stage": "choose", "version": 1, "criterion": "largest mean accuracy", "split": split,
              "candidates": {str(value): one.id for value, one in judged.items()}}  # fmt: skip
    config["scores"] = {str(value): [Path(path).name for path in one.scores] for value, one in judged.items()}  # which sets, which networks
    id_ = digest(config)
    files = {str(value): one.scores for value, one in judged.items()}
    inputs = list(dict.fromkeys(path for one in judged.values() for path in one.scores))
    return Job("choose", [PATHS["choose"].format(id=id_)], inputs, {**config, "files": files}, ["dd.choose"], {"id": id_})
