"""How Snakemake's head starts the server of a local run."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from typing import Any

from dd.warm import NAME

# What Snakemake sets for a job with one thread, as all have in a local run unless a profile says otherwise.
THREADS = (*(f"{library}_NUM_THREADS" for library in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")), "VECLIB_MAXIMUM_THREADS")
_server: subprocess.Popen[bytes] | None = None  # kept: its standard input closes when this process ends, however it does


def offer(workflow: Any) -> None:
    """Start a server for the jobs of a run, if they run on this machine, and tell them of it in the environment.

    workflow: Snakemake's, as it stands in a Snakefile. Without a server, as where there is no `python` or no pidfd, jobs load torch
    themselves.
    """
    global _server
    if os.environ.get(NAME) == "0":
        return
    os.environ.pop(NAME, None)  # of a Snakemake around this one
    if workflow.executor_plugin.name != "local" or sys.platform != "linux":
        return
    name = f"dd-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        os.close(os.pidfd_open(os.getpid()))  # Linux has it since 5.3, and Python where it was built on such a one
        if not hasattr(signal, "pidfd_send_signal"):
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{name}")  # no file: nothing is left of it after the server's end
            listener.listen(128)
            _server = subprocess.Popen(
                ["python", "-m", "dd.warm.server", str(listener.fileno())],  # as rules call it
                env={**os.environ, **dict.fromkeys(THREADS, "1")},
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()],
                process_group=0,  # Ctrl-C is for the head and its jobs: these go on until they have saved
            )  # fmt: skip
    except (OSError, AttributeError):
        return
    os.environ[NAME] = name
