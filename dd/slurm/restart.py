"""Go on after a Snakemake on a cluster was killed: its jobs live on in the queue, and must not meet their own successors."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from dd.errors import ConfigError, nearest
from dd.slurm import head

HOW = ("wait", "cancel")
# Every state in which a job will write nothing any more. Odd ones, such as "revoked", are waited for.
ENDED = frozenset(("BF", "CA", "CD", "DL", "F", "NF", "OOM", "PR", "TO"))


def restart(how: str, snakemake: Sequence[str], every: float = 30) -> NoReturn:
    """Wait for the jobs of a Snakemake that was killed in this folder, or cancel them; then become a new one that goes on.

    Args:
        how: "wait" lets jobs that run finish and cancels none; "cancel" ends them all (they save their state where they can).
        snakemake: its arguments, such as --profile profiles/slurm.
        every: seconds between two looks at the queue.

    Raises:
        ConfigError: `how` is neither.
        HeadError: the other Snakemake still lives, or whether it does cannot be seen from here, or SLURM does not answer.
    """
    if how not in HOW:
        raise ConfigError(f"restart: value {how!r}{nearest(how, HOW)}")
    folder = Path.cwd()
    head.ended(folder)
    jobs = left(folder)
    if jobs:
        doing = "waiting for" if how == "wait" else "cancelling"
        print(f"restart: {doing} {len(jobs)} jobs of the earlier run: {listed(jobs)}", file=sys.stderr, flush=True)
        if how == "cancel":
            head.slurm("scancel", *jobs)
    _until_gone(folder, every)
    head.ended(folder)  # another may have been started meanwhile
    try:
        shutil.rmtree(folder / ".snakemake" / "locks")  # all that `snakemake --unlock` does, after it has planned everything
    except FileNotFoundError:
        pass
    except OSError as error:
        raise head.HeadError(f"{error.filename}: cannot be deleted: {error.strerror}") from None
    os.execvp("snakemake", ["snakemake", *snakemake, "--rerun-incomplete"])  # noqa: S606  # no shell is wanted


def left(folder: Path) -> dict[str, str]:
    """Return the jobs of Snakemake's that are in the queue with this working directory: id -> its owner. A folder may be shared.

    Raises:
        HeadError: SLURM does not answer: then nothing is known.
    """
    text = head.slurm("squeue", "--noheader", "--states=all", "--format=%i|%t|%u|%k|%Z")
    found = {}
    for line in text.splitlines():
        job, state, owner, rest = line.split("|", 3)
        comment, _, place = rest.rpartition("|")
        if state not in ENDED and comment.startswith(("rule_", "group_")) and os.path.realpath(place) == str(folder.resolve()):
            found[job] = owner
    return found


def listed(jobs: Mapping[str, str]) -> str:
    """Name jobs, as `left` returns them, and whose they are where they are not mine."""
    try:
        me = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in a container
        me = str(os.getuid())
    return " ".join(job if owner == me else f"{job} (of {owner})" for job, owner in jobs.items())


def _until_gone(folder: Path, every: float) -> None:
    """Wait until the queue has no jobs of a folder. A queue that does not answer is asked again: the wait may last a night."""
    said = False
    while True:
        try:
            if not left(folder):
                return
        except head.HeadError as error:
            if not said:
                print(f"restart: {error}; asking again every {every:g} seconds", file=sys.stderr, flush=True)
            said = True
        time.sleep(every)
