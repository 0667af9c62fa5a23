"""Who is the head of a folder, and what a restart does about its jobs; squeue, scancel and snakemake are stand-ins."""

import errno
import fcntl
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from project import ROOT

from dd.errors import ConfigError
from dd.plan.atwork import locked
from dd.slurm import head
from dd.slurm.restart import left, listed, restart
from dd.slurm.start import _profile, start

ME = pwd.getpwuid(os.getuid()).pw_name
TAKE = (
    "import sys, time; from pathlib import Path; from dd.slurm.head import ended, take; ended(Path(sys.argv[1])); "
    "take(Path(sys.argv[1]), True); print('taken', flush=True); time.sleep(60)"
)


def other_head(folder, code=TAKE):
    """Start a process that is the head of a folder; return it when it is."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "taken\n"
    return process


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def script(folder, name, text):
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def queue(folder, *jobs):
    """Let squeue say that there are these jobs, until scancel takes them out."""
    (folder / "queue").write_text("".join(f"{line}\n" for line in jobs))
    script(folder, "squeue", f'echo "$@" >> "{folder}/asked"\ncat "{folder}/queue"')
    script(folder, "scancel", f'echo "$@" > "{folder}/cancelled"\n: > "{folder}/queue"')


def dead_head(folder, **changes):
    (folder / head.FILE).unlink(missing_ok=True)
    process = other_head(folder)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    path = folder / head.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_head_is_seen_while_it_lives_and_after_it_was_killed(folder):
    assert head.found(folder) is None
    process = other_head(folder)
    living = head.found(folder)
    assert living is not None and living.alive and living.pid == process.pid and living.host == socket.gethostname()
    with pytest.raises(head.HeadError, match=f"process {process.pid} on"):
        head.take(folder, True)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    dead = head.found(folder)
    assert dead is not None and not dead.alive and dead.pid == process.pid
    done = subprocess.run([sys.executable, "-c", TAKE.replace("time.sleep(60)", ""), str(folder)], cwd=ROOT, timeout=30)
    assert done.returncode == 0, "the place of a dead one is free"
    assert head.found(folder) is None, "and one that ends by itself leaves no name"


def test_looking_does_not_keep_others_from_beginning(folder):
    (folder / ".snakemake").mkdir()
    watcher = "import sys; from pathlib import Path; from dd.slurm.head import found\nprint('taken', flush=True)\nwhile True: found(Path(sys.argv[1]))"
    process = other_head(folder, watcher)
    try:
        for _ in range(3):
            taker = other_head(folder)
            taker.kill()
            taker.wait(10)
    finally:
        process.kill()
        process.wait(10)


def test_a_file_system_without_locks(folder, monkeypatch):
    """Then the process itself is looked for, where it can be."""
    process = other_head(folder)

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    living = head.found(folder)
    assert living is not None and living.alive
    with pytest.raises(head.HeadError, match=str(process.pid)):
        head.take(folder, True)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    dead = head.found(folder)
    assert dead is not None and not dead.alive


def test_a_file_that_cannot_be_written_is_told(folder):
    (folder / ".snakemake").mkdir()
    (folder / head.FILE).symlink_to("/dev/full")
    with pytest.raises(head.HeadError, match=r"head\.json: cannot be written"):
        head.take(folder, True)


def test_children_of_a_head_do_not_keep_its_lock(folder):
    code = TAKE.replace("print(", "import subprocess; subprocess.Popen(['sleep', '20']); print(")
    process = other_head(folder, code)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    found = head.found(folder)
    assert found is not None and not found.alive


def test_only_the_jobs_of_this_folder_that_may_still_write(folder):
    here = os.path.realpath(folder)
    queue(
        folder, f"1|R|{ME}|rule_distill_wildcards_a|{here}", f"2|PD|{ME}|rule_draw|{here}", f"3|CD|{ME}|rule_draw|{here}",
        f"4|CA|{ME}|rule_x|{here}", f"5|R|{ME}|somebody's|{here}", f"6|R|{ME}|rule_distill|{here}2", f"7|CG|{ME}|rule_y|{here}",
        f"8|S|ann|rule_z_a|b|{here}", f"9|R|{ME}|(null)|{here}", f"10|PR|{ME}|rule_z|{here}",
    )  # fmt: skip
    assert left(folder) == {"1": ME, "2": ME, "7": ME, "8": "ann"}, "a folder may be shared"
    assert listed(left(folder)) == "1 2 7 8 (of ann)"
    assert not re.search("--me|--user", (folder / "asked").read_text())


def test_without_an_answer_nothing_is_done(folder):
    script(folder, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    script(folder, "snakemake", f"touch {folder}/started")
    with pytest.raises(head.HeadError, match="Unable to contact"):
        restart("wait", [])
    assert not (folder / "started").exists()


@pytest.mark.parametrize("how", ["wait", "cancel"])
def test_a_restart_begins_when_the_jobs_are_gone(folder, how):
    dead_head(folder)
    locks = folder / ".snakemake" / "locks"
    locks.mkdir()
    (locks / "0.output.lock").touch()
    queue(folder, f"1|R|{ME}|rule_distill|{os.path.realpath(folder)}", f"2|PD|{ME}|rule_draw|{os.path.realpath(folder)}")
    script(folder, "snakemake", f'echo "$@ $(wc -l < {folder}/queue)" >> {folder}/calls')
    code = f"from dd.slurm.restart import restart; restart({how!r}, ['--profile', 'p'], every=0.2)"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    if how == "wait":
        time.sleep(1.5)
        assert process.poll() is None
        assert not (folder / "calls").exists()
        queue(folder)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert "1 2" in said
    assert (folder / "cancelled").exists() == (how == "cancel")
    assert (folder / "calls").read_text() == "--profile p --rerun-incomplete 0\n"
    assert not locks.exists()


def test_another_head_that_began_meanwhile_is_left_alone(folder):
    dead_head(folder)
    queue(folder, f"1|R|{ME}|rule_distill|{os.path.realpath(folder)}")
    script(folder, "snakemake", f"touch {folder}/started")
    code = "from dd.slurm.restart import restart; restart('wait', [], every=0.2)"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    assert "waiting for" in process.stderr.readline()
    other = other_head(folder)
    try:
        queue(folder)
        said = process.communicate(timeout=30)[1]
    finally:
        other.kill()
        other.wait(10)
    assert process.returncode == 1
    assert f"process {other.pid}" in said
    assert not (folder / "started").exists()


def test_a_living_head_is_left_alone(folder):
    process = other_head(folder)
    queue(folder, f"1|R|{ME}|rule_distill|{os.path.realpath(folder)}")
    script(folder, "snakemake", f"touch {folder}/started")
    try:
        with pytest.raises(head.HeadError, match="another Snakemake works in this folder"):
            restart("cancel", [])
    finally:
        process.kill()
        process.wait(10)
    assert not (folder / "cancelled").exists()
    assert not (folder / "started").exists()


def test_a_head_of_another_host_must_be_looked_for_there(folder):
    dead_head(folder, host="elsewhere")
    queue(folder)
    with pytest.raises(head.HeadError, match=r"elsewhere.*head\.json"):
        restart("wait", [])
    dead_head(folder, host="elsewhere", job="77")
    queue(folder, "77")
    with pytest.raises(head.HeadError, match="scancel 77"):
        restart("wait", [])
    queue(folder)
    script(folder, "snakemake", f"touch {folder}/started")
    code = "from dd.slurm.restart import restart; restart('wait', [])"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=30, check=True)
    assert (folder / "started").exists(), "SLURM knows that it has ended"


def test_a_queue_that_does_not_answer_for_a_while_is_asked_again(folder):
    dead_head(folder)
    queue(folder, f"1|R|{ME}|rule_distill|{os.path.realpath(folder)}")
    script(folder, "snakemake", f"touch {folder}/started")
    code = "from dd.slurm.restart import restart; restart('cancel', [], every=0.1)"
    script(folder, "scancel", f"rm {folder}/bin/squeue; ln -s {folder}/away {folder}/bin/squeue")
    (folder / "away").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    (folder / "away").chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    assert "cancelling" in process.stderr.readline()
    assert "Unable to contact" in process.stderr.readline()
    time.sleep(0.5)
    assert process.poll() is None
    (folder / "bin" / "squeue").unlink()
    queue(folder)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert said == "", "it is said once"
    assert (folder / "started").exists()


# -- the start of a run -------------------------------------------------------------------------------------------------

LOCAL = SimpleNamespace(executor_plugin=SimpleNamespace(name="local"))
CLUSTER = SimpleNamespace(executor_plugin=SimpleNamespace(name="slurm"))


def test_a_local_run_after_a_local_one_was_killed_asks_slurm_for_nothing(folder):
    """Machines may have SLURM's commands, and no cluster."""
    dead_head(folder, submits=False)
    script(folder, "squeue", f"touch {folder}/asked; echo 'no configuration' >&2; exit 1")
    start(LOCAL, None)
    assert not (folder / "asked").exists()
    found = head.found(folder)
    assert found is not None and found.alive and not found.submits


