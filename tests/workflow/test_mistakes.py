"""What a person sees when something is wrong: a message that names it, a non-zero exit, and nothing half-written."""

import json
import os
import subprocess

import pytest

from dd.config import digest

pytestmark = pytest.mark.workflow


def refused(done, *words):
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "Traceback" not in text, text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


def test_an_unknown_key_in_config_yaml(project):
    project.config("scale: demo\npapers: [extractors]\ndevise: cpu\n")
    refused(project.snakemake("-n"), "config.yaml", "devise", "'device'")
    refused(project.dd("plan"), "config.yaml", "devise", "'device'")


def test_a_misspelt_paper_and_scale(project):
    project.config("scale: demoo\npapers: [extractors]\n")
    refused(project.snakemake("-n"), "config.yaml", "scale", "'demoo'", "'demo'")
    project.config("scale: demo\npapers: [extractor]\n")
    refused(project.dd("plan"), "config.yaml", "papers", "'extractor'", "'extractors'")


def test_check_says_everything_that_is_wrong(project):
    project.config("scale: demo\npapers: [mini]\ndatasets: {mine: {source: {kind: folder, path: /no/such/place}}}\n")
    project.edit("workflow/papers/mini.yaml", "method: [random, dm, herding]", "method: [random, dmm, herding]")
    project.edit("workflow/papers/compare.yaml", "eval_network: [convnet3_in]", "eval_network: [convnet33]")
    refused(project.dd("check"), "mini.yaml", "'dmm'", "compare.yaml", "convnet33", "datasets.mine", "'/no/such/place'")


def test_a_rate_that_yaml_reads_as_text(project):
    project.edit("workflow/papers/mini.yaml", "iterations: 30", "iterations: 30, lr_img: 1e-3")
    refused(project.snakemake("-n"), "mini.yaml", "lr_img", "'1e-3'", "0.001")


def test_more_images_than_the_smallest_class_has(project):
    project.edit("workflow/papers/mini.yaml", "ipc: [1]", "ipc: [140]")
    refused(project.snakemake("-n"), "mini.yaml", "ipc", "140", "1 to 139")


def test_a_path_that_does_not_exist(project):
    project.config("scale: paper\npapers: [mini]\ndatasets: {cifar10: {source: {kind: parquet, path: /no/such/place}}}\n")
    project.edit("workflow/papers/mini.yaml", "dataset: digits", "dataset: cifar10")
    refused(project.snakemake("data/prepared/cifar10/manifest.json"), "cifar10", "source.path", "'/no/such/place'")
    assert not list((project.root / "data").rglob("*.safetensors"))


def test_a_file_that_no_paper_asks_for(project):
    refused(project.snakemake("-n", "results/distilled/digits/dm/ipc1-00000000/seed0/distilled.safetensors"))


def copied(finished, project):
    """Give the project its own copy of the finished results."""
    import shutil

    for name in ("data", "results", ".snakemake"):
        shutil.copytree(finished.root / name, project.root / name)


def test_a_damaged_checkpoint_stops_the_job_that_reads_it(finished, project):
    copied(finished, project)
    (file,) = (project.root / "results/pretrained").rglob("epoch2/seed0.safetensors")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(bytes(content))
    (out,) = (project.root / "results/distilled/digits/herding").glob("ipc1-*/seed0")
    refused(
        project.dd("distill", "--config", str(out / "config.json"), "--dataset", "data/prepared/digits", "--seed", "0", "--need", str(file),
                   "--out", "elsewhere"),
        str(file), "damaged",
    )  # fmt: skip
    assert not [path for path in (project.root / "elsewhere").rglob("*") if path.is_file()]


def test_a_config_that_no_longer_hashes_to_its_id(finished, project):
    copied(finished, project)
    (folder,) = (project.root / "results/distilled/digits/dm").glob("ipc1-*/seed0")
    config = json.loads((folder / "config.json").read_text())
    assert folder.parent.name == f"ipc1-{digest(config)}"
    config["recipe"]["iterations"] = 31
    (folder / "config.json").write_text(json.dumps(config))
    scores = next((project.root / "results/scores" / folder.parent.name.split("-")[1]).rglob("set0-nets*1.json"))
    before = scores.read_bytes()
    scores.unlink()
    done = project.snakemake(str(scores.relative_to(project.root)))
    if done.returncode == 0:  # Snakemake saw the changed file and made the set again: the same bytes
        assert scores.read_bytes() == before
        assert json.loads((folder / "config.json").read_text())["recipe"]["iterations"] == 30
    evaluate = json.loads(before)["config"]
    (folder / "config.json").write_text(json.dumps(config))
    done = project.dd("evaluate", "--config", "-", "--dataset", "data/prepared/digits", "--distilled", str(folder / "distilled.safetensors"),
                      "--set", "0", "--nets", "0", "0", "--out", "x.json", stdin=json.dumps(evaluate))  # fmt: skip
    refused(done, "config.json", "hashes to", evaluate["distilled"])
    assert not (project.root / "x.json").exists()


def test_a_full_disk_loses_nothing(finished, project, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (config,) = (finished.root / "results/distilled/digits/random").glob("ipc1-*/seed0/config.json")
        done = project.dd("distill", "--config", str(config), "--dataset", str(finished.root / "data/prepared/digits"), "--seed", "0",
                          "--out", str(small / "set"))  # fmt: skip
        refused(done, str(small), "No space left", "nothing was changed")
        assert not list(small.rglob("*.safetensors")) and not list(small.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_arguments_that_make_no_sense(project):
    refused(project.dd("distil"), "invalid choice", "distill")
    refused(project.dd("show", "nothing.safetensors"), "nothing.safetensors", "no such file")
    refused(project.dd("distill", "--config", "-", "--dataset", "x", "--seed", "0", "--out", "y", stdin="{"), "standard input", "not JSON")
    refused(project.dd("prepare", "--config", "-", "--name", "digits", "--raw", "r", "--out", "o", "--threads", "1", stdin="[]"), "JSON object")
