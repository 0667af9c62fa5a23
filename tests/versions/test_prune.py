"""What no paper asks for, found and deleted."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from project import Project
from versioned import SMALL

from dd.errors import ArtifactError, ConfigError, DDError
from dd.plan import Plan, atwork
from dd.plan.papers import load_settings
from dd.plan.prune import DEPTHS, prune
from dd.plan.summary import run_file

CHOSEN = """
overrides:
  - {when: {method: dm}, set: {recipe.iterations: 3, recipe.steps: [1], step: {split: test}}}
"""
OLD = "results/distilled/digits/dm/ipc1-00000000/seed0"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with two papers at two scales, and an empty file for everything that these ask for: a choice, too."""
    made = Project(tmp_path / "project", papers=())
    (made.root / "workflow/papers/mini.yaml").write_text(SMALL + CHOSEN)
    (made.root / "workflow/papers/other.yaml").write_text(SMALL.replace("mini", "other").replace("sets: 1", "sets: 3").replace("dm,", "random,"))
    for path in (made.root / "workflow/scales").iterdir():
        path.unlink()
    (made.root / "workflow/scales/paper.yaml").write_text("scale: paper\ntitle: as printed\n")
    (made.root / "workflow/scales/tiny.yaml").write_text("scale: tiny\ntitle: tiny\ncap: {recipe.iterations: 2}\n")
    monkeypatch.chdir(made.root)
    monkeypatch.setattr(atwork, "PATIENCE", 0.2)
    make("logs/.run.lock", record=False)
    for scale in ("paper", "tiny"):
        for job in asked(scale):
            for path in job.outputs:
                make(path, log=f"logs/{job.stage}/{Path(path).stem}.log")
            if file := run_file(job):
                make(str(file), record=False)
    return made.root


def settings(**change):
    return load_settings(Path("config.yaml")).model_copy(update=change)


def asked(scale):
    return [job for job in Plan(settings(scale=scale), Path("workflow")).jobs.values() if job.stage != "download"]


def make(path, text="", log=None, record=True):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    if record:
        place = Path(".snakemake/metadata", urlsafe_b64encode(path.encode()).decode())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"log": [log] if log else []}))
    if log:
        make(log, record=False)


def files():
    return {str(path) for path in Path(".").rglob("*") if path.is_file()}


def sweep(yes=True, **change):
    return prune(settings(**change), Path("workflow"), "config.yaml", yes)


def test_what_any_paper_asks_for_at_any_scale_is_kept(root):
    before = files()
    assert sweep().startswith("nothing to prune")
    assert files() == before
    assert sweep(sets=1, nets=7).startswith("nothing to prune")  # the paper itself says 3
    assert files() == before
    assert {path for path in before if path.endswith("distilled.safetensors")}  # the fixture made something
    assert list(Path("results/choices").glob("????????.run.json"))  # beside a single file, too


def test_the_rest_goes_with_its_log_and_its_record(root):
    before = files()
    gone = [f"{OLD}/{name}" for name in ("distilled.safetensors", "config.json")]
    for path in gone:
        make(path, "x" * 500_000, log="logs/distill/old.log")
    make(f"{OLD}/run.json", json.dumps({"seconds": 7200}), record=False)
    make(f"{OLD}/.resume/state.safetensors", record=False)
    Path(OLD, ".resume/steps").mkdir()
    make("results/choices/00000000.json")
    make("results/choices/00000000.run.json", record=False)
    make("data/prepared/old/manifest.json")
    make("results/papers/tiny/gone/claims.json")
    after = files()

    told = sweep(yes=False)
    assert files() == after
    row = next(line for line in told.splitlines() if "dm/ipc1-00000000" in line).split()
    assert row == ["1.0", "2.00", "4", "results/distilled/digits/dm/ipc1-00000000"]
    for name in ("results/choices/00000000.json", "data/prepared/old", "results/papers/tiny/gone"):
        assert any(line.endswith(f"  {name}") for line in told.splitlines())
    assert "in all" in told and "Nothing was deleted" in told and "prune --yes" in told

    told = sweep()
    assert "dvc commit" not in told and told.endswith("Deleted.")
    assert files() == before
    assert not Path("results/distilled/digits/dm/ipc1-00000000").exists()
    assert all(Path(kind).is_dir() for kind in DEPTHS if kind in ("results/choices", "data/prepared", "results/papers"))


