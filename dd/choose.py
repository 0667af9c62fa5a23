"""Pick a value from the results of its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from dd.artifacts import read_json, set_file, write_json
from dd.config.stages import ChosenStep
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import read_scores

DIGITS = 6  # of accuracies


def choose(config: Mapping[str, Any], out: Path) -> None:
    """Write the candidate whose networks have the largest mean accuracy; of equals, the smallest.

    A network that diverged counts with the accuracy that it had.

    Args:
        config: `files`, candidate -> files of scores; `criterion` and `split`, in words.

    Raises:
        ConfigError: no candidates. ArtifactError: a missing or damaged file.
    """
    if not config["files"]:
        raise ConfigError("choose: files: names no candidates")
    means = {}
    for value, files in config["files"].items():
        means[value] = round(mean(score.accuracy_last for file in files for score in read_scores(Path(file))), DIGITS)
    best = min(means, key=lambda value: (-means[value], int(value)))
    write_json(out, {"value": int(best), "criterion": config["criterion"], "split": config["split"], "candidates": means})


def chosen_step(final: Path, step: int | ChosenStep | None, choice: Path | None) -> Path:
    """Return the file of the set that an evaluation is about: what it is given, or the published step that a choice names.

    Args:
        final: the set after its last update, whose folder has the published ones under `steps`. step: as configured. choice: a file that
            `choose` wrote, where the step is left to it.

    Raises:
        ConfigError: a choice where none is configured, or none where one is. ArtifactError: a choice that is damaged, or another one's.
    """
    if not isinstance(step, ChosenStep):
        if choice is not None:
            raise ConfigError(f"evaluate: step: value {step}: is not left to a choice, but --choice is {choice}; leave it out")
        return final
    if choice is None:
        raise ConfigError("evaluate: step: is left to a choice; --choice must name its file")
    if choice.stem != step.choice:
        raise ArtifactError(f"{choice}: is not the choice {step.choice} that this evaluation waits for")
    found = read_json(choice)
    value = found.get("value") if isinstance(found, dict) else None
    if not isinstance(value, int):
        raise ArtifactError(f"{choice}: is not a file of a choice; delete it and run again")
    return set_file(final.parent, value, step.last)
