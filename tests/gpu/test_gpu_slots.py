"""Jobs that start side by side on one machine take different GPUs, whatever becomes of those before them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOLD = "import os, sys; from dd import gpu; print(gpu.claim(), os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); sys.stdin.read()"


def listing(count: int) -> str:
    return "".join(f"GPU {number}: NVIDIA H200 (UUID: GPU-{number}abc)\n" for number in range(count))


class Machine:
    """A machine with a pretended nvidia-smi, and jobs that hold what they claimed until they are told to end."""

    def __init__(self, root: Path) -> None:
        self.root, self.jobs = root, []
        for name in ("bin", "tmp", "home"):
            (root / name).mkdir()
        self.env = {"PATH": f"{root / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(root / "tmp"),
                    "HOME": str(root / "home"), "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip

    def lists(self, text: str, status: int = 0) -> None:
        smi = self.root / "bin" / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] || exit 9\ncat <<'END'\n{text}END\nexit {status}\n")
        smi.chmod(0o755)

    def start(self, code: str = HOLD, **env: str) -> subprocess.Popen:
        job = subprocess.Popen(
            [sys.executable, "-c", code], env={**self.env, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.jobs.append(job)
        return job

    def claim(self, **env: str) -> tuple[subprocess.Popen, str, str]:
        """Start a job; return it, what it claimed, and the variable that CUDA reads."""
        job = self.start(**env)
        return job, *job.stdout.readline().split()

    def folder(self) -> Path:
        (found,) = (self.root / "tmp").glob("dd-gpus-*")
        return found


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    for job in made.jobs:
        job.kill()
        job.wait(20)
        for pipe in (job.stdin, job.stdout, job.stderr):
            pipe.close()


@pytest.mark.parametrize("gpus", [2, 4])
def test_eight_jobs_that_start_at_once_spread_evenly(machine, gpus):
    machine.lists(listing(gpus))
    jobs = [machine.start() for _ in range(8)]
    claimed = [job.stdout.readline().split() for job in jobs]
    assert all(taken == visible for taken, visible in claimed)
    assert Counter(taken for taken, _ in claimed) == {f"GPU-{number}abc": 8 // gpus for number in range(gpus)}


def test_a_killed_job_lets_go_although_a_program_that_it_started_lives_on(machine):
    machine.lists(listing(2))
    child = "import subprocess; from dd import gpu; taken = gpu.claim(); c = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=-3)"
    holder = machine.start(f"{child}; print(taken, c.pid, flush=True); c.wait()")
    taken, pid = holder.stdout.readline().split()
    _, other, _ = machine.claim()
    assert {taken, other} == {"GPU-0abc", "GPU-1abc"}
    holder.send_signal(signal.SIGKILL)
    holder.wait(20)
    try:
        os.kill(int(pid), 0)  # it does live on
        assert machine.claim()[1] == taken
        assert machine.claim()[1] == "GPU-0abc"  # the next depth begins with the first
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_of_gpus_that_the_user_lists_each_job_takes_one(machine):
    machine.lists(listing(8))
    taken = [machine.claim(CUDA_VISIBLE_DEVICES="5, 3,-1,7")[1] for _ in range(3)]
    assert taken == ["5", "3", "5"]


def test_jobs_inside_an_allocation_with_several_gpus_spread_over_its_own(machine):
    """SLURM may number the GPUs of each allocation from 0: those of the user's next one are others."""
    machine.lists(listing(8))
    first, second = ({"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_JOB_ID": number} for number in ("7", "8"))
    assert [machine.claim(**env)[1] for env in (first, second, first, second, first)] == ["0", "0", "1", "1", "2"]
    assert [machine.claim(SLURM_JOB_ID="7")[1] for _ in range(2)] == ["GPU-0abc", "GPU-1abc"]


@pytest.mark.parametrize(
    ("gpus", "env", "visible"),
    [
        (4, {"CUDA_VISIBLE_DEVICES": "2"}, "2"),
        (4, {"CUDA_VISIBLE_DEVICES": "-1"}, "-1"),
        (4, {"CUDA_VISIBLE_DEVICES": "2", "SLURM_JOB_ID": "7"}, "2"),
        (1, {"SLURM_JOB_ID": "7"}, "None"),
        (1, {}, "None"),
        (0, {}, "None"),
    ],
)
def test_where_there_is_nothing_to_choose_nothing_changes(machine, gpus, env, visible):
    machine.lists(listing(gpus))
    assert machine.claim(**env)[1:] == ("None", visible)
    assert not list((machine.root / "tmp").iterdir())


@pytest.mark.parametrize("broken", ["absent", "fails"])
def test_without_a_working_driver_nothing_changes(machine, broken):
    if broken == "fails":
        machine.lists("Failed to initialize NVML: (UUID: GPU-x)\n(UUID: GPU-y)\n", status=9)
    assert machine.claim()[1:] == ("None", "None")


def test_of_a_divided_gpu_the_parts_are_taken(machine):
    machine.lists(
        "GPU 0: NVIDIA H200 (UUID: GPU-0abc)\n  MIG 1g.18gb  Device  0: (UUID: MIG-1/7/0)\n  MIG 1g.18gb  Device  1: (UUID: MIG-2)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-1abc)\n"
    )
    assert [machine.claim()[1] for _ in range(4)] == ["MIG-1/7/0", "MIG-2", "GPU-1abc", "MIG-1/7/0"]


def test_the_folder_of_locks_is_the_users_alone(machine):
    machine.lists(listing(2))
    machine.claim()
    assert stat.S_IMODE(machine.folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", ["link", "writable", "foreign", "file", "locked link"])
def test_a_planted_folder_is_not_used(machine, planted, tmp_path):
    machine.lists(listing(2))
    job, first, _ = machine.claim()
    job.kill()
    job.wait(20)
    folder, elsewhere = machine.folder(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    if planted == "locked link":  # a lock that is a link would have a file of the planter's choice opened, or made
        (folder / f"{first}.0").unlink()
        (folder / f"{first}.0").symlink_to(elsewhere / "made")
    else:
        for path in folder.iterdir():
            path.unlink()
        if planted in ("link", "file"):
            folder.rmdir()
            folder.symlink_to(elsewhere) if planted == "link" else folder.write_text("")
        elif planted == "writable":
            folder.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(folder, 12345, -1)
        else:
            folder.chmod(0o770)
    taken = [machine.claim()[1] for _ in range(2)]
    assert taken == ["GPU-0abc", "GPU-1abc"]
    assert not list(elsewhere.iterdir())
    assert len(list((machine.root / "home" / ".cache").glob("dd-gpus-*/GPU-*"))) == 2
    assert planted == "locked link" or not folder.is_dir() or not list(folder.iterdir())


def test_without_any_folder_the_job_runs_and_says_so(machine):
    machine.lists(listing(2))
    job, _, _ = machine.claim()
    job.kill()
    job.wait(20)
    folder = machine.folder()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("no folder")
    (machine.root / "home" / ".cache").write_text("no folder")
    job, taken, visible = machine.claim()
    assert (taken, visible) == ("None", "None")
    job.kill()
    assert "no folder for locks" in job.communicate(timeout=20)[1]
