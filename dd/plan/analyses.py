"""What an artifact's `analysis` asks for: the networks to look through, at this scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd import networks
from dd.artifacts import set_file
from dd.config import digest, hashed, parse
from dd.config.stages import AnalyseConfig
from dd.errors import ConfigError
from dd.plan.papers import Scale
from dd.plan.supplies import Supplies
from dd.train.config import Training
from dd.types import Need

if TYPE_CHECKING:
    from dd.plan.job import Cell

OF_NETWORKS = ("network", "epochs", "training", "lineage")  # of `analysis`; every other key is a field of AnalyseConfig
OF_PLAN = {"stage", "version", "distilled", "pretrained", "epoch", "step", "earlier"}  # fields of AnalyseConfig that follow from others
CAPS = {"epochs": "recipe.extractor.epochs", "models": "recipe.extractor.pool", "batch": "recipe.batch_real"}


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    distilled: the file of the set; lineage: how images are normalised; modules: its code; changed: what the scale changed, in words.
    """

    config: dict[str, Any]
    distilled: str
    lineage: str
    checkpoints: list[str]
    modules: list[str]
    changed: list[str]

    @property
    def id(self) -> str:
        """Id."""
        return digest(self.config)


def analysis(cell: Cell, wanted: Mapping[str, Any], scale: Scale, dataset: str, supplies: Supplies) -> Analysis:
    """Return an analysis of a cell's first set, and ask for the networks that it looks through.

    Networks are trained on the dataset of the cell, as `analysis` of the paper file says: network, epochs, training (fields of
    `Training`), lineage (whose mean and std), models (seeds 0 to models - 1). Without network, it is the one that the cell is evaluated
    with. Kind `cams` may have a list of epochs, such as [0, 20]: the network before its training, and after. A scale maps the network,
    and caps epochs, models and batch as it caps those of a method's extractors, unless it has caps of their own (`analysis.epochs`, ...).

    Args:
        wanted: `analysis` of the artifact. dataset: the cell's.

    Raises:
        ConfigError: a key is missing, unknown or has a wrong value.
    """
    if "epochs" not in wanted:
        known = sorted({*OF_NETWORKS, *AnalyseConfig.model_fields} - OF_PLAN)
        raise ConfigError(f"analysis: epochs is missing; its keys are {', '.join(known)}")
    several = {"batch": AnalyseConfig.model_fields["batch"].default} if wanted.get("kind") == "models" else {}
    whole = {**several, **wanted}
    whole = {"network": cell.point.config["network"], **whole}
    small = {**_scaled(whole, scale), **({} if "network" in wanted else {"network": whole["network"]})}
    training = hashed(parse(Training, small.get("training", {}), "analysis.training"))
    fields = {key: value for key, value in small.items() if key not in OF_NETWORKS}
    step, network = cell.point.config.get("step"), str(small["network"])
    if isinstance(step, Mapping):
        raise ConfigError("analysis: the step of this point is picked from results; an analysis needs one that is given, or the final set")
    models, epochs = fields.get("models", 1), _epochs(small["epochs"])
    if not isinstance(models, int) or models < 1:
        raise ConfigError(f"analysis: models {models!r}: must be a whole number, from 1")
    lineage = small.get("lineage", "dc")
    need = Need("pretrained", dataset, network, training, tuple(range(models)), epochs, lineage)
    config = hashed(
        parse(
            AnalyseConfig,
            {**fields, "distilled": cell.distilled, "network": network, "pretrained": supplies.id(need), "epoch": epochs[-1],
             "step": step, **({"earlier": epochs[:-1]} if epochs[:-1] else {})},
            "analysis",
        )
    )  # fmt: skip
    return Analysis(
        config,
        str(set_file(Path(cell.sets[0]), step)),
        lineage,
        supplies.ask(need, 0),
        [f"dd.analysis.{config['kind']}", networks.module_of(network)],
        [f"analysis {key} {value}" for key, value in small.items() if value != whole.get(key)],
    )


def _epochs(given: Any) -> tuple[int, ...]:
    """Return the epochs at which networks are looked through, rising, each once."""
    several = given if isinstance(given, (list, tuple)) else [given]
    if not several or not all(isinstance(epoch, int) and epoch >= 0 for epoch in several):
        raise ConfigError(f"analysis: epochs {given!r}: must be a whole number from 0, or a list of such")
    return tuple(sorted(set(several)))


def _scaled(wanted: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    small = dict(wanted)
    small["network"] = scale.map.get("network", {}).get(small["network"], small["network"])
    for key, cap in CAPS.items():
        most = scale.cap.get(f"analysis.{key}", scale.cap.get(cap))
        if isinstance(small.get(key), (int, float)) and most is not None and small[key] > most:
            small[key] = most
        elif isinstance(small.get(key), (list, tuple)) and most is not None:
            small[key] = [min(epoch, most) if isinstance(epoch, (int, float)) else epoch for epoch in small[key]]
    return small
