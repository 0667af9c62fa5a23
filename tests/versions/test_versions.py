"""Results under DVC: whatever is checked out, pulled or changed, Snakemake and DVC agree on what is to be done, and nothing wrong is recorded."""

import os
import random

import pytest

from dd.config import load_yaml

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RECIPE = "dd/recipes/dm.py"
PAPER = "workflow/papers/mini.yaml"
MAKE = ("make", "-o", ".venv/.installed")  # what is installed is in the path already


@pytest.fixture
def clone(reproduced, tmp_path):
    """A clone of the small pipeline, of whose results nothing is pulled."""
    return reproduced.clone(tmp_path / "clone")


def shuffle_times(root):
    rng = random.Random(0)
    for folder in ("data", "results"):
        for path in sorted((root / folder).rglob("*")):
            when = 1.6e9 + 1e5 * rng.random()
            os.utime(path, (when, when))


def test_a_newcomer_pulls_and_has_nothing_to_do(clone, reproduced):
    said = clone.do(*MAKE, "pull")
    assert "Nothing to be done" in said
    assert clone.results() == reproduced.results()
    assert (clone.root / "results/report.html").read_bytes() == (reproduced.root / "results/report.html").read_bytes()
    shuffle_times(clone.root)
    clone.agree()
    assert clone.git("status", "--porcelain") == ""


def test_a_parameter_there_and_back(clone):
    """Change a parameter and code, commit, go back to the commit before, come again; get rid of the rest."""
    first = clone.lock()
    clone.do("dvc", "pull", "-q")
    rest = [path for path in clone.results() if "/herding/" in path or "/pretrained/" in path or "/prepared/" in path]
    before = {path: (clone.root / path).stat().st_mtime_ns for path in rest}
    (clone.root / "profiles/one").mkdir()
    (clone.root / "profiles/one/profile.yaml").write_text("set-resources: {distill: {mem_mb: 123}}\n")
    clone.edit(PAPER, "iterations: 3", "iterations: 4")
    code = (clone.root / RECIPE).read_text()
    (clone.root / RECIPE).write_text(f"{code}\nNOTHING = 0\n")
    assert clone.planned("everything") == {"distill": 1, "evaluate": 1, "draw_mini": 1, "all": 1, "everything": 1, "total": 5}
    said = clone.do("dvc", "repro", SNAKEMAKE_PROFILE="profiles/one")
    assert "mem_mb=123" in said
    assert {path: (clone.root / path).stat().st_mtime_ns for path in before} == before
    stages, asked = (load_yaml(clone.root / name)["stages"] for name in ("dvc.lock", "dvc.yaml"))
    assert {name: stage["cmd"] for name, stage in stages.items()} == {name: stage["cmd"] for name, stage in asked.items()}
    clone.agree()
    clone.commit("four iterations")
    second = clone.results()

    clone.git("checkout", "-q", "HEAD~1")
    clone.do("dvc", "checkout", "-q")
    assert clone.lock() == first
    clone.agree()

    clone.git("checkout", "-q", "-")
    clone.do("dvc", "checkout", "-q")
    assert clone.results() == second
    clone.agree()

    clone.edit(PAPER, "iterations: 4", "iterations: 3")
    (clone.root / RECIPE).write_text(code)
    assert len([path for path in clone.results() if path.endswith("distilled.safetensors")]) == 3
    assert "/dm/" in clone.do(*MAKE, "prune")
    assert clone.results() == second
    clone.do(*MAKE, "prune", "YES=1")
    clone.do("python", "-m", "dd", "pulled")
    clone.do("dvc", "commit", "-q", "--force")
    same = ("data/prepared", "results/pretrained", "results/distilled", "results/scores")
    assert {path: clone.lock()[path] for path in same} == {path: first[path] for path in same}


def test_results_without_records_are_not_locked(clone):
    """Without records of what results were made of, a change of code goes unnoticed: DVC would record old results beside the new code."""
    clone.do("dvc", "pull", "-q", "data/prepared", *(path for path in clone.lock() if path.startswith("results/")))
    locked = (clone.root / "dvc.lock").read_text()
    recipe = clone.root / RECIPE
    recipe.write_text(recipe.read_text() + "\nNOTHING = 0\n")
    for command in (("dvc", "repro"), ("snakemake",), ("snakemake", "-n")):
        done = clone.tried(*command)
        assert done.returncode != 0
        assert "dvc pull .snakemake/metadata" in done.stdout + done.stderr
    (clone.root / ".snakemake/metadata").mkdir(parents=True, exist_ok=True)
    (clone.root / ".snakemake/metadata/ZGF0YS9teS5qc29u").write_text("{}")  # one record, of something else, changes nothing
    for command in (("snakemake",), ("python", "-m", "dd", "pulled")):
        done = clone.tried(*command)
        assert done.returncode != 0
        assert "dvc pull .snakemake/metadata" in done.stdout + done.stderr
    assert (clone.root / "dvc.lock").read_text() == locked
    advice = "snakemake --touch --forceall everything"
    assert advice in done.stderr
    clone.do(*advice.split())
    clone.do("python", "-m", "dd", "pulled")
    assert clone.planned("everything") == {}
    clone.do("dvc", "pull", "-q", "--force", ".snakemake/metadata")
    planned = clone.planned()
    assert (planned["distill"], planned["evaluate"]) == (1, 1)


def test_a_partial_pull_computes_nothing_unasked(clone):
    clone.do(*MAKE, "pull", "WHAT=results/distilled results/scores")
    assert not (clone.root / "results/pretrained").exists()
    locked = (clone.root / "dvc.lock").read_text()
    clone.edit(PAPER, "ipc: [1]", "ipc: [2]")  # herding needs the networks again, at another size
    for command in (("snakemake",), ("dvc", "repro")):
        done = clone.tried(*command)
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert "results/pretrained: dvc.lock records it" in said and "DD_RECOMPUTE=1" in said
        assert "Traceback" not in said
    assert "dvc pull data/prepared results/pretrained" in said
    assert (clone.root / "dvc.lock").read_text() == locked
    assert not (clone.root / "results/experts").exists()
    assert not list(clone.root.glob(".snakemake/locks/*"))

    prepared = "data/prepared/digits/manifest.json"
    clone.do("snakemake", prepared, DD_RECOMPUTE="1")
    assert (clone.root / prepared).exists()


def test_make_says_what_is_missing(clone):
    clone.do("dvc", "remote", "remove", "-q", "local")
    done = clone.tried(*MAKE, "pull")
    assert done.returncode != 0 and "uncommitted changes" in done.stdout
    clone.commit("no remote")
    done = clone.tried(*MAKE, "pull")
    assert done.returncode != 0 and "no remote is set: dvc remote add" in done.stdout
    done = clone.tried(*MAKE, "push")
    assert done.returncode != 0 and "results and dvc.lock differ: dvc repro" in done.stdout
    clone.git("rm", "-q", "dvc.lock")
    clone.commit("no results")
    done = clone.tried(*MAKE, "pull")
    assert done.returncode != 0 and "dvc repro" in done.stdout