def test_a_local_run_after_one_that_submitted_was_killed_looks_for_its_jobs(folder, monkeypatch):
    dead_head(folder)
    queue(folder, f"1|R|ann|rule_distill|{os.path.realpath(folder)}")
    with pytest.raises(head.HeadError, match=r"1 jobs of an earlier run .*\(1 \(of ann\)\)"):
        start(LOCAL, None)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(folder / "empty"))
    with pytest.raises(head.HeadError, match=r"squeue: not found.*may live on.*delete .*head\.json"):
        start(LOCAL, None)
    monkeypatch.setenv("PATH", path)
    queue(folder)
    start(LOCAL, None)
    assert head.found(folder).alive


def test_a_run_does_not_begin_beside_one_of_another_host(folder):
    """Locks may be seen on one host only: then that of a living head looks free here."""
    dead_head(folder, host="login1")
    queue(folder)
    for workflow in (LOCAL, CLUSTER):
        with pytest.raises(head.HeadError, match=r"login1.*delete .*head\.json"):
            start(workflow, None)
    assert head.found(folder).host == "login1", "and its name stays"
    dead_head(folder, host="login1", job="77")
    queue(folder, "77")
    with pytest.raises(head.HeadError, match="scancel 77"):
        start(LOCAL, None)


def test_a_snakemake_does_not_begin_beside_a_run_without_one(folder):
    with locked(folder / "logs"), pytest.raises(head.HeadError, match="a `dd run` is at work here"):
        start(LOCAL, None)


