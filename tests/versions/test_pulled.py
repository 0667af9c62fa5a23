"""What dvc.lock records and is not here."""

from base64 import urlsafe_b64encode

import pytest

from dd.errors import ArtifactError, ConfigError
from dd.plan.job import Job
from dd.plan.pulled import absent, demand, whole
from dd.plan.recorded import records

EXPERTS = "results/experts/digits/convnet3/0123abcd"
SET = "results/distilled/digits/dm/ipc1-0123abcd/seed0/distilled.safetensors"
LOCK = """
schema: '2.0'
stages:
  data:
    cmd: snakemake data
    outs:
    - {path: data/teachers, hash: md5, md5: d751713988987e9331980363e24189ce.dir, size: 0, nfiles: 0}
  results:
    cmd: snakemake
    outs:
    - {path: .snakemake/metadata, hash: md5, md5: 1d751713988987e9331980363e24189c.dir, size: 9, nfiles: 3}
    - {path: results/distilled, hash: md5, md5: 2d751713988987e9331980363e24189c.dir, size: 9, nfiles: 2}
    - {path: results/experts, hash: md5, md5: 3d751713988987e9331980363e24189c.dir, size: 9, nfiles: 2}
    - {path: results/report.html, hash: md5, md5: 4d751713988987e9331980363e24189c, size: 9}
"""


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")


def know(root, *paths, folder=".snakemake/metadata"):
    """Record files as Snakemake does: their names in base64, in folders where that is longer than a file's name may be."""
    for path in paths:
        name = urlsafe_b64encode(path.encode()).decode()
        parts = [name[at : at + 254] for at in range(0, len(name), 254)]
        write(root, "/".join([folder, *("@" + part for part in parts[:-1]), parts[-1]]))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout that has all but the experts."""
    monkeypatch.delenv("DD_RECOMPUTE", raising=False)
    (tmp_path / "dvc.lock").write_text(LOCK)
    write(tmp_path, SET)
    know(tmp_path, SET, f"{EXPERTS}/expert0.safetensors", f"{EXPERTS}/expert1.safetensors")
    return tmp_path


def job(*outputs):
    return Job("experts" if "experts" in outputs[0] else "distill", list(outputs), [], {}, [])


def test_absent_are_recorded_folders_with_files(root):
    assert absent(root) == ["results/experts"]
    (root / EXPERTS).mkdir(parents=True)
    assert absent(root) == ["results/experts"]
    write(root, f"{EXPERTS}/expert0.safetensors")
    assert absent(root) == []
    (root / "dvc.lock").unlink()
    assert absent(root) == []


def test_what_was_not_pulled_is_not_made_unasked(root, monkeypatch):
    with pytest.raises(ArtifactError, match=r"results/experts: dvc.lock .* not here; 2 of its files .*\n.*dvc pull results/experts .*DD_RECOMPUTE=1"):
        demand([f"{EXPERTS}/expert0.safetensors", f"{EXPERTS}/expert1.safetensors", SET], root=root)
    monkeypatch.setenv("DD_RECOMPUTE", "1")
    demand([f"{EXPERTS}/expert0.safetensors"], root=root)
    monkeypatch.setenv("DD_RECOMPUTE", "yes")
    with pytest.raises(ConfigError, match="DD_RECOMPUTE: value 'yes'; allowed: 1"):
        demand([], root=root)


def test_what_is_new_or_was_deleted_by_hand_or_is_remade_is_made(root):
    demand([f"{EXPERTS.replace('0123', '4567')}/expert0.safetensors", SET, "results/report.html", "results/scores/a.json"], root=root)
    write(root, f"{EXPERTS}/expert0.run.json")  # only the expert itself was deleted
    demand([f"{EXPERTS}/expert0.safetensors"], root=root)


def test_a_part_of_a_folder_that_was_not_pulled(root):
    write(root, "results/experts/cifar10/convnet3/89abcdef/expert0.safetensors")
    with pytest.raises(ArtifactError, match=r"results/experts.*; 1 of its files would be made again"):
        demand([f"{EXPERTS}/expert0.safetensors"], root=root)
    for jobs in ([job(f"{EXPERTS}/expert0.safetensors")], [job(SET)]):  # also what these papers do not ask for: dvc.lock would lose it
        with pytest.raises(ArtifactError, match=r"results/experts: dvc\.lock records it, but 2 of its files are not here\n.*dvc pull results/experts"):
            whole(jobs, root)


def test_results_without_records(root):
    for path in (root / ".snakemake/metadata").rglob("*"):
        path.unlink()
    with pytest.raises(ArtifactError, match=r"dvc pull \.snakemake/metadata"):
        demand([], root=root)
    know(root, SET, folder=".snakemake/incomplete")  # it is being made here
    demand([], [SET], root)


def test_results_without_records_beside_others_that_have_theirs(root, monkeypatch):
    """Such as pulled without Snakemake's records, where some were made here: Snakemake would keep them whatever changes."""
    strange = [SET.replace("seed0", f"seed{seed}") for seed in (1, 2)]
    write(root, *strange, "results/mine/own.json")
    outputs = [SET, *strange, SET.replace("seed0", "seed9"), "results/mine/own.json", "results/report.html"]
    with pytest.raises(ArtifactError, match=rf"{strange[0]}: .* \(2 such files\).*dvc pull \.snakemake/metadata.*--touch --forceall everything"):
        demand([], outputs, root)
    monkeypatch.setenv("DD_RECOMPUTE", "1")
    demand([], outputs, root)
    monkeypatch.delenv("DD_RECOMPUTE")
    know(root, *strange)
    demand([], outputs, root)
    (root / "dvc.lock").unlink()
    write(root, SET.replace("seed0", "seed3"))
    demand([], [SET.replace("seed0", "seed3")], root)


