"""How the numbers of a page were made, from the run.json beside each result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]

# What a page lists of run.json: key -> word. Commit, SLURM and seconds have lines of their own.
LISTED = {
    "host": "hosts", "device": "device", "gpu": "gpu", "threads": "threads", "python": "python", "torch": "torch",
    "torchvision": "torchvision", "numpy": "numpy", "dd": "dd",
}  # fmt: skip


def read(paths: Iterable[str]) -> dict[str, Facts]:
    """Return the run.json files that are there and can be read, by path: none is a result, so none may stop the report."""
    return {path: facts for path in paths if (facts := _read(path)) is not None}


def _read(path: str) -> Facts | None:
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def lines_of(found: Sequence[Facts], total: int, which: str = "") -> list[tuple[str, str]]:
    """Return what is said of some jobs, as (word, text).

    found: their run.json. total: how many jobs there are. which: of which stages.
    """
    lines = [("jobs with a run.json", f"{len(found)} of {total}{f' ({which})' if which else ''}")]
    if not found:
        return lines
    lines.append(("commit", _counted(map(_commit, found))))
    for key, word in LISTED.items():
        values = [str(facts[key]) for facts in found if facts.get(key) is not None]
        if values:
            lines.append((word, _counted(values)))
    slurm = [facts["slurm"] for facts in found if isinstance(facts.get("slurm"), dict)]
    if slurm:
        numbers = len({str(one.get("job")) for one in slurm})
        partitions = sorted({str(one["partition"]) for one in slurm if "partition" in one})
        where = f", partitions {', '.join(partitions)}" if partitions else ""
        lines.append(("SLURM", f"{len(slurm)} of {len(found)} jobs, {numbers} job ids{where}"))
    resumed = [int(facts["resumed"]) for facts in found if facts.get("resumed")]
    if resumed:
        text = f"{len(resumed)} of {len(found)} jobs went on where an earlier run had stopped, at least {sum(resumed)} times in all"
        lines.append(("resumed", text))
    seconds = sum(facts.get("seconds") or 0.0 for facts in found)
    lines.append(("seconds", f"{seconds:.0f}{' (without runs that were killed)' if resumed else ''}"))
    return lines


def mixed(found: Sequence[Facts]) -> list[str]:
    """Return a sentence for each thing in which the jobs of one paper should not differ and do, or that cannot be told."""
    sentences = []
    # A commit of results, or of words, leaves the code as it was.
    commits = _counts(_commit({**facts, "commit": facts.get("code_commit") or facts.get("commit")}) for facts in found)
    if len(commits) > 1:
        sentences.append(f"The results of this paper come from several states of the code: {_listed(commits)}.")
    elif any(facts.get("dirty") for facts in found):
        sentences.append(f"The results of this paper were made with code that is in no commit: {_listed(commits)}.")
    versions = _counts(str(facts["torch"]) for facts in found if facts.get("torch") is not None)
    if len(versions) > 1:
        sentences.append(f"The results of this paper come from several versions of torch: {_listed(versions)}.")
    return sentences


def _commit(facts: Facts) -> str:
    if not facts.get("commit"):
        return "not known"
    return f"{str(facts['commit'])[:12]}{' with changes' if facts.get('dirty') else ''}"


def _counts(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))


def _counted(values: Iterable[str]) -> str:
    counts = _counts(values)
    return _listed(counts) if len(counts) > 1 else "".join(counts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{value} ({count} job{'s' if count > 1 else ''})" for value, count in counts.items())
