"""What a process that the server forked does: become what the client is, do its job, end as a process of its own would."""

from __future__ import annotations

import atexit
import fcntl
import importlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any, NoReturn

from dd.warm import GO, HELLO, PATIENCE, READY
from dd.warm.place import take_over


def work(client: socket.socket, ours: dict[str, Any]) -> NoReturn:
    """Do the job of a client, whose `dd.warm.place.kind` must be `ours`. Where anything is amiss, the client learns it by our end."""
    try:
        argv = _become(client, ours)
    except BaseException:
        os._exit(1)
    status = 1
    try:
        status = _done(argv)
    finally:
        _end(client, status)


def _become(client: socket.socket, ours: dict[str, Any]) -> list[str]:
    """Take over what the client is, and agree with it that the job is done here; return the command line."""
    client.settimeout(PATIENCE)
    socket.send_fds(client, [HELLO], [os.pidfd_open(os.getpid())])
    size, files, *_ = socket.recv_fds(client, 4, 4, socket.MSG_CMSG_CLOEXEC)
    told = json.loads(_exactly(client, struct.unpack("<I", size)[0]))
    if told["kind"] != ours:
        raise ValueError("another kind of process")
    os.setpgid(0, 0)  # Ctrl-C is for the client, which passes it on
    *standard, alive = files
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    take_over(told)
    _renew()
    _bind(alive)
    client.sendall(READY)
    if _exactly(client, len(GO)) != GO:
        raise ValueError("not wanted any more")
    return list(told["argv"])


def _exactly(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = client.recv(count - len(found))
        if not part:
            raise ConnectionError("the client is gone")
        found += part
    return found


def _bind(alive: int) -> None:
    """Have the kernel kill this process, and what it starts, when the client's end of a pipe closes: with the client, however it ends.

    Nobody else would: whoever kills a job's process group with SIGKILL reaches the client only. No thread could do it at once, as a long
    native call may hold the interpreter.
    """
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([alive], [], [], 0)[0]:
        raise ConnectionError("the client is gone")


def _renew() -> None:
    """Forget what the server's start left in Python: files, the folder for temporary files, dd's own modules."""
    raw = sys.stderr.write_through  # type: ignore[union-attr]  # `python -u`
    old = sys.stdin
    sys.stdin = sys.__stdin__ = open(  # type: ignore[misc]  # noqa: SIM115
        0, encoding=old.encoding, errors=old.errors, newline="\n", closefd=False
    )
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = io.TextIOWrapper(
            open(number, "wb", 0 if raw else -1, closefd=False),  # noqa: SIM115
            encoding=getattr(sys, name).encoding, errors=getattr(sys, name).errors,
            line_buffering=not raw and (name == "stderr" or os.isatty(number)), write_through=raw,
        )  # fmt: skip
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    tempfile.tempdir = None
    for name in [name for name in sys.modules if name == "dd" or name.startswith("dd.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _done(argv: list[str]) -> int:
    """Run the command line as `python -m dd` does; return the exit status, or minus SIGINT after a Ctrl-C that nobody caught."""
    sys.argv[:] = argv
    try:
        from dd.__main__ import main

        return main(argv[1:])
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    return 1


def _end(client: socket.socket, status: int) -> NoReturn:
    """Do what the interpreter does at its end, tell the client the status, and end."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as `multiprocessing` does after its forks
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # closed
            try:
                file.flush()
            except OSError:
                status = status or 120  # Python's own
    with suppress(OSError):
        client.sendall(b"%d\n" % status)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
