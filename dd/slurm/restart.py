"""Go on after a Snakemake on a cluster was killed: its jobs live on in the queue, and must not meet their own successors."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dd.errors import ConfigError, DDError, nearest
from dd.slurm import head

HOW = ("wait", "cancel")
# Every state in which a job will write nothing any more. Odd ones, such as "revoked", are waited for.
ENDED = frozenset(("BF", "CA", "CD", "DL", "F", "NF", "OOM", "PR", "TO"))


class RestartError(DDError):
    """It is not safe to go on, or SLURM does not answer."""


def restart(how: str, snakemake: Sequence[str], folder: Path | None = None, every: float = 5) -> int:
    """Wait for the jobs of a killed Snakemake, or cancel them; then replace this process by a new one that goes on.

    Args:
        how: "wait" lets jobs that run finish and cancels none; "cancel" ends them all (they save their state where they can).
        snakemake: its arguments, such as --profile profiles/slurm.
        folder: where it ran; this folder if absent.
        every: seconds between two looks at the queue.

    Returns:
        The status of `snakemake --unlock` if that failed; otherwise it does not return.

    Raises:
        ConfigError: `how` is neither.
        HeadError: the other Snakemake still lives.
        RestartError: whether it lives cannot be seen from here, or SLURM does not answer.
    """
    if how not in HOW:
        raise ConfigError(f"restart: value {how!r}{nearest(how, HOW)}")
    folder = (folder or Path.cwd()).resolve()
    _dead(folder)
    jobs = left(folder)
    if jobs:
        doing = "waiting for" if how == "wait" else "cancelling"
        print(f"restart: {doing} {len(jobs)} jobs of the earlier run: {' '.join(jobs)}", file=sys.stderr, flush=True)
        if how == "cancel":
            _slurm("scancel", *jobs)
    while left(folder):
        time.sleep(every)
    _dead(folder)  # another may have been started meanwhile
    if any((folder / ".snakemake" / "locks").glob("*.lock")):
        done = subprocess.run(["snakemake", *_without_run(snakemake), "--unlock"], cwd=folder)
        if done.returncode != 0:
            return done.returncode
    os.chdir(folder)
    os.execvp("snakemake", ["snakemake", *snakemake, "--rerun-incomplete"])  # noqa: S606  # no shell is wanted


def left(folder: Path) -> dict[str, str]:
    """Return the jobs of Snakemake's that are in the queue with this working directory: id -> rule and wildcards.

    Raises:
        RestartError: SLURM does not answer: then nothing is known.
    """
    text = _slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--states=all", "--format=%i|%t|%k|%Z")
    found = {}
    for line in text.splitlines():
        job, state, rest = line.split("|", 2)
        comment, _, place = rest.rpartition("|")
        if state not in ENDED and comment.startswith(("rule_", "group_")) and os.path.realpath(place) == str(folder.resolve()):
            found[job] = comment
    return found


def _dead(folder: Path) -> None:
    """Raise unless the last head of this folder has ended for certain."""
    last = head.found(folder)
    if last is None:
        return
    if last.alive:
        raise head.HeadError(f"another Snakemake works in this folder: {last}; nothing was done")
    if last.host == socket.gethostname():
        return  # the lock is free, and a kernel keeps its own locks
    if last.job is not None:
        if last.job not in _slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i").split():
            return
        raise RestartError(f"the earlier Snakemake, {last}, is still in the queue; `scancel {last.job}` ends it")
    raise RestartError(
        f"the earlier Snakemake was {last}, and whether it has ended cannot be seen from {socket.gethostname()}: run this command there. "
        f"If that host is gone for good, delete {folder / head.FILE}"
    )


def _without_run(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without a dry run, which unlocks nothing."""
    return [argument for argument in arguments if argument not in ("-n", "--dry-run", "--dryrun")]


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise RestartError(f"{command[0]}: not found: log in to a node of the cluster that submits jobs") from None
    except subprocess.TimeoutExpired:
        raise RestartError(f"{command[0]}: no answer within two minutes; nothing was done, try again when SLURM is back") from None
    if done.returncode != 0:
        raise RestartError(f"{command[0]}: {done.stderr.strip()}; nothing was done, try again when SLURM is back")
    return done.stdout
