"""run.json: what it says, that it loses no result, and that nothing heavy is imported for it."""

import json
import os
import subprocess
import sys
from datetime import datetime

import pytest

from dd import device, provenance
from dd.artifacts import write_text
from dd.provenance import noted, scheduled, write_run


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git checkout that stands in for the project, with one commit."""
    root = tmp_path / "checkout"
    for file in ("dd/a.py", "config.yaml"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("first\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def git(root, *args):
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_says_what_may_differ_between_two_runs(repository, tmp_path):
    with noted(tmp_path / "a.run.json", seeds=[1, 2]) as facts:
        facts["resumed"] = 3
    found = read(tmp_path / "a.run.json")
    assert found["commit"] == git(repository, "rev-parse", "HEAD") and found["dirty"] is False and "git" not in found
    assert found["device"] == "cpu" and found["seeds"] == [1, 2] and found["resumed"] == 3
    assert found["python"] == sys.version.split()[0] and found["numpy"] and found["dd"]
    assert found["peak_memory_mb"] > 5 and 0 <= found["seconds"] < 60 and found["host"]
    started, finished = (datetime.fromisoformat(found[key]) for key in ("started", "finished"))
    assert started <= finished and started.utcoffset().total_seconds() == 0


def test_the_commit_is_that_at_the_start(repository, tmp_path):
    first = git(repository, "rev-parse", "HEAD")
    with noted(tmp_path / "run.json"):
        (repository / "dd/a.py").write_text("second\n")
        git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", "second")
    assert read(tmp_path / "run.json")["commit"] == first != git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("file", "text", "dirty"),
    [("dd/a.py", "changed\n", True), ("dd/new.py", "a recipe that git does not know\n", True), ("workflow/x.yaml", "", True),
     ("config.yaml", "papers: []\n", False), ("results/a.json", "{}", False)],
)  # fmt: skip
def test_dirty_means_the_code_that_makes_results(repository, tmp_path, file, text, dirty):
    (repository / file).parent.mkdir(parents=True, exist_ok=True)
    (repository / file).write_text(text)
    write_run(tmp_path / "run.json")
    assert read(tmp_path / "run.json")["dirty"] is dirty


def test_a_commit_that_cannot_be_told_is_said_with_the_reason(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", repository / "dd")  # a copy inside somebody's own repository: not our commit
    write_run(tmp_path / "run.json")
    found = read(tmp_path / "run.json")
    assert found["commit"] is None and found["dirty"] is None and "no git checkout of its own" in found["git"]
    (tmp_path / "plain").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "plain")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    write_run(tmp_path / "run.json")
    assert "not a git repository" in read(tmp_path / "run.json")["git"]
    monkeypatch.setenv("PATH", str(tmp_path))
    write_run(tmp_path / "run.json")
    assert read(tmp_path / "run.json")["commit"] is None and "git" in read(tmp_path / "run.json")["git"]


def test_a_block_that_fails_leaves_the_earlier_note_alone(tmp_path):
    (tmp_path / "run.json").write_text('{"seconds": 1}')
    with pytest.raises(ValueError, match="broken"), noted(tmp_path / "run.json"):
        raise ValueError("broken")
    assert read(tmp_path / "run.json") == {"seconds": 1}


def test_a_note_that_cannot_be_written_loses_no_result(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.json").write_text('{"seconds": 1}')

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with noted(tmp_path / "run.json"):
        write_text(tmp_path / "result.json", "1")
        monkeypatch.setattr(os, "fsync", full)
    assert (tmp_path / "result.json").read_text() == "1"
    assert not (tmp_path / "run.json").exists(), "it would describe another run"
    told = capsys.readouterr().err
    assert "No space left on device" in told and "run.json" in told and "the result is there" in told
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_slurm_says_and_which_gpus_are_seen(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM") or name == "CUDA_VISIBLE_DEVICES"]:
        monkeypatch.delenv(name)
    assert scheduled() == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert scheduled() == {"cuda_visible_devices": ""}
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    assert scheduled()["slurm"] == {"job": "41", "node": "n1", "partition": "gpu"}


OUTER = """
import subprocess, sys
inner = "from dd.provenance import scheduled; print(scheduled().get('attempt'))"
subprocess.run(["bash", "-c", '"$0" -c "$1"; true', sys.executable, inner], check=True, timeout=60)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system does not show command lines under /proc")
@pytest.mark.parametrize(("words", "wanted"), [(["--attempt", "2"], "2"), (["--attempt", "x"], "None"), (["--attempt"], "None"), ([], "None")])
def test_the_attempt_is_that_of_the_snakemake_above(words, wanted):
    done = subprocess.run([sys.executable, "-c", OUTER, *words], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == wanted, done.stderr


def test_torch_is_not_imported_for_a_job_that_needs_none(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dd.provenance import noted\n"
        "with noted(Path(sys.argv[1])): pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.json")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "threads", "deterministic"} & set(read(tmp_path / "run.json"))


def test_how_torch_computed(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(device, "prepared", False)
    write_run(tmp_path / "run.json")
    assert not {"torch", "threads", "deterministic"} & set(read(tmp_path / "run.json")), "it is loaded, but did not compute"
    monkeypatch.setattr(device, "prepared", True)
    write_run(tmp_path / "run.json")
    found = read(tmp_path / "run.json")
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["deterministic"]["algorithms"] is torch.are_deterministic_algorithms_enabled()
