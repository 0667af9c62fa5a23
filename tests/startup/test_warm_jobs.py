"""A job that a server's fork does is the job that its own process would do, and it dies with its client."""

from __future__ import annotations

import os
import signal

from warmth import Toy, begun, kill, line, shown, state, until

SHOW = """
import json, locale, resource, signal, sys, tempfile, threading
places = [getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")]
signals = sorted(signal.valid_signals())
print(json.dumps({
    "argv": sys.argv[1:], "named": os.path.basename(sys.argv[0]), "folder": os.getcwd(), "path": sys.path, "flags": list(sys.flags),
    "environment": {name: value for name, value in os.environ.items() if name not in ("DD_WARM", "_")},
    "real environment": sorted(subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()),
    "umask": os.umask(0), "limits": [resource.getrlimit(place) for place in places], "cores": sorted(os.sched_getaffinity(0)),
    "nice": os.nice(0), "oom": open("/proc/self/oom_score_adj").read(), "handlers": [str(signal.getsignal(number)).split(" at ")[0] for number in signals],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "stdin": sys.stdin.read(), "temporary": tempfile.gettempdir(),
    "zone": time.tzname, "threads": threading.active_count(), "files": sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) < 3),
    "output": [[file.fileno(), file.encoding, file.errors, file.line_buffering, file.isatty()] for file in (sys.stdout, sys.stderr, sys.__stdout__, sys.stdin)],
    "group of its own": os.getpgrp() in (os.getpid(), os.getppid()), "locale": locale.setlocale(locale.LC_ALL),
}))
"""
BEFORE = """
ulimit -S -n 300; ulimit -S -c 0; ulimit -v 90000000; umask 027; trap '' HUP USR2; renice -n 15 $$ >/dev/null
echo 500 > /proc/$$/oom_score_adj; taskset -pc "$(taskset -pc $$ | sed 's/.*[ ,-]//')" $$ >/dev/null; export TMPDIR=$PWD/dd
"""


def test_it_is_what_its_client_is(toy: Toy) -> None:
    seen = []
    for head, who in ((toy.head(), "server"), (None, "alone")):
        status, out, error = toy.do(head, SHOW, BEFORE, "the\r\nconfiguration")
        assert (status, error, out.splitlines()[0]) == (0, "", who)
        found = shown(out)
        found["real environment"] = [each for each in found["real environment"] if not each.startswith(("DD_WARM=", "_="))]
        seen.append(found)
    served, alone = seen
    assert {name: (served[name], alone[name]) for name in alone if served[name] != alone[name]} == {}
    assert served["stdin"] == "the\r\nconfiguration" and served["nice"] >= 15 and served["temporary"] == str(toy.root / "dd")


def test_it_ends_as_it_would_alone(toy: Toy) -> None:
    head = toy.head()
    for code in (
        "sys.exit(3)", "sys.exit()", "sys.exit('told')", "sys.exit(-1)", "raise RuntimeError('a mistake')", "raise KeyboardInterrupt", "1 +",
        "os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)", "os.abort()", "os._exit(7)", "os.close(1); print('lost')",
        "import atexit; atexit.register(print, 'last words'); print('first', end='')",
        "import threading; threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()",
        "sys.stderr.close()", "sys.stdout.close()",
    ):  # fmt: skip
        status, out, error = toy.do(head, code, "ulimit -c 0")
        alone = toy.do(None, code, "ulimit -c 0")
        assert out.startswith("server\n") and alone[1].startswith("alone\n"), code
        assert (status, out.splitlines()[1:]) == (alone[0], alone[1].splitlines()[1:]), code
        if "close" not in code:
            assert error.splitlines()[-1:] == alone[2].splitlines()[-1:], code
    assert not [name for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == head.server]  # all were waited for


def _parent(process: int) -> int | None:
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_code_that_was_edited_meanwhile_counts(toy: Toy) -> None:
    head = toy.head()
    (toy.root / "dd/other.py").write_text("SAYS = 'before'")
    assert toy.do(head, "import dd.other; print(dd.other.SAYS)")[1] == "server\nbefore\n"
    (toy.root / "dd/other.py").write_text("SAYS = 'afterwards'")
    assert toy.do(head, "import dd.other; print(dd.other.SAYS)")[1] == "server\nafterwards\n"


