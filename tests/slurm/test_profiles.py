"""The profiles for clusters: complete, alike, and read by Snakemake where there is no SLURM."""

import re

import pytest
import yaml
from project import ROOT
from submitter import project

PROFILES = ("slurm", "slurm-gres")
GPU_STAGES = {"pretrain", "generator", "quality", "experts", "distill", "evaluate", "analyse"}


def profile(name):
    return yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text())


@pytest.mark.parametrize("name", PROFILES)
def test_every_stage_that_computes_on_a_device_gets_one_gpu_and_its_cpus(name):
    from dd.plan.command import DEVICED

    found = profile(name)
    stages = found["set-resources"]
    assert {stage for stage, asked in stages.items() if asked.get("gpu") or asked.get("gres")} == GPU_STAGES == set(DEVICED)
    for stage in GPU_STAGES:
        asked = stages[stage]
        assert (asked["gpu"], asked.get("gres")) == ((1, None) if name == "slurm" else (0, "gpu:1"))
        assert asked["cpus_per_task"] == found["set-threads"][stage]
        assert asked["slurm_partition"] == "GPU_PARTITION"
    for stage in stages.keys() - GPU_STAGES:
        assert "slurm_partition" not in stages[stage], f"{stage}: the partition of all that compute on a CPU"
        assert stages[stage].get("cpus_per_task") == found["set-threads"].get(stage)
    assert found["default-resources"]["nodes"] == 1


@pytest.mark.parametrize("name", PROFILES)
def test_time_and_memory_grow_with_the_attempt(name):
    found = profile(name)
    for asked in (found["default-resources"], *found["set-resources"].values()):
        assert re.fullmatch(r"\d+ \* attempt", asked["mem_mb"]) and int(asked["mem_mb"].split()[0]) >= 2000
        assert re.fullmatch(r"\d+ \* attempt", asked["runtime"]) and int(asked["runtime"].split()[0]) >= 60


@pytest.mark.parametrize("name", PROFILES)
def test_what_was_seen_to_go_wrong_is_not_there(name):
    found = profile(name)
    assert found["slurm-status-command"] == "squeue"
    assert found["slurm-no-requeue"] and found["slurm-pass-command-as-script"] and found["slurm-keep-successful-logs"]
    assert found["retries"] >= 1
    assert not {"slurm-array-jobs", "slurm-requeue", "groups", "group-components"} & set(found)
    assert not any("slurm_extra" in asked for asked in found["set-resources"].values())
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert not re.search(r"^\s*(retries|group):", rules.read_text(), re.MULTILINE), (
            f"{rules.name}: retries stand in the profile, and no groups"
        )


def test_the_two_differ_in_nothing_but_how_a_gpu_is_asked_for():
    first, second = (profile(name) for name in PROFILES)
    for asked in second["set-resources"].values():
        if asked.pop("gres", None):
            asked["gpu"] = 1
    assert first == second


@pytest.mark.parametrize("name", PROFILES)
def test_each_line_to_edit_is_marked(name):
    text = (ROOT / "profiles" / name / "profile.yaml").read_text()
    lines = [line for line in text.splitlines() if re.search(r": (ACCOUNT|CPU_PARTITION|GPU_PARTITION)\b", line)]
    assert len(lines) == 2 + len(GPU_STAGES)
    assert all("# EDIT" in line for line in lines)


@pytest.mark.workflow
@pytest.mark.parametrize("name", PROFILES)
def test_a_dry_run_needs_no_cluster(name, tmp_path):
    made = project(tmp_path / "project")
    done = made.snakemake("--profile", f"profiles/{name}", "-n", "mini", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (dm,) = re.findall(r"wildcards: dataset=digits, method=dm.*\n(?:.*\n)*?.*resources: (.*)", done.stdout + done.stderr)[:1]
    assert "slurm_partition=GPU_PARTITION" in dm and "runtime=480" in dm and "cpus_per_task=4" in dm
    assert ("gres=gpu:1" in dm) == (name == "slurm-gres")
    assert not (made.root / ".snakemake" / "head.json").exists(), "it is no head"
