"""A server that is not there, not ours, stuck, killed or of another kind costs no job; and it ends with its head."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warmth import Toy, begun, kill, state, until

WAIT = "print(os.getpid(), flush=True); sys.stdin.read(); "


def test_without_a_server_a_job_does_itself(toy: Toy) -> None:
    head = toy.head()
    assert toy.do(head, "")[1] == "server\n"
    kill(head.server)
    assert toy.do(head, "sys.exit(4)", stdin="x")[:2] == (4, "alone\n")


@pytest.mark.parametrize(("code", "status"), [("sys.exit(3)", 3), ("", 0), ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGKILL)])
def test_a_job_outlives_its_server(toy: Toy, code: str, status: int) -> None:
    head = toy.head()
    job = toy.job(head, WAIT + code)
    assert begun(job)[0] == "server"
    kill(head.server)
    job.communicate("", timeout=20)
    assert job.returncode == status


def test_a_server_that_does_not_answer_gets_no_job(toy: Toy) -> None:
    head = toy.head()
    assert toy.do(head, "")[1] == "server\n"
    toy.edit("__init__.py", "PATIENCE = 60.0", "PATIENCE = 1.0")
    os.kill(head.server, signal.SIGSTOP)
    mark = toy.root / "mark"
    note = f"open({str(mark)!r}, 'a').write('done ')"
    assert toy.do(head, note)[1] == "alone\n"
    toy.edit("__init__.py", "PATIENCE = 1.0", "PATIENCE = 60.0")
    os.kill(head.server, signal.SIGCONT)  # now it comes to those who waited
    assert toy.do(head, "")[1] == "server\n"
    assert mark.read_text() == "done "


def test_other_environments_folders_and_options_are_not_its_own(toy: Toy) -> None:
    head = toy.head()
    shell = f"export PYTHONPATH={toy.root}; "
    assert toy.do(head, "print(len(sys.argv))")[1] == "server\n2\n"
    assert toy.do(head, "", OMP_NUM_THREADS="2")[1] == "alone\n"
    assert toy.do(head, "", LD_LIBRARY_PATH="elsewhere")[1] == "alone\n"
    assert toy.do(head, "", shell + "cd dd")[1] == "alone\n"
    assert toy.do(head, "print(sys.flags.optimize)", 'exec python -O -m dd "$0"')[1] == "alone\n1\n"
    assert toy.do(head, "", 'exec python -u -m dd "$0"', PYTHONUNBUFFERED="")[1] == "alone\n"
    assert toy.do(head, "", 'exec chrt -b 0 python -m dd "$0"')[1] == "alone\n"
    assert toy.do(head, "", "export TMPDIR=$PWD/dd SHLVL=9")[1] == "server\n"


def test_what_it_cannot_become_it_does_not_do(toy: Toy) -> None:
    toy.edit("place.py", "    os.chdir(", '    raise PermissionError("not allowed")\n    os.chdir(')
    assert toy.do(toy.head(), "sys.exit(5)")[:2] == (5, "alone\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_what_is_closed_is_not_handed_over(toy: Toy, closed: str) -> None:
    mark = toy.root / "mark"
    code = f"open({str(mark)!r}, 'w').write(str(os.getppid()))"
    head = toy.head()
    assert toy.do(head, code, f"exec {closed}")[0] == 0
    assert int(mark.read_text()) not in (0, head.server)


def test_a_mistake_before_the_job_is_agreed_on_costs_no_job(toy: Toy) -> None:
    toy.edit("client.py", "        body = ", '        raise AttributeError("a mistake")\n        body = ')
    assert toy.do(toy.head(), "sys.exit(5)") == (5, "alone\n", "")


@pytest.mark.parametrize("lacks", ["del os.pidfd_open", "os.pidfd_open = lambda number: os.close(-1)", "import signal; del signal.pidfd_send_signal"])
def test_a_system_without_pidfd_has_none(toy: Toy, lacks: str) -> None:
    toy.edit("start.py", "import os\n", f"import os; {lacks}\n")
    head = toy.head()
    assert (head.name, head.server) == ("-", 0)


@pytest.mark.parametrize("side", ["server.py", "client.py"])
def test_others_may_not_connect(toy: Toy, side: str) -> None:
    toy.edit(side, "!= os.getuid()", "!= os.getuid() + 1")  # as if the other side were another user's
    assert toy.do(toy.head(), "")[1] == "alone\n"


def test_it_does_not_fork_beside_a_thread(toy: Toy) -> None:
    (toy.root / "threaded.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    toy.edit("server.py", '"json",', '"threaded",')
    assert toy.do(toy.head(), "")[1] == "alone\n"


def test_libraries_that_do_not_load_cost_no_job(toy: Toy) -> None:
    toy.edit("server.py", '"json",', '"no_such_library",')
    assert toy.do(toy.head(), "")[1] == "alone\n"


def test_a_server_that_fails_says_so_in_a_line(toy: Toy) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dd.warm.server", "99"], cwd=toy.root, env=toy.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert re.fullmatch(r"warning: jobs load torch themselves: OSError: .*Bad file descriptor\n", done.stderr)


def test_what_jobs_need_starts_no_thread_and_is_loaded_when_the_first_one_asks(tmp_path) -> None:
    toy = Toy(tmp_path / "toy", light=False)
    try:
        head = toy.head()
        assert "torch" not in Path(f"/proc/{head.server}/maps").read_text()
        before = "loaded = [name in sys.modules for name in ('torch', 'numpy', 'safetensors', 'pydantic', 'yaml', 'torch._dynamo', 'dd.distill')]\n"
        code = before + "print(*loaded, os.listdir(f'/proc/{os.getppid()}/task') == [str(os.getppid())]); import torch; print(torch.cuda.is_initialized())"
        assert toy.do(head, code)[:2] == (0, "server\nTrue True True True True False False True\nFalse\n")
    finally:
        toy.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_it_ends_with_its_head_and_jobs_go_on(toy: Toy, how: signal.Signals | None) -> None:
    head = toy.head()
    job = toy.job(head, WAIT + "sys.exit(6)")
    assert begun(job)[0] == "server"
    if how is None:
        head.process.stdin.close()  # its own end
    else:
        head.process.send_signal(how)
    head.process.wait(20)
    until(lambda: state(head.server) == "Z", "the server lives on", 5)
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(f"\0{head.name}")
    assert job.poll() is None
    job.communicate("", timeout=20)
    assert job.returncode == 6


def test_ctrl_c_is_not_for_it(toy: Toy) -> None:
    head = toy.head()
    assert os.getpgid(head.server) == head.server != os.getpgid(head.process.pid)


def test_only_a_local_run_has_one(toy: Toy) -> None:
    for executor, env in (("slurm", {}), ("dryrun", {}), ("slurm", {"DD_WARM": "of-another"})):
        head = toy.head(executor, **env)
        assert (head.name, head.server) == ("-", 0)
    off = toy.head(DD_WARM="0")
    assert (off.name, off.server) == ("0", 0)
    assert toy.do(None, "")[1] == "alone\n"


def test_two_heads_do_not_meet(toy: Toy) -> None:
    one, two = toy.head(), toy.head(DD_WARM="of-the-one-around-it")
    assert one.name != two.name and "of-the-one" not in two.name
    number = "print(os.getppid())"
    assert toy.do(one, number)[1] == f"server\n{one.server}\n"
    assert toy.do(two, number)[1] == f"server\n{two.server}\n"
    kill(one.server)
    assert toy.do(two, number)[1] == f"server\n{two.server}\n"


def test_many_jobs_at_once(toy: Toy) -> None:
    head = toy.head()
    began = time.monotonic()
    jobs = [toy.job(head, f"time.sleep(0.5); sys.exit({number})") for number in range(12)]
    for number, job in enumerate(jobs):
        out, _ = job.communicate("", timeout=60)
        assert (job.returncode, out) == (number, "server\n")
    assert time.monotonic() - began < 60
