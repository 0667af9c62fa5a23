"""What `dd check` says of a paper's drawings and claims before anything has run."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dd.errors import ConfigError, nearest
from dd.figures import cams, losses, normalised, seconds_ratio, transition
from dd.figures.checks import judge
from dd.figures.claims import load_claims
from dd.figures.paper import OTHERS, OVER_CELLS
from dd.figures.reported import load_gains, load_reported, load_times
from dd.figures.results import Point
from dd.figures.selection import agrees
from dd.figures.values import NOT_RUN

# kind -> what is wrong with an artifact of it, beyond coordinates that no point has
OWN = {"cams": cams.misfits, "losses": losses.misfits, "normalised": normalised.misfits, "seconds_ratio": seconds_ratio.misfits,
       "transition": transition.misfits}  # fmt: skip


def mistakes(job: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield every mistake in the looks, the reported rows and the claims of one paper.

    Args:
        job: what `Plan.drawing` returns at scale paper, where no point is left out. where: the paper's file.
    """
    for artifact in job["artifacts"]:
        yield from _looks(artifact, f"{where}: artifacts.{artifact['name']}")
    try:
        if Path(job["reported"]).exists():
            load_gains(Path(job["reported"]))
            load_times(Path(job["reported"]))
            load_reported(Path(job["reported"]), {str(name) for one in job["artifacts"] for name in one.get("reported") or ()})
        if job["claims"]:
            yield from _claims(job)
    except ConfigError as error:
        yield str(error)


def _looks(artifact: Mapping[str, Any], where: str) -> Iterator[str]:
    kinds = (*OVER_CELLS, *OTHERS)
    if artifact["kind"] not in kinds:
        yield f"{where}: kind: value {artifact['kind']!r}{nearest(artifact['kind'], kinds)}"
    known = {name for cell in artifact["cells"] for name in cell["at"]}
    if not known:
        return
    if artifact["kind"] in OWN:
        yield from (f"{where}: {said}" for said in OWN[artifact["kind"]](artifact))
    for key in ("x", "hue", "panel", "rows", "columns", "mean_gain", "baseline"):
        value = artifact.get(key)
        for name in [value] if isinstance(value, str) else value or ():
            if name not in known:
                yield f"{where}: {key}: no point has a coordinate {name!r}{nearest(name, known)}"
    if (artifact.get("gain") or artifact.get("mean_gain")) and not artifact.get("baseline"):
        yield f"{where}: gain: is measured against a baseline; name its coordinates, such as baseline: {{guidance: null}}"
    wanted = artifact.get("baseline") or {}
    if wanted and wanted.keys() <= known and not any(agrees(cell["at"], wanted) for cell in artifact["cells"]):
        yield f"{where}: baseline: no point has these coordinates"
    every = set.intersection(*({*cell["at"]} for cell in artifact["cells"]))
    for _, name, _, _ in string.Formatter().parse(str(artifact.get("label") or "")):
        if name is not None and name not in every:
            yield f"{where}: label: not every point has a coordinate {name!r}{nearest(name, every)}"


def _claims(job: Mapping[str, Any]) -> Iterator[str]:
    """Yield claims that no cell, or not each of the cells that they name, could ever be judged on; cells that wait count."""
    cells = [
        (str(one["name"]), Point(cell["at"], 1.0, 1.0, 1.0, error=0.0, runs=((1.0, False),) * 2, id=cell["id"], score_id=cell["score_id"]))
        for one in job["artifacts"]
        for cell in [*one["cells"], *(dict(later, id="", score_id="") for later in one.get("pending") or ())]
    ]
    for claim in load_claims(Path(job["claims"])).of(str(job["paper"]))[1]:
        found = judge(claim, cells)
        if found.verdict == NOT_RUN or NOT_RUN in found.reason:
            yield f"{job['claims']}: claims: {claim.id}: the paper's file has not all of its cells: {found.reason}"
