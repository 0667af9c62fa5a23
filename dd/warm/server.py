"""The process that has loaded what every job needs, and forks for each: `python -m dd.warm.server FD`, with a listening socket in FD.

It loads nothing before the first job asks, no module of dd's but its own (so that a job runs the code that is there when it begins), and
ends when its standard input does: with the head that holds the other end. It has one thread, does nothing that could block, and knows
nothing of a job but its number: what the client says is read by the forked process (`dd.warm.job`). A job does not need it to end.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import socket
import sys
from contextlib import suppress

from dd.warm.client import owner
from dd.warm.job import work
from dd.warm.place import kind

# What most jobs import, and what starts neither threads nor CUDA. Pydantic's parts are named, as it loads each when it is asked for.
LIBRARIES = (
    "torch", "torch.utils.checkpoint", "torch.func", "torch.nn.attention", "numpy", "safetensors.torch", "yaml",
    "pydantic.main", "pydantic.functional_validators", "pydantic.json_schema",
)  # fmt: skip


def serve(listener: socket.socket) -> None:
    """Fork for each client until standard input ends."""
    ours, loaded = kind(), False
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(listener, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}  # pidfd of a job -> its number, the connection to its client
    while True:
        for file, _ in poll.poll():
            if file == 0:
                return
            if file in running:
                poll.unregister(file)
                _reap(file, *running.pop(file))
                continue
            client, _ = listener.accept()
            if owner(client) != os.getuid():
                client.close()
                continue
            if not loaded:
                _load()
                loaded = True
            try:
                job = _fork()
            except OSError:  # no more processes, or a thread: the client does its job itself
                client.close()
                continue
            if job == 0:
                try:
                    for other in (listener, *(connection for _, connection in running.values())):
                        other.close()
                    for other_job in running:
                        os.close(other_job)
                    work(client, ours)
                finally:
                    os._exit(1)  # whatever happens: this process never serves
            watched = os.pidfd_open(job)
            running[watched] = job, client
            poll.register(watched, select.POLLIN)


def _load() -> None:
    """Load the libraries, and keep what they made out of the reach of the garbage collector, which would copy it in every job."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _fork() -> int:
    """Fork. Raises OSError where there is a thread besides this one: it would hold locks in the child, where it is not."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError("there are threads")
    return os.fork()


def _reap(watched: int, job: int, client: socket.socket) -> None:
    """Take note of a job's end, and tell the client. The job has told it too, unless a signal or `os._exit` ended it."""
    _, ended = os.waitpid(job, 0)
    os.close(watched)
    with client, suppress(OSError):
        client.send(b"%d\n" % os.waitstatus_to_exitcode(ended), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except Exception as error:
        sys.exit(f"warning: jobs load torch themselves: {type(error).__name__}: {' '.join(str(error).split())}")