def test_of_a_kept_result_only_what_was_made_and_is_not_asked_for_goes(root):
    folder = next(Path(job.outputs[0]).parents[1] for job in asked("paper") if job.stage == "distill" and "random" in job.outputs[0])
    scores = next(Path(job.outputs[0]).parent for job in asked("paper") if job.stage == "evaluate")
    make(f"{folder}/seed0/.resume/state.safetensors", record=False)
    make(f"{folder}/seed0/notes.txt", record=False)
    make(f"{folder}/notes.txt", record=False)
    before = files()
    make(f"{folder}/seed7/distilled.safetensors")
    make(f"{folder}/seed7/run.json", record=False)
    make(f"{folder}/seed7/.resume/state.safetensors", record=False)
    make(f"{folder}/seed0/steps/5.safetensors")
    make(f"{folder}/seed0/.distilled.safetensors.123.tmp", record=False)
    make(f"{scores}/set0-nets0-0.csv")
    make(f"{scores}/set0-nets5-9.json")
    make(f"{scores}/set0-nets5-9.run.json", record=False)
    told = sweep()
    assert f"{folder} (a part of it)" in told and f"{scores} (a part of it)" in told
    assert files() == before


def test_what_is_being_made_is_kept(root):
    """A result that is asked for and not finished: all there is of it is a folder to resume from."""
    file = next(job.outputs[0] for job in asked("paper") if job.stage == "pretrain")
    Path(file).unlink()
    Path(file).with_suffix(".run.json").unlink()
    make(str(Path(file).parent / ".resume" / Path(file).name), record=False)
    before = files()
    sweep()
    assert files() == before


def test_a_log_of_two_jobs_stays_while_one_of_them_is_kept(root):
    file = next(job.outputs[0] for job in asked("paper") if job.stage == "pretrain")
    make(file, log="logs/pretrain/seeds0to9.log")
    make(file.replace("seed0", "seed9"), log="logs/pretrain/seeds0to9.log")
    sweep()
    assert not Path(file.replace("seed0", "seed9")).exists()
    assert Path("logs/pretrain/seeds0to9.log").exists()


def test_nothing_else_is_touched(root):
    for path in ("results/mine/x.json", "results/code/abc.json", "results/report.html", "data/raw/digits/x", "data/mine/x", "x", "logs/x.log"):
        make(path)
    make(f"{OLD}/distilled.safetensors", log="../outside.log")
    Path("elsewhere").mkdir()
    make("elsewhere/file", record=False)
    Path("results/distilled/link").symlink_to(root / "elsewhere")
    before = files()
    sweep()
    assert {path for path in before - files() if not path.startswith(".snakemake")} == {f"{OLD}/distilled.safetensors"}
    assert (root.parent / "outside.log").exists() and Path("elsewhere/file").exists()


def test_records_of_files_that_are_gone(root):
    before = files()
    make(f"{OLD}/distilled.safetensors")
    Path(OLD, "distilled.safetensors").unlink()
    make("results/mine/x.json")
    Path("results/mine/x.json").unlink()
    sweep()
    assert files() - before == {".snakemake/metadata/" + urlsafe_b64encode(b"results/mine/x.json").decode()}


def test_a_workflow_that_runs_is_left_alone(root):
    make(f"{OLD}/distilled.safetensors")
    make(".snakemake/locks/0.output.lock", record=False)
    before = files()
    assert "Nothing was deleted" in sweep(yes=False)
    with pytest.raises(ArtifactError, match=r"locks: a Snakemake is at work.*dd restart.*--unlock.*nothing was deleted"):
        sweep()
    assert files() == before


def test_a_run_without_snakemake_is_left_alone(root):
    make(f"{OLD}/distilled.safetensors")
    before = files()
    with atwork.locked(Path("logs")):
        with pytest.raises(DDError, match=r"logs/\.run\.lock: another `dd run` is at work here"):
            sweep()
        assert files() == before
        assert "a `dd run` is at work here" in atwork.run_at_work(root)
    assert atwork.run_at_work(root) is None
    sweep()
    assert not Path(OLD).exists()


def test_folders_of_states_that_were_used_do_not_keep_a_result(root):
    make(f"{OLD}/distilled.safetensors")
    Path(OLD, ".resume/steps").mkdir(parents=True)
    sweep()
    assert not Path(OLD).parent.exists()


def test_a_mistake_in_a_paper_deletes_nothing(root):
    make(f"{OLD}/distilled.safetensors")
    Path("workflow/papers/other.yaml").write_text("paper: other\ntitel: x\n")
    before = files()
    with pytest.raises(ConfigError, match="titel"):
        sweep()
    assert files() == before


def test_dvc_is_told(root):
    make(f"{OLD}/distilled.safetensors")
    Path("dvc.lock").write_text("stages: {}\n")
    assert "dvc.lock still records them: python -m dd pulled && dvc commit" in sweep()
