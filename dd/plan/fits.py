"""Whether the networks of a plan fit what their protocols teach them: found before anything is trained. Builds networks, so it is slow."""

from __future__ import annotations

from collections.abc import Iterator

from dd import evaluation
from dd.config import canonical, parse
from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.plan.jobs import Plan


def misfits(plan: Plan, where: str) -> Iterator[str]:
    """Yield what is wrong with evaluations on registered datasets, each thing once; the shapes of others are not known beforehand."""
    seen = set()
    for job in plan.stage("evaluate"):
        config, known = job.config, DATASETS.get(job.facts["dataset"])
        about = (config["network"], config["protocol"], canonical(config["settings"]), job.facts["dataset"])
        if known is None or about in seen:
            continue
        seen.add(about)
        protocol = parse(evaluation.config_of(config["protocol"]), config["settings"], where)
        try:
            protocol.check(config["network"], (known.channels, *known.size), len(known.classes))
        except ConfigError as error:
            yield f"{where}: on {known.name}: {error}"
