"""One head a folder: the Snakemake that works in it holds a lock, by which others learn whether it lives.

The lock is the kernel's, so it ends with the process, however that ends. Network file systems may keep such locks on one host only, hence
the file also names the host, the process and the SLURM job of its holder.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path

from dd.errors import DDError

FILE = Path(".snakemake") / "head.json"
_JOB = os.environ.get("SLURM_JOB_ID")  # now: the plugin takes it out of the environment before it submits


class HeadError(DDError):
    """Another Snakemake works in this folder, or it cannot be told, or SLURM does not answer."""


@dataclass(frozen=True)
class Head:
    """Who works in a folder, or did.

    since: local time, for people. job: the SLURM job that it runs in, if any. submits: whether its own jobs go to SLURM, where they
    outlive it. alive: whether it holds the lock.
    """

    host: str
    pid: int
    since: str
    job: str | None
    submits: bool
    alive: bool

    def __str__(self) -> str:
        """Name it for people."""
        inside = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{inside}, since {self.since}"


def take(folder: Path, submits: bool) -> None:
    """Become the head of a folder until this process ends. Whether another one has ended is for `ended` to say, before.

    Raises:
        HeadError: another process is, or the file cannot be written.
    """
    path = folder.resolve() / FILE
    me = Head(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), _JOB, submits, True)
    try:
        path.parent.mkdir(exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # it is the lock, and stays open
        for _ in range(10):
            if (alone := _lock(file, fcntl.LOCK_EX)) is not False:
                break
            time.sleep(0.1)  # somebody may only be looking
        last = found(folder) if alone is not True else None
        if alone is False or (last and last.alive):
            file.close()
            raise HeadError(_another(last, path))
        file.truncate(0)
        file.write(json.dumps({key: value for key, value in asdict(me).items() if key != "alive"}))
        file.flush()
    except OSError as error:
        raise HeadError(f"{path}: cannot be written: {error.strerror}") from None
    atexit.register(_leave, file, os.getpid())


def found(folder: Path) -> Head | None:
    """Return the head of a folder: one that lives, or one that was killed. None where the last one ended by itself.

    Raises:
        HeadError: the file is damaged.
    """
    path = folder.resolve() / FILE
    try:
        with open(path, "r+", encoding="utf-8") as file:
            free = _lock(file, fcntl.LOCK_SH)  # those who look do not see each other
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HeadError(f"{path}: cannot be read: {error.strerror}") from None
    if not text and free is not False:
        return None
    try:
        known = json.loads(text)
        host, pid = str(known["host"]), int(known["pid"])
        alive = not free if free is not None else _runs(host, pid)
        return Head(host, pid, str(known["since"]), known["job"], bool(known["submits"]), alive)
    except (ValueError, KeyError, TypeError):
        if free is False:
            return Head("an unknown host", 0, "a moment ago", None, True, True)  # it is just writing its name
        raise HeadError(f"{path}: is damaged; make sure that no Snakemake works in this folder, then delete the file") from None


def ended(folder: Path) -> Head | None:
    """Return the last head of a folder if it was killed, None if it ended by itself.

    Raises:
        HeadError: it lives, or whether it does cannot be seen from this host, or SLURM does not answer.
    """
    path, last, here = folder.resolve() / FILE, found(folder), socket.gethostname()
    if last is None:
        return None
    if last.alive:
        raise HeadError(_another(last, path))
    if last.host == here:
        return last  # the lock is free, and a kernel keeps its own locks
    if last.job is not None:
        if last.job in slurm("squeue", "--noheader", "--format=%i").split():
            raise HeadError(f"the earlier Snakemake, {last}, is still in the queue; `scancel {last.job}` ends it")
        return last
    raise HeadError(
        f"the earlier Snakemake was {last}, and whether it has ended cannot be seen from {here}: run this command there. "
        f"If that process has ended for certain, delete {path}"
    )


def slurm(*command: str) -> str:
    """Return what a command of SLURM prints.

    Raises:
        HeadError: there is no such command, or it fails: then nothing is known.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise HeadError(f"{command[0]}: not found: log in to a node of the cluster that submits jobs") from None
    except subprocess.TimeoutExpired:
        raise HeadError(f"{command[0]}: no answer within two minutes; try again when SLURM is back") from None
    if done.returncode != 0:
        raise HeadError(f"{command[0]}: {done.stderr.strip()}; try again when SLURM is back")
    return done.stdout


def _another(last: Head | None, path: Path) -> str:
    """Say that there is another head. Without locks a process may have got the number of a dead one: hence the file."""
    return (
        f"another Snakemake works in this folder: {last}; wait for its end, or stop it with one Ctrl-C. If that process is no Snakemake, "
        f"delete {path}"
    )


def _lock(file: TextIOWrapper, how: int) -> bool | None:
    """Return whether this process has the lock now; None on a file system that has no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _runs(host: str, pid: int) -> bool:
    """Return whether a process of this host, and not this one itself, has that number."""
    return host == socket.gethostname() and pid != os.getpid() and Path(f"/proc/{pid}").exists()


def _leave(file: TextIOWrapper, pid: int) -> None:
    """Take the name away at an orderly end. The file stays: whoever waits for the lock has it open."""
    if os.getpid() == pid:  # not in a child that was forked
        file.truncate(0)
