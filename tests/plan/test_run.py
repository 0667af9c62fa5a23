"""Planned jobs in order, without Snakemake: which are done, what a failure takes with it, and that time is kept.

The process that does the jobs is a pretended one here, which does what their configuration says; the true one runs in
tests/workflow/test_run_workflow.py.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dd.errors import ArtifactError, ConfigError, DDError, Stopped
from dd.plan import atwork, worker
from dd.plan import run as module
from dd.plan.job import Job
from dd.plan.run import run

PRETENDED = """
import json, os, pathlib, sys, time
print("a worker", os.getpid(), file=open("workers", "a"))
for line in sys.stdin:
    job = json.loads(line)
    print(json.dumps(job), file=open("seen", "a"))
    what = json.loads(job["config"])
    if what["do"] == "die":
        os.kill(os.getpid(), 9)
    if what["do"] == "hang":
        time.sleep(60)
    if what["do"] == "deaf":
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    if what["do"] == "slow":
        time.sleep(0.5)
    if what["do"] in ("make", "slow", "stopped late"):
        for path in what["outputs"]:
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(path).write_text("made")
    print({"fail": 1, "stop": 75, "stopped late": 75}.get(what["do"], 0), flush=True)
"""


def job(stage, name, *inputs, do="make", more=()):
    outputs = [f"results/{name}", *more]
    facts = {"paper": "p", "dataset": "digits"}
    return Job(stage, outputs, [f"results/{path}" for path in inputs], {"do": do, "outputs": outputs}, [], facts)


class Planned:
    """A plan of given jobs, of which the last draws the paper."""

    def __init__(self, *jobs):
        self.jobs = [*jobs, job("artifact", "papers/paper/p/claims.json", *(one.outputs[0][8:] for one in jobs if one.stage == "choose"))]
        self.cells = {"p": {"table1": [SimpleNamespace(scores=["results/a/1"], sets=[], analysis=None, choice=None)]}}

    def of(self, papers):
        assert papers == ["p"]
        return self.jobs

    def code_of(self, job):
        return f"code of {job.outputs[0]}"

    def drawing_settings(self, papers):
        return json.dumps(self.jobs[-1].config)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder, with a pretended worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-c", PRETENDED))
    monkeypatch.setattr(module, "arguments", lambda job: ["--out", job.outputs[0]])
    monkeypatch.setattr(module, "write_codes", lambda jobs: None)
    return tmp_path


def start(plan, budget=60.0, **more):
    return run(plan, ["p"], budget=budget, resume=Path("away"), device="cpu", **more)


def lines(name):
    return Path(name).read_text().splitlines() if Path(name).exists() else []


def done():
    return [json.loads(line)["argv"][-1].removeprefix("results/") for line in lines("seen")]


def packed():
    with tarfile.open("away/results.tar.gz") as tar:
        return sorted(tar.getnames())


THREE = (job("distill", "a/1"), job("evaluate", "a/2", "a/1"), job("choose", "a/3", "a/2"))


def test_jobs_are_done_in_order_by_one_process_and_only_once(here, capsys):
    assert start(Planned(*THREE)) == 0
    assert done() == ["a/1", "a/2", "a/3", "papers/paper/p/claims.json"]
    assert len(lines("workers")) == 1
    assert packed() == ["results/a/1", "results/a/2", "results/a/3", "results/papers/paper/p/claims.json"]
    told = capsys.readouterr().out
    assert "2/4 evaluate results/a/2 " in told
    assert "4 jobs done, 0 left, 0 of them failed" in told
    assert start(Planned(*THREE)) == 0
    assert done()[4:] == ["papers/paper/p/claims.json"]  # it may show what config.yaml says now


def test_jobs_are_called_as_the_command_line_takes_them(here):
    start(Planned(*THREE), threads=3)
    first, _, third, _ = (json.loads(line)["argv"] for line in lines("seen"))
    assert first[:8] == ["distill", "--config", "-", "--device", "cpu", "--threads", "3", "--stop-after"]
    assert 40 < float(first[8]) <= 54
    assert first[9:11] == ["--code", "code of results/a/1"]
    assert third == ["choose", "--config", "-", "--out", "results/a/3"]


def test_what_only_finished_results_were_made_of_is_not_made_again(here):
    for name in ("a/2", "a/3"):
        Path("results", name).parent.mkdir(parents=True, exist_ok=True)
        Path("results", name).write_text("there")
    assert start(Planned(*THREE)) == 0
    assert done() == ["papers/paper/p/claims.json"]
    Path("results/a/2").unlink()
    start(Planned(*THREE))
    assert done()[1:] == ["papers/paper/p/claims.json"]  # a/3 is all that it needs


def test_a_job_that_lacks_one_of_its_files_is_done_again(here):
    plan = Planned(job("choose", "a/1", more=("results/a/more",)))
    start(plan)
    Path("results/a/more").unlink()
    assert start(plan) == 0
    assert done().count("a/1") == 1  # it was packed
    Path("results/a/more").unlink()
    Path("away/results.tar.gz").unlink()
    assert start(plan) == 0
    assert done().count("a/1") == 2


@pytest.mark.parametrize(("do", "told"), [("fail", "status 1"), ("die", "status -9"), ("nothing", "was not made")])
def test_a_failure_takes_what_depends_on_it_and_nothing_else(do, told, here, capsys):
    plan = Planned(job("distill", "b/1", do=do), job("evaluate", "b/2", "b/1"), job("choose", "b/3", "b/2"), *THREE)
    assert start(plan) == 1
    assert done() == ["b/1", "a/1", "a/2", "a/3"]
    out = capsys.readouterr().out
    assert "1/7 distill results/b/1: FAILED" in out
    assert told in out
    assert "2/7 evaluate results/b/2: left out, for want of results/b/1" in out
    assert "7/7 artifact results/papers/paper/p/claims.json: left out, for want of results/b/3" in out
    assert "3 jobs done, 4 left, 1 of them failed" in out
    assert len(lines("workers")) == (1 if do == "nothing" else 2)
    assert "results/a/2" in packed()


def test_a_stopped_job_ends_the_run_which_continues_from_what_it_packed(here, capsys):
    plan = Planned(THREE[0], job("evaluate", "b/2", "a/1", do="stop"), job("choose", "b/3", "b/2"))
    state = Path("results/b/.resume/2")
    state.parent.mkdir(parents=True)
    state.write_text("half")
    assert start(plan) == 75
    assert "stopped after" in capsys.readouterr().out
    assert packed() == ["results/a/1", "results/b/.resume/2"]
    subprocess.run(["rm", "-r", "results", "seen"], check=True, timeout=20)
    plan.jobs[1].config["do"] = "make"
    assert start(plan) == 0
    assert done() == ["b/2", "b/3", "papers/paper/p/claims.json"]
    assert state.read_text() == "half"


def test_a_job_that_was_asked_to_stop_and_was_done_counts_as_done(here):
    assert start(Planned(job("evaluate", "a/1", do="stopped late"), job("choose", "a/2", "a/1"))) == 0


def test_weights_that_are_left_to_use_are_packed_and_others_not(here):
    weights = "pretrained/net/epoch1/seed0.safetensors"
    used = "pretrained/net/epoch0/seed0.safetensors"
    plan = Planned(job("pretrain", used), job("pretrain", weights, used), job("choose", "a/1", weights, do="stop"))
    assert start(plan) == 75
    assert packed() == [f"results/{weights}"]
    start(plan, keep=["pretrained"])
    assert packed() == [f"results/{used}", f"results/{weights}"]
    plan.jobs[2].config["do"] = "make"
    assert start(plan) == 0
    assert packed() == ["results/a/1", "results/papers/paper/p/claims.json"]


def test_weights_that_came_travel_on_whatever_this_run_was_to_make(here):
    """Of a job that is left for later, and of another paper."""
    weights, other = "pretrained/net/epoch1/seed0.safetensors", "results/experts/net/expert0.safetensors"
    plan = Planned(job("pretrain", weights), job("choose", "a/1", weights, do="stop"), job("choose", "b/1"))
    Path(other).parent.mkdir(parents=True)
    Path(other).write_text("of another paper")
    assert start(plan, keep=["experts"]) == 75
    assert packed() == sorted([other, f"results/{weights}"])
    for folder in ("results", "logs"):
        subprocess.run(["rm", "-r", folder], check=True, timeout=20)
    assert start(plan, only=["*/b/1"]) == 0  # what it was asked for is there, and needed no weights
    assert packed() == sorted(["results/b/1", other, f"results/{weights}"])
    plan.jobs[1].config["do"] = "make"
    assert start(plan) == 0
    assert packed() == sorted(["results/a/1", "results/b/1", other, "results/papers/paper/p/claims.json"])


def test_time_is_kept_to_pack_what_there_is_to_pack(here, monkeypatch, capsys):
    Path("results/a").mkdir(parents=True)
    Path("results/a/there").write_bytes(b"x" * 3000)
    monkeypatch.setattr(module, "PACKED", 100.0)  # 30 seconds
    assert start(Planned(*THREE)) == 0
    first = json.loads(lines("seen")[0])["argv"]
    assert 20 < float(first[8]) <= 24  # of 60, 6 to save
    Path("results/a/3").unlink()
    Path("away/results.tar.gz").unlink()
    capsys.readouterr()
    assert start(Planned(*THREE), budget=30) == 75
    assert "budget: 30 seconds are too few to begin a job: 33 are for saving and packing" in capsys.readouterr().out


def test_what_grows_while_jobs_run_is_reckoned_with(here, monkeypatch):
    monkeypatch.setattr(module, "PACKED", 0.05)  # "made" takes 80 seconds
    assert start(Planned(job("distill", "a/1", do="slow"), *THREE[1:])) == 75
    assert done() == ["a/1"]


@pytest.mark.parametrize("do", ["hang", "deaf"])
def test_a_job_that_does_not_stop_by_itself_is_ended_in_time(do, here, monkeypatch):
    monkeypatch.setattr(module, "RESERVE", (1.0, 1.0))
    began = time.monotonic()
    assert start(Planned(job("choose", "a/1", do=do), THREE[0]), budget=2.5) == 75
    assert time.monotonic() - began < 6
    assert done() == ["a/1"]


def test_states_of_jobs_that_are_done_are_forgotten(here):
    one = job("distill", "d/seed0/distilled.safetensors")
    plan = Planned(one, job("evaluate", "a/1"), job("evaluate", "a/2", do="stop"))
    gone = ["d/seed0/.resume/state.safetensors", "d/seed0/.resume/steps/5.safetensors", "a/.resume/1", "a/.resume/1.job.json"]
    for name in (*gone, "a/.resume/2", "a/.resume/2.job.json"):
        Path("results", name).parent.mkdir(parents=True, exist_ok=True)
        Path("results", name).write_text("state")
    for name in ("d/seed0/distilled.safetensors", "a/1"):
        Path("results", name).write_text("there")
    assert start(plan, only=["*/a/2"]) == 75
    assert packed() == ["results/a/.resume/2", "results/a/.resume/2.job.json", "results/a/1", "results/d/seed0/distilled.safetensors"]


def test_numerical_libraries_have_the_threads_that_they_have_under_snakemake(here, monkeypatch):
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-c", "import os; open('env', 'w').write(str(dict(os.environ)))"))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert start(Planned(*THREE), threads=3) == 1
    assert "'OMP_NUM_THREADS': '3'" in Path("env").read_text()


def test_with_no_time_left_it_only_unpacks(here):
    start(Planned(*THREE))
    subprocess.run(["rm", "-r", "results", "seen"], check=True, timeout=20)
    assert start(Planned(*THREE), budget=1.0) == 75
    assert done() == []
    assert Path("results/a/3").read_text() == "made"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_it_with_everything_packed(number, here):
    before = signal.getsignal(number)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    timer.start()
    began = time.monotonic()
    assert start(Planned(THREE[0], job("choose", "a/2", "a/1", do="hang"))) == 75
    assert time.monotonic() - began < 10
    assert packed() == ["results/a/1"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("only", "made"),
    [(["table1"], ["a/1"]), (["results/a/[12]"], ["a/1", "a/2"]), (["*/a/3"], ["a/1", "a/2", "a/3"]), (["table1", "*/b/1"], ["b/1", "a/1"])],
)
def test_only_some_with_what_they_need(only, made, here):
    assert start(Planned(job("choose", "b/1"), *THREE), only=only) == 0
    assert done() == made


def test_a_pattern_without_a_match_names_the_nearest(here):
    with pytest.raises(ConfigError, match="value 'tabel1' is no table or figure; did you mean 'table1'"):
        start(Planned(*THREE), only=["tabel1"])
    with pytest.raises(ConfigError, match="keep: value 'expert'; did you mean 'experts'"):
        start(Planned(*THREE), keep=["expert"])
    assert not Path("results").exists()


def test_a_damaged_archive_ends_it_before_anything(here):
    Path("away").mkdir()
    Path("away/results.tar.gz").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="is damaged"):
        start(Planned(*THREE))
    assert done() == []
    assert Path("away/results.tar.gz").read_bytes() == b"broken"


@pytest.mark.parametrize("lock", ["logs/.run.lock", "away/.run.lock"])
def test_a_second_run_is_refused_while_the_first_or_its_worker_lives(lock, here, monkeypatch):
    monkeypatch.setattr(atwork, "PATIENCE", 0.3)
    Path(lock).parent.mkdir()
    code = f"import fcntl, sys; f = open({lock!r}, 'w'); fcntl.flock(f, 2); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(DDError, match="another `dd run` is at work"):
            start(Planned(*THREE))
        holder.kill()
    assert start(Planned(*THREE)) == 0


def test_a_worker_that_died_between_two_jobs_costs_none(here, monkeypatch, capsys):
    def kill_it(job):
        if job.outputs[0].endswith("a/2"):
            pid = int(lines("workers")[-1].split()[-1])
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.01)
        return []

    monkeypatch.setattr(module, "arguments", kill_it)
    assert start(Planned(*THREE)) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert len(lines("workers")) == 2
    assert len(lines("seen")) == 4


@pytest.mark.parametrize("left", ["killed", "alive"])
def test_beside_a_snakemake_nothing_is_done(left, here):
    if left == "killed":
        Path(".snakemake/locks").mkdir(parents=True)
        Path(".snakemake/locks/0.output.lock").write_text("")
        holder = None
    else:
        code = "import sys; from pathlib import Path; from dd.slurm import head; head.take(Path('.'), False); print(1, flush=True); sys.stdin.read()"
        holder = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(module.__file__).resolve().parents[2])},
        )  # fmt: skip
        holder.stdout.readline()
    try:
        with pytest.raises(DDError, match=r"dd restart .*--unlock.*nothing was done" if holder is None else r"a Snakemake is at work here: process"):
            start(Planned(*THREE))
    finally:
        if holder is not None:
            holder.communicate(timeout=20)
    assert done() == []


def test_the_worker_holds_the_locks_of_a_run_that_was_killed(here):
    with atwork.locked(Path("logs")) as file, module.Crew(time.monotonic() + 20, 1, [file]) as crew:
        assert crew.do(["choose"], json.dumps({"do": "make", "outputs": []})) == 0
        (pid,) = (int(line.split()[-1]) for line in lines("workers"))
        held = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    assert str(here / "logs" / ".run.lock") in held


@pytest.mark.parametrize(
    ("raises", "status"),
    [(None, 0), (Stopped("asked"), 75), (SystemExit(2), 2), (SystemExit("text"), 1), (RuntimeError("CUDA error"), 1), (KeyError("x"), 1)],
)
def test_whatever_a_job_does_the_worker_answers(raises, status, monkeypatch, capsys):
    def main(argv):
        assert (argv, sys.stdin.read()) == (["choose"], "{}")
        if raises is not None:
            raise raises
        return 0

    monkeypatch.setattr(worker, "main", main)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert worker._call(["choose"], "{}") == status
    assert (type(raises).__name__ in capsys.readouterr().err) == isinstance(raises, (RuntimeError, KeyError))
