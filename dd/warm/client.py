"""The process that a rule starts, where a server does its job: it hands over what it is, passes signals on, and ends as the job ends.

A server that is not there, that is another's, that does not answer or does not want to costs nothing but time: the process then does its
job itself. Light imports only: all jobs wait for them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from dd.warm import GO, HELLO, NAME, PATIENCE, READY
from dd.warm.place import kind, taken_over

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTSTP)


def ask(argv: Sequence[str]) -> None:
    """Have the server that the environment names do a job, and end as it does; return where this process must do it.

    argv: what follows `python -m dd`.
    """
    name = os.environ.get(NAME, "0")
    if name == "0" or sys.platform != "linux" or None in (sys.stdin, sys.stdout, sys.stderr):  # a closed one cannot be handed over
        return
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.settimeout(PATIENCE)
            server.connect(f"\0{name}")
            if owner(server) != os.getuid():
                return
            alive, job, blocked = _agreed(server, argv)  # the job is killed when the pipe `alive` has no end any more: with this process
        except Exception:  # whatever it was, nobody does the job yet
            return
        _forward(job, blocked)
        server.settimeout(None)
        status = _awaited(server)
    os.close(alive)
    if status < 0:
        _die(-status)
    os._exit(status)


def owner(peer: socket.socket) -> int:
    """Return the user at the other end of a connection."""
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1])


def _agreed(server: socket.socket, argv: Sequence[str]) -> tuple[int, int, set[int]]:
    """Agree on the job with a process that the server forked; return the pipe that keeps it alive, its pidfd, the blocked signals.

    Blocked are those that were; from then on `FORWARDED` are as well, so that none is lost before `_forward`.

    Raises:
        Exception: there is no such process, or it does not want to.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    watched, alive = os.pipe()
    try:
        said, files, *_ = socket.recv_fds(server, len(HELLO), 1, socket.MSG_CMSG_CLOEXEC)
        if said != HELLO or not files:  # before we send files: in a queue that nobody reads they would stay open
            raise ValueError("refused")
        body = json.dumps({"kind": kind(), "argv": [sys.argv[0], *argv], **taken_over()}).encode()
        socket.send_fds(server, [struct.pack("<I", len(body))], [0, 1, 2, watched])
        server.sendall(body)
        if server.recv(len(READY)) != READY:
            raise ValueError("refused")
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        server.sendall(GO)
    except BaseException:
        os.close(alive)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        raise
    finally:
        os.close(watched)
    return alive, files[0], blocked


def _forward(job: int, blocked: set[int]) -> None:
    """Pass signals on to the job, which is in no process group of ours: each reaches it once, whoever was meant.

    Also those that we ignore: the job may have a handler of its own. blocked: the signals that stay blocked.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        stops = number == signal.SIGTSTP  # Ctrl-Z; a process without a terminal's job control takes no notice of that one
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(job, signal.SIGSTOP if stops else number)
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(job, signal.SIGCONT)

    for number in FORWARDED:
        if number != signal.SIGTSTP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _awaited(server: socket.socket) -> int:
    """Wait until nothing is left of the job; return its exit status, or minus the signal that killed it."""
    said = b""
    with suppress(ConnectionError):
        while part := server.recv(64):
            said += part
    words = said.split()
    return int(words[-1]) if words else -signal.SIGKILL  # its server is gone too: nobody else can say


def _die(number: int) -> None:
    """End as a process that this signal ended."""
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where that signal ends nobody, or is blocked
