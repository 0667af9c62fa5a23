"""What a process is by its birth: what a server must share with a job, and what the job's own process takes over."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dd.warm import NAME

# Variables that may differ: libraries do not read them as they are loaded. Shells and Snakemake set them for each job.
FREE = frozenset((NAME, "_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "TEMPDIR"))
_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_OOM = "/proc/self/oom_score_adj"


def kind() -> dict[str, Any]:
    """Return what a server and a job must have in common, as JSON has it.

    That is the interpreter, where it finds modules, the user, the container, the scheduling policy; and the environment, as each library
    reads its own variables when it is loaded: a job with other numbers of threads gets a process of its own.
    """
    return {
        "python": [sys.executable, sys.version, sys.prefix],
        "options": [list(sys.flags), sorted(map(str, sys._xoptions.items())), sys.warnoptions, sys.stderr.write_through],  # type: ignore[union-attr]
        "path": sys.path,
        "user": [*os.getresuid(), *os.getresgid(), *sorted(os.getgroups())],
        "container": [*(os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "user")), _read("/proc/self/cgroup")],
        "scheduler": os.sched_getscheduler(0),
        "environment": {name: value for name, value in os.environ.items() if name not in FREE},
    }


def taken_over() -> dict[str, Any]:
    """Return what a job's process takes over from its client, as JSON has it; `take_over` does so."""
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "umask": _umask(),
        "limits": [[limit, *resource.getrlimit(limit)] for limit in _LIMITS],
        "cores": sorted(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom": _read(_OOM),
        "ignored": [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_IGN],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }


def take_over(told: dict[str, Any]) -> None:
    """Become what a client's `taken_over` says.

    Raises:
        OSError, ValueError: the system does not let us. KeyError, TypeError: it says something else.
    """
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    os.umask(told["umask"])
    for limit, *wanted in told["limits"]:
        if resource.getrlimit(limit) != tuple(wanted):
            resource.setrlimit(limit, tuple(wanted))
    os.sched_setaffinity(0, told["cores"])
    if os.getpriority(os.PRIO_PROCESS, 0) != told["nice"]:
        os.setpriority(os.PRIO_PROCESS, 0, told["nice"])
    if _read(_OOM) != told["oom"]:
        Path(_OOM).write_text(told["oom"], encoding="ascii")
    for number in _SIGNALS:
        ignored = signal.getsignal(number) is signal.SIG_IGN
        if number in told["ignored"] and not ignored:
            signal.signal(number, signal.SIG_IGN)
        elif ignored and number not in told["ignored"]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, told["blocked"])


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8") as file:
        return file.read()
    return ""


def _umask() -> int:
    """Return the umask, which one learns by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