def test_a_living_head_is_named_with_its_file(folder, monkeypatch):
    """Without locks a process that got a dead one's number cannot be told from it."""
    process = other_head(folder)
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "Function not implemented")))
    try:
        with pytest.raises(head.HeadError, match=rf"process {process.pid} on .*is no Snakemake, delete .*head\.json"):
            start(LOCAL, None)
    finally:
        process.kill()
        process.wait(10)
    path = folder / head.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid(), "submits": False}))
    start(LOCAL, None)
    assert json.loads(path.read_text())["pid"] == os.getpid(), "this process got the number of the dead one"


def test_the_profile_is_named_as_it_was_given(folder, monkeypatch):
    (folder / "profiles" / "mine").mkdir(parents=True)
    (folder / "profiles" / "mine" / "profile.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["snakemake", "--profile", "profiles/mine", "-n", "all"])
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "another")
    assert _profile() == "profiles/mine/profile.yaml"
    monkeypatch.setattr(sys, "argv", ["snakemake", "--profile=site", "--profile=profiles/mine"])
    assert _profile() == "site and profiles/mine/profile.yaml"
    monkeypatch.setattr(sys, "argv", ["snakemake", "all"])
    assert _profile() == "another"
    monkeypatch.delenv("SNAKEMAKE_PROFILE")
    assert _profile() == "the command line"


def test_mistakes(folder):
    with pytest.raises(ConfigError, match="did you mean 'wait'"):
        restart("wiat", [])
    (folder / ".snakemake").mkdir()
    (folder / head.FILE).write_text("{")
    with pytest.raises(head.HeadError, match="damaged"):
        restart("wait", [])
