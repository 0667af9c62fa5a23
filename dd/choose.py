"""Pick a value from the results of its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from dd.artifacts import write_json
from dd.errors import ConfigError
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
