"""The verbs for people."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow


def test_plan_tells_what_is_there_and_what_is_new(finished, project):
    done = finished.dd("plan", "mini", "--rate", "20")
    assert done.returncode == 0, done.stderr
    last = next(line for line in done.stdout.splitlines() if line.startswith("all"))
    assert last.split()[1] == "0"  # nothing new
    fresh = project.dd("plan", "mini", "--rate", "20")
    rows = {line.split()[0]: line.split()[1:3] for line in fresh.stdout.splitlines()[1:-1]}
    assert rows["distill"] == ["3", "0"]
    assert rows["pretrain"] == ["2", "0"]  # epochs 1 and 2 of herding's network


def test_check_finds_nothing_wrong_with_the_project_itself(checkout):
    checkout.config("scale: demo\npapers: [extractors]\n")
    done = checkout.dd("check")
    assert done.returncode == 0, done.stderr
    assert "no mistakes" in done.stdout


def test_show_writes_a_picture(finished, tmp_path):
    from PIL import Image

    (file,) = (finished.root / "results/distilled/digits/dm").glob("ipc1-*/seed0/distilled.safetensors")
    done = finished.dd("show", str(file), "--out", str(tmp_path / "set.png"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "set.png") as image:
        assert image.height > 10 * 16  # ten rows, a class each
        assert len(set(image.convert("L").getdata())) > 50


def test_record_keeps_every_networks_accuracy_and_how_it_was_made(finished, tmp_path):
    done = finished.dd("record", "mini", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mini-paper"
    text = (folder / "README.md").read_text()
    for word in ("device: cpu", "torch:", "seconds of work", "distill"):
        assert word in text
    cells = json.loads((folder / "scores.json").read_text())
    assert {cell["at"]["method"] for cell in cells} == {"random", "dm", "herding"}
    assert all(len(cell["scores"]) == 2 and 0 <= cell["scores"][0]["accuracy_last"] <= 1 for cell in cells)
    assert (folder / "methods.png").exists()


def test_record_refuses_what_is_not_finished(project):
    done = project.dd("record", "mini")
    assert done.returncode == 1
    assert "not finished" in done.stderr and "snakemake mini" in done.stderr
    assert not (project.root / "records").exists()


def test_the_index_has_every_id(finished):
    import csv

    rows = list(csv.DictReader((finished.root / "results/index.csv").open()))
    assert {row["stage"] for row in rows} == {"pretrain", "distill", "evaluate"}
    for row in rows:
        assert len(row["id"]) == 8
        json.loads(row["config"])


@pytest.mark.parametrize("modules", [("snakemake", "dvc"), ("snakemake", "dvc", "torchvision", "matplotlib", "pandas")])
def test_the_library_runs_without_the_workflow(modules):
    code = f"import sys; sys.modules.update(dict.fromkeys({modules!r})); import dd.verbs.jobs, dd.verbs.people, dd.distill, dd.evaluation.run, dd.train.pretrain"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_needs_nothing_heavy():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'pandas', 'matplotlib', 'sklearn')))\n"
        "from dd.__main__ import main\nmain(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout
