"""A process that has imported torch once and forks for each job, so that a job costs what it computes, and a kill costs nothing.

`python zygote.py SOCKET` serves; `Zygote` starts it and asks it; `python_instead` writes a `python` that sends `python -m dd ...` to it, for
the shell commands of Snakemake's rules. A job joins the process group of whoever asked: who kills that group kills the job.
"""

from __future__ import annotations

import io
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED = 120  # seconds that importing torch may take
LONGEST = 120  # seconds that a job may take
# What jobs import while they run, some of it by way of torch's optimizers.
LATER = (
    "torch._dynamo", "torch._inductor.config", "PIL.Image", "PIL.PngImagePlugin", "pandas", "scipy.stats", "sklearn.datasets", "sklearn.manifold",
    "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "jinja2",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a job ended. code: its exit status, or minus the signal. writes: how often it touched the disk. text: what it said."""

    code: int
    writes: int
    text: str


class Zygote:
    """The server, as tests see it."""

    def __init__(self, folder: Path, code: Path) -> None:
        self.socket = folder / "zygote"
        env = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
        said = folder / "said"
        with said.open("w") as file:
            self.process = subprocess.Popen([sys.executable, __file__, str(self.socket)], env=env, stdin=subprocess.DEVNULL, stderr=file)
        end = time.monotonic() + STARTED
        while not self.socket.exists():
            assert self.process.poll() is None, said.read_text()
            assert time.monotonic() < end, "the zygote does not start"
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, root: Path, argv: list[str], stdin: str = "", **plan: Any) -> Ended:
        """Run `python -m dd` with these arguments in the folder `root`; see `_work` for `plan`."""
        read, write = os.pipe()
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(LONGEST + 30)
            server.connect(str(self.socket))
            body = json.dumps({"argv": argv, "cwd": str(root), "stdin": stdin, "env": {}, "group": os.getpgrp(), "plan": plan}).encode()
            socket.send_fds(server, [struct.pack("<I", len(body))], [0, write, write])
            server.sendall(body)
            os.close(write)
            with open(read, "rb") as pipe:
                text = pipe.read().decode(errors="replace")
            code, writes = struct.unpack("<iI", _exactly(server, 8))
        return Ended(code, writes, text)


CLIENT = """#!{python} -IS
import json, os, socket, struct, sys
if sys.argv[1:3] != ["-m", "dd"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({socket!r})
    body = json.dumps({{"argv": sys.argv[3:], "cwd": os.getcwd(), "stdin": None, "env": dict(os.environ), "group": os.getpgrp(), "plan": {{}}}}).encode()
    socket.send_fds(server, [struct.pack("<I", len(body))], [0, 1, 2])
    server.sendall(body)
    answer = server.recv(8, socket.MSG_WAITALL)
code = struct.unpack("<iI", answer)[0] if len(answer) == 8 else -9
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def python_instead(folder: Path, zygote: Zygote) -> Path:
    """Write the `python` that asks the zygote; return its folder, for PATH."""
    folder.mkdir(parents=True)
    path = folder / "python"
    path.write_text(CLIENT.format(python=sys.executable, socket=str(zygote.socket)))
    path.chmod(0o755)
    return folder


# -- the server -----------------------------------------------------------------------------------------------------------


def serve(path: str) -> None:
    _imports()
    server = socket.socket(socket.AF_UNIX)
    server.bind(path + ".new")
    server.listen(32)
    os.rename(path + ".new", path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what is forked here is waited for by nobody
    parent = os.getppid()
    server.settimeout(5)
    while os.getppid() == parent:  # tests that were killed leave no server
        try:
            client, _ = server.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            server.close()
            _supervise(client)
            os._exit(0)
        client.close()


def _imports() -> None:
    """Import what jobs import, and nothing that starts a thread."""
    import importlib
    import pkgutil

    import torch

    import dd

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(dd.__path__, "dd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)


def _exactly(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = client.recv(count - len(found))
        if not part:
            raise ConnectionError("the other side is gone")
        found += part
    return found


def _supervise(client: socket.socket) -> None:
    """Fork a job, kill it when its plan says so, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    client.settimeout(None)
    head, files, *_ = socket.recv_fds(client, 4, 3)
    request = json.loads(_exactly(client, struct.unpack("<I", head)[0]))
    os.setpgid(0, request["group"])
    import mmap

    counter = mmap.mmap(-1, 8)
    worker = os.fork()
    if worker == 0:
        client.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        code = 70
        try:
            code = _work(request, counter)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    for file in files:
        os.close(file)
    plan = request["plan"]
    watched = os.pidfd_open(worker)
    after = plan.get("after")
    if not select.select([watched], [], [], LONGEST if after is None else after)[0]:
        os.kill(worker, plan.get("signal", signal.SIGKILL))
        if not select.select([watched], [], [], LONGEST)[0]:
            os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    client.sendall(struct.pack("<iI", os.waitstatus_to_exitcode(status), struct.unpack("<Q", counter[:])[0]))


def _work(request: dict[str, Any], counter: Any) -> int:
    """Run a job under its plan.

    plan: `write`: SIGKILL just before the job touches the disk for that time, from 1. `after`: a signal (`signal`, else SIGKILL) after so
    many seconds. `largest`: bytes that a file may have, as on a disk that is full. `errno`, with `write`: that error instead of the kill.
    """
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    plan, argv = request["plan"], request["argv"]
    if request["stdin"] is not None:
        sys.stdin = io.StringIO(request["stdin"])
    else:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (for the life of the process)
    if "largest" in plan:
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["largest"], plan["largest"]))
    _save_always(argv)
    _watch(plan, counter)
    from dd.__main__ import main

    return main(argv)


def _save_always(argv: list[str]) -> None:
    """Let long jobs save their state after every step or epoch."""
    from dd.evaluation import resume, run
    from dd.train import experts, gan, pretrain

    for function in (experts.experts, gan.train, pretrain.pretrain, run.evaluate):
        assert function.__kwdefaults__ is not None and "save_every" in function.__kwdefaults__
        function.__kwdefaults__["save_every"] = -1.0
    resume.STRETCH = 0.0
    if argv[0] == "distill" and "--save-every" not in argv:
        argv += ["--save-every", "0"]


def _watch(plan: dict[str, Any], counter: Any) -> None:
    """Count what the job is about to do to the disk, and kill it where the plan says so."""
    here, seen = os.getcwd(), 0

    def touch() -> None:
        nonlocal seen
        seen += 1
        counter[:] = struct.pack("<Q", seen)
        if seen == plan.get("write"):
            if "errno" in plan:
                raise OSError(plan["errno"], os.strerror(plan["errno"]))
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(here):
                touch()
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"):
            path = args[0]
            if not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(here):
                touch()

    fsync = os.fsync

    def synced(file: Any) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            touch()
        fsync(file)

    os.fsync = synced
    sys.addaudithook(hook)


if __name__ == "__main__":
    serve(sys.argv[1])
