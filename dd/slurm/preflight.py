"""What can be known to be wrong before the first job is submitted: missing files, words that nobody replaced, impossible limits."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dd.data.config import check_paths
from dd.errors import ConfigError, nearest
from dd.plan import Job, Plan

PLACEHOLDERS = ("ACCOUNT", "CPU_PARTITION", "GPU_PARTITION")  # of the profiles that come with the project
ASKED = ("slurm_account", "slurm_partition", "qos", "constraint")


class PreflightError(ConfigError):
    """Something would go wrong on the cluster."""


@dataclass(frozen=True)
class Ask:
    """What jobs of a rule ask of the scheduler in one attempt. resources: by the profile's names; runtime in minutes."""

    rule: str
    attempt: int
    resources: dict[str, Any]


def missing(plan: Plan, jobs: Iterable[Job]) -> list[str]:
    """Return a line for every file and folder of the user's that one of these jobs needs and that is not there.

    jobs: those that will run; one whose outputs are all there already needs nothing.
    """
    wrong: dict[str, None] = {}
    for job in jobs:
        if all(Path(path).exists() for path in job.outputs):
            continue
        if job.stage == "prepare":
            name = job.facts["dataset"]
            try:
                check_paths({name: plan.datasets[name]}, "config.yaml: datasets")
            except ConfigError as error:
                wrong[str(error)] = None
        elif job.stage in ("teacher", "generator_file"):
            kind, name = {"teacher": "teachers", "generator_file": "generators"}[job.stage], job.facts["name"]
            if not job.inputs:
                wrong[f"config.yaml: {kind}: {name} is missing: write {name}: {{path: ...}} (docs/{kind}.md says how to get it)"] = None
            wrong |= {
                f"config.yaml: {kind}.{name}.path: value {path!r}: no such file (docs/{kind}.md says how to get it)": None
                for path in job.inputs
                if not Path(path).is_file()
            }
    return list(wrong)


def check_cluster(asks: Sequence[Ask], poll: int, profile: str = "the profile") -> list[str]:
    """Return a line for everything that the cluster would refuse, or leave waiting for ever.

    Args:
        asks: what jobs will ask for, by rule and attempt.
        poll: seconds between two looks at the jobs' states (`slurm-init-seconds-before-status-checks`).
        profile: how to name the place where the values stand.
    """
    wrong = _placeholders(asks, profile)
    settings = _answer("scontrol", "show", "config")
    if isinstance(settings, NotThere):
        return [*wrong, str(settings)]
    wrong += _memory_of_jobs(settings, poll, profile)
    partitions = _answer("sinfo", "--noheader", "--format=%P|%l")
    if isinstance(partitions, NotThere):
        return [*wrong, str(partitions)]
    return wrong + _partitions(asks, partitions, profile)


def preflight(plan: Plan, jobs: Iterable[Job], asks: Sequence[Ask], poll: int) -> None:
    """Check what jobs will read and ask for.

    Raises:
        PreflightError: all that is wrong, at once.
    """
    wrong = missing(plan, jobs) + check_cluster(asks, poll)
    if wrong:
        raise PreflightError("\n".join(["nothing was submitted:", *wrong]))


class NotThere(str):
    """Why a command of SLURM gave no answer."""


def _answer(*command: str) -> str:
    """Return what a command of SLURM prints, or `NotThere`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return NotThere(f"{command[0]}: not found: this machine has no SLURM; log in to a node of the cluster that submits jobs")
    except subprocess.TimeoutExpired:
        return NotThere(f"{' '.join(command)}: no answer within a minute; try again when SLURM is back")
    if done.returncode != 0:
        return NotThere(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}; try again when SLURM is back")
    return done.stdout


def _placeholders(asks: Iterable[Ask], profile: str) -> list[str]:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for ask in asks:
        for key in ASKED:
            value = str(ask.resources.get(key) or "")
            if value in PLACEHOLDERS:
                found.setdefault((key, value), {})[ask.rule] = None
    return [
        f"{profile}: {key}: value {value!r} ({_some(rules)}): is a placeholder; write your site's own "
        "(`sacctmgr show assoc user=$USER` lists accounts, `sinfo` partitions)"
        for (key, value), rules in found.items()
    ]


def _memory_of_jobs(settings: str, poll: int, profile: str) -> list[str]:
    """Check that SLURM remembers a finished job until it is looked at, where nothing else does."""
    values = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", settings, flags=re.MULTILINE))
    age = re.match(r"\d+", values.get("MinJobAge", ""))
    if age is None or int(age[0]) >= 3 * poll or not values.get("AccountingStorageType", "").endswith("none"):
        return []
    return [
        f"{profile}: slurm-init-seconds-before-status-checks: value {poll}: this cluster has no accounting and forgets a finished job "
        f"after {age[0]} seconds (MinJobAge); allowed: 1 to {int(age[0]) // 3}"
    ]


def _partitions(asks: Iterable[Ask], text: str, profile: str) -> list[str]:
    """Check the names of partitions, and that no job asks for more time than its partition ever gives."""
    limits: dict[str, int | None] = {}
    default = None
    for line in text.splitlines():
        name, _, limit = line.strip().partition("|")
        if name.endswith("*"):
            name = default = name[:-1]
        limits[name] = minutes(limit)
    wrong: dict[tuple[str, str], dict[str, None]] = {}
    for ask in asks:
        given = ask.resources.get("slurm_partition")
        names = str(given).split(",") if given else [default] if default else []
        for name in names:
            if name in limits:
                continue
            if name not in PLACEHOLDERS:  # that is said already
                wrong.setdefault((f"slurm_partition: value {name!r}", f"no such partition{nearest(name, limits)}"), {})[ask.rule] = None
        known = [limits[name] for name in names if name in limits]
        runtime = ask.resources.get("runtime")
        if known and isinstance(runtime, int) and all(limit is not None and runtime > limit for limit in known):
            longest = max(limit for limit in known if limit is not None)
            where = f"runtime: value {runtime} minutes in attempt {ask.attempt}"
            reason = f"partition {','.join(map(str, names))} allows {longest}; such a job would wait for ever. Write min(..., {longest})"
            wrong.setdefault((where, reason), {})[ask.rule] = None
    return [f"{profile}: {where} ({_some(rules)}): {reason}" for (where, reason), rules in wrong.items()]


def minutes(limit: str) -> int | None:
    """Return SLURM's way to write a time limit ([days-]hours:minutes:seconds, minutes:seconds) as whole minutes; None: there is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit.strip())
    if match is None:
        return None
    days, hours, mins, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + mins


def _some(rules: Iterable[str]) -> str:
    """Name a few of many rules."""
    names = list(rules)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
