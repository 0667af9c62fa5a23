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
from dd.plan.papers import Settings

PLACEHOLDERS = ("ACCOUNT", "CPU_PARTITION", "GPU_PARTITION")  # of the profiles that come with the project
NAMED = {"teacher": "teachers", "generator_file": "generators"}  # stage -> where config.yaml names what it takes
REMEMBERED = 200  # seconds: a little more than the longest time between two looks at the jobs' states
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

    jobs: those that will run. Files of teachers and generators are their inputs: where one is not there, Snakemake plans no job for it, and
    `absent_files` has named it.
    """
    wrong: dict[str, None] = {}
    for job in jobs:
        if job.stage == "prepare":
            name = job.facts["dataset"]
            try:
                check_paths({name: plan.datasets[name]}, "config.yaml: datasets")
            except ConfigError as error:
                wrong[str(error)] = None
        elif job.stage in NAMED and not job.inputs:
            kind, name = NAMED[job.stage], job.facts["name"]
            wrong[f"config.yaml: {kind}: {name} is missing: write {name}: {{path: ...}} (docs/{kind}.md says how to get it)"] = None
    return list(wrong)


def absent_named(settings: Settings, where: str = "config.yaml") -> dict[tuple[str, str], str]:
    """Return (stage, name) -> a line for every file of a teacher or a generator that config.yaml names and that is not there."""
    given = {"teacher": settings.teachers, "generator_file": settings.generators}
    return {
        (stage, name): f"{where}: {NAMED[stage]}.{name}.path: value {file.path!r}: no such file (docs/{NAMED[stage]}.md says how to get it)"
        for stage, files in given.items()
        for name, file in files.items()
        if not Path(file.path).is_file()
    }


def absent_files(plan: Plan) -> list[str]:
    """Return those lines of `absent_named` without whose files a paper of config.yaml's `papers` cannot be finished.

    A file of whose contents all is made already is not asked for, as by Snakemake, which speaks of a missing one while it plans, before
    `onstart`, and names neither the key nor the way to get it.
    """
    lines = absent_named(plan.settings)
    if not lines:
        return []
    jobs = plan.of(plan.settings.papers)
    makers = {path: job for job in jobs for path in job.outputs}
    waiting = [path for job in jobs if job.stage == "artifact" for path in job.outputs]
    found, seen = set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen or path not in makers or Path(path).exists():
            continue
        seen.add(path)
        job = makers[path]
        found.add((job.stage, job.facts.get("name")))
        waiting += job.inputs
    return [line for named, line in lines.items() if named in found]


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
    partitions = _answer("sinfo", "--all", "--noheader", "--format=%P|%l")  # hidden partitions take jobs too
    if isinstance(partitions, NotThere):
        return [*wrong, str(partitions)]
    return wrong + _partitions(asks, partitions, profile)


def preflight(plan: Plan, jobs: Iterable[Job], asks: Sequence[Ask], poll: int, profile: str) -> None:
    """Check what jobs will read and ask for.

    Raises:
        PreflightError: all that is wrong, at once.
    """
    wrong = missing(plan, jobs) + check_cluster(asks, poll, profile)
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
            for value in re.split(r"[,\s]+", str(ask.resources.get(key) or "")):
                if value in PLACEHOLDERS:
                    found.setdefault((key, value), {})[ask.rule] = None
    return [
        f"{profile}: {key}: value {value!r} ({_some(rules)}): is a placeholder; write your site's own "
        "(`sacctmgr show assoc user=$USER` lists accounts, `sinfo` partitions)"
        for (key, value), rules in found.items()
    ]


def _memory_of_jobs(settings: str, poll: int, profile: str) -> list[str]:
    """Check that SLURM remembers a finished job until it is looked at: the plugin waits for ever for one that nobody remembers.

    It asks squeue if MinJobAge is three times `poll` or more, and sacct otherwise. While jobs run and none succeeds, it looks every 180 s.
    """
    values = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", settings, flags=re.MULTILINE))
    found = re.match(r"\d+", values.get("MinJobAge", ""))
    if found is None:
        return []
    age, recorded = int(found[0]), values.get("AccountingStorageType", "").endswith("slurmdbd")
    if age >= max(3 * poll, REMEMBERED) or (age < 3 * poll and recorded):
        return []
    key = f"{profile}: slurm-init-seconds-before-status-checks: value {poll}"
    where = f"{key}: this cluster forgets a finished job after {age} seconds (MinJobAge)"
    if recorded:
        return [f"{where}, and up to 180 can pass between two looks at it; allowed: {age // 3 + 1} or more, so that accounting is asked"]
    if age >= REMEMBERED:
        return [f"{where} and has no accounting (slurmdbd); allowed: 1 to {age // 3}"]
    return [f"{where} and has no accounting (slurmdbd): no value is allowed here; ask your site for a MinJobAge of {REMEMBERED} or more"]


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
        names = re.split(r"[,\s]+", str(given)) if given else [default] if default else []
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
