"""Results on disk by their ids, asked for now or not: of other scales, and of configurations that were."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.plan.reasons import flat
from dd.plan.recorded import recorded

ID = re.compile(r"(?:^|-)([0-9a-f]{8})$")
# Stage -> where the folders or files that carry an id stand, and which file in them to look at.
PLACES = {
    "distill": ("results/distilled/*/*/ipc*-*", "seed*/distilled.safetensors"),
    "evaluate": ("results/scores/*/*", "set*-nets*.json"),
    "pretrain": ("results/pretrained/*/*/*", "epoch*/seed*.safetensors"),
    "experts": ("results/experts/*/*/*", "expert*.safetensors"),
    "generator": ("results/generators/*/*/*", "epoch*.safetensors"),
    "analyse": ("results/analyses/*/*", "set*.safetensors"),
}


@dataclass(frozen=True)
class Known:
    """A result that is there. path: one of its files. config: as it was hashed; None where nothing tells it."""

    id: str
    stage: str
    path: str
    config: dict[str, Any] | None


def results(stages: tuple[str, ...] = tuple(PLACES), root: Path = Path(".")) -> Iterator[Known]:
    """Yield every result of some stages that is on disk, one for each id; their configurations are read as they come."""
    rows = _index(root)
    for stage in stages:
        folders, files = PLACES[stage]
        for folder in sorted(root.glob(folders)):
            found = ID.search(folder.name)
            there = (path for path in folder.glob(files) if not path.name.endswith("run.json"))  # a note is no result
            file = min(there, default=None) if found else None
            if found and file is not None:
                yield Known(found[1], stage, str(file.relative_to(root)), _config(stage, file, root) or rows.get((stage, found[1])))


def _config(stage: str, file: Path, root: Path) -> dict[str, Any] | None:
    """Return the configuration of a result: what is written beside it or in it, else what Snakemake recorded."""
    try:
        if stage == "distill":
            return dict(json.loads(file.with_name("config.json").read_text(encoding="utf-8")))
        if stage == "evaluate":
            return dict(json.loads(file.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    record = recorded(file.relative_to(root), root)
    return next((one for one in record.objects() if one.get("stage") == stage), None) if record else None


def _index(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the configurations that results/index.csv lists, by stage and id."""
    try:
        with (root / "results" / "index.csv").open(encoding="utf-8", newline="") as file:
            return {(row["stage"], row["id"]): json.loads(row["config"]) for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def closest_to(config: dict[str, Any], others: Iterable[Known], stage: str) -> Known | None:
    """Return the result of the same stage, dataset, method, images per class, network and protocol that differs least, if there is one."""
    same = ("dataset", "method", "ipc", "network", "protocol", "kind", "generator")
    mine = flat(config)
    heads = {key: value for key, value in mine.items() if key in same or key == "dataset.name"}
    best: tuple[int, Known] | None = None
    for one in others:
        if one.stage != stage or one.config is None:
            continue
        theirs = flat(one.config)
        if any(theirs.get(key) != value for key, value in heads.items()):
            continue
        distance = len(set(mine.items()) ^ set(theirs.items()))
        if best is None or distance < best[0]:
            best = (distance, one)
    return best[1] if best else None