def test_signals_reach_it_once_whoever_was_meant(toy: Toy) -> None:
    head = toy.head()
    count = """
seen = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: (seen.append(number), print(int(number), flush=True)))
print(os.getpid(), flush=True)
while seen[-1:] != [signal.SIGUSR1]:
    time.sleep(0.01)
"""
    for send in (os.kill, os.killpg):  # as `kill` does, and as Ctrl-C does
        job = toy.job(head, count)
        who, _ = begun(job)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGUSR1):
            send(job.pid, number)
            assert line(job) == str(int(number))  # before the next one: two that wait are one
        out, _ = job.communicate(timeout=30)
        assert (who, out, job.returncode) == ("server", "", 0)


def test_signals_that_a_shell_ignores_are_the_jobs_to_take(toy: Toy) -> None:
    for head in (toy.head(), None):
        code = "signal.signal(signal.SIGINT, lambda *_: sys.exit(9)); print(os.getpid(), flush=True); time.sleep(60)"
        job = toy.job(head, code, "trap '' INT TSTP")
        begun(job)
        job.send_signal(signal.SIGTSTP)  # but this one, which nobody handles
        job.send_signal(signal.SIGINT)
        assert job.wait(20) == 9


def test_a_signal_at_the_moment_that_the_job_is_agreed_on_is_not_lost(toy: Toy) -> None:
    sent = "os.kill(os.getpid(), signal.SIGTERM); signal.sigtimedwait((), 1)"
    toy.edit("client.py", "        _forward(job", f"        {sent}\n        _forward(job")
    assert toy.do(toy.head(), "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); time.sleep(30)")[:2] == (9, "server\n")


def test_a_signal_that_nobody_awaits_ends_both(toy: Toy) -> None:
    job = toy.job(toy.head(), "print(os.getpid(), flush=True); time.sleep(60)")
    _, number = begun(job)
    job.terminate()
    assert job.wait(20) == -signal.SIGTERM
    assert state(number) == "Z"


def test_it_stops_and_goes_on_with_its_client(toy: Toy) -> None:
    job = toy.job(toy.head(), "print(os.getpid(), flush=True); sys.stdin.read()")
    _, number = begun(job)
    job.send_signal(signal.SIGTSTP)
    until(lambda: state(number) == "T" and state(job.pid) == "T", "one of them runs")
    job.send_signal(signal.SIGCONT)
    until(lambda: state(number) == "S", "it is still stopped")
    job.communicate("", timeout=20)
    assert job.returncode == 0


def test_it_is_killed_with_its_client_even_in_a_native_call(toy: Toy) -> None:
    head = toy.head()
    native = "import ctypes; other = subprocess.Popen(['sleep', '100']); print(os.getpid(), flush=True); print(other.pid, flush=True)\n"
    native += "ctypes.PyDLL(None).sleep(100)"  # PyDLL: no other thread gets the interpreter
    for send in (os.kill, os.killpg):
        job = toy.job(head, native)
        who, number = begun(job)
        other = int(line(job))
        assert who == "server" and "Z" not in (state(number), state(other))
        send(job.pid, signal.SIGKILL)
        until(lambda: state(number) == state(other) == "Z", "it lives on", 5)  # noqa: B023
        assert job.wait(20) == -signal.SIGKILL
    assert toy.do(head, "")[1] == "server\n"


def _children(process: int) -> str:
    with open(f"/proc/{process}/task/{process}/children") as file:
        return file.read()


def test_a_client_that_is_killed_at_any_moment_leaves_no_job(toy: Toy) -> None:
    head = toy.head()
    assert toy.do(head, "")[1] == "server\n"
    mark = toy.root / "mark"
    for milliseconds in range(40, 161, 15):
        job = toy.job(head, f"time.sleep(0.5); open({str(mark)!r}, 'w')")
        signal.sigtimedwait((), milliseconds / 1000)
        kill(job.pid)
    for milliseconds in (0, 1, 3, 6, 10):
        until(lambda: not _children(head.server), "jobs of killed clients live on")
        job = toy.job(head, f"time.sleep(0.5); open({str(mark)!r}, 'w')")
        while not _children(head.server):
            assert job.poll() is None
        signal.sigtimedwait((), milliseconds / 1000)
        kill(job.pid)
    signal.sigtimedwait((), 0.8)
    assert not mark.exists()
    assert toy.do(head, "")[1] == "server\n"