def test_a_clone_without_any_result_makes_them_all(root):
    (root / SET).unlink()
    for path in (root / ".snakemake/metadata").rglob("*"):
        path.unlink()
    demand([SET, f"{EXPERTS}/expert0.safetensors"], [SET, f"{EXPERTS}/expert0.safetensors"], root)
    with pytest.raises(ArtifactError, match=r"results/experts: dvc\.lock"):
        whole([job(SET)], root)


def test_dvc_records_nothing_that_is_absent_or_of_unknown_origin(root, monkeypatch):
    with pytest.raises(ArtifactError, match=r"results/experts: dvc\.lock records it, but it is not here\n"):
        whole([job(SET)], root)
    monkeypatch.setenv("DD_RECOMPUTE", "1")
    whole([job(SET), job(f"{EXPERTS}/expert0.safetensors")], root)
    strange = SET.replace("seed0", "seed1")
    write(root, strange, "data/raw/digits/file")
    with pytest.raises(ArtifactError, match=rf"{strange}: Snakemake has no record of how it was made \(1 such files\)"):
        whole([job(SET, strange), Job("download", ["data/raw/digits/file"], [], {}, [])], root)
    know(root, strange, folder=".snakemake/incomplete")
    whole([job(SET, strange)], root)


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> x\n", "stages: [1]\n", "stages: {a: {outs: [1]}}\n"])
def test_a_lock_that_is_none(root, text):
    (root / "dvc.lock").write_text(text)
    with pytest.raises(ArtifactError, match=r"dvc\.lock: is not what dvc writes"):
        absent(root)


def test_records_of_long_names(tmp_path):
    long = "results/distilled/" + "x" * 400 + "/seed0/distilled.safetensors"
    know(tmp_path, SET, long)
    write(tmp_path, ".snakemake/metadata/migration", ".snakemake/metadata/other/eA==")
    assert set(records(tmp_path / ".snakemake/metadata")) == {SET, long}
