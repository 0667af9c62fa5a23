"""The command of a rule, as Snakemake runs it: signals to all of its processes, and an end of the log, cost no state and no status."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dd.__main__ import CONTINUE, main
from dd.config import hashed
from dd.config.stages import Dataset, DistillConfig
from dd.plan.command import shell
from dd.verbs import jobs, people


def filled(stage: str, args: list[str], config: str, log: Path, stop: str = "", code: str = "0123456789ab") -> str:
    """Return a rule's command with what Snakemake fills in."""
    text = shell(stage)
    fields = {"params.args": shlex.join(args), "params.cfg:q": shlex.quote(config), "log:q": shlex.quote(str(log)), "threads": "1",
              "DEVICE": "cpu", "params.stop": stop, "params.code": code}  # fmt: skip
    for field, value in fields.items():
        text = text.replace("{" + field + "}", value)
    assert "{params" not in text and "{log" not in text
    return f"set -euo pipefail; {text}"


def distillation(digits: Path, out: Path, iterations: int, **recipe: object) -> tuple[list[str], str]:
    settings = {"iterations": iterations, "batch_real": 16, "extractor": {"network": "convnet3_in_w8"}, **recipe}
    config = DistillConfig(dataset=Dataset(name="digits", fingerprint=None), method="dm", ipc=1, recipe=settings)
    args = ["--dataset", str(digits), "--seed", "0", "--save-every", "1000", "--out", str(out)]
    return args, json.dumps(hashed(config))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_says_so(number, digits_dir, tmp_path):
    args, config = distillation(digits_dir, tmp_path / "set", 100_000)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    job = subprocess.Popen(["bash", "-c", filled("distill", args, config, tmp_path / "log")], env={**os.environ, "PATH": path},
                           stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    try:
        end = time.monotonic() + 90
        while not (tmp_path / "set/.resume/state.safetensors.job.json").exists():
            assert job.poll() is None and time.monotonic() < end, "it did not begin"
            time.sleep(0.02)
        time.sleep(1.0)
        os.killpg(job.pid, number)
        said = job.communicate(timeout=60)[1]
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == CONTINUE, said
    assert "start again to continue" in said and "start again to continue" in (tmp_path / "log").read_text()
    assert (tmp_path / "set/.resume/state.safetensors").is_file()


def test_other_code_begins_anew(digits_dir, tmp_path, monkeypatch):
    """A state of other code would make a set of neither: it must be the set that the present code makes from the beginning."""
    sets = {}
    for name, codes in (("mixed", ("a" * 12, "b" * 12)), ("same", ("a" * 12, "a" * 12))):
        out = tmp_path / name
        args, config = distillation(digits_dir, out, 30)
        (tmp_path / "config.json").write_text(config)
        call = ["distill", "--config", str(tmp_path / "config.json"), *args, "--device", "cpu", "--code"]
        assert main([*call, codes[0], "--stop-after", "0.000001"]) == CONTINUE
        assert main([*call, codes[1]]) == 0
        sets[name] = json.loads((out / "run.json").read_text())["resumed"], (out / "distilled.safetensors").read_bytes()
    assert (sets["mixed"][0], sets["same"][0]) == (0, 1)
    assert sets["mixed"][1] == sets["same"][1]


@pytest.mark.parametrize(("module", "verb", "status"), [(people, "check", 0), (jobs, "choose", 1)])
def test_who_reads_may_leave_but_a_job_that_was_cut_off_is_not_done(module, verb, status, monkeypatch):
    def cut(args):
        raise BrokenPipeError

    cut.__module__ = module.__name__
    monkeypatch.setattr(module, verb, cut)
    monkeypatch.setattr("sys.stderr", open(os.devnull, "w"))  # noqa: SIM115
    assert main([verb, *(["--config", "-", "--out", "x"] if verb == "choose" else [])]) == status


def test_a_configuration_in_a_json_file_is_json(tmp_path):
    (tmp_path / "c.json").write_text('{"lr": 1e-05}')
    assert jobs._config(str(tmp_path / "c.json")) == {"lr": 1e-05}


@pytest.mark.parametrize("args", [["--threads", "0"], ["--device", "gpu"], ["--stop-after", "-1"], ["--stop-after", "nan"]])
def test_numbers_and_devices_are_checked_before_anything_else(args, capsys):
    with pytest.raises(SystemExit) as end:
        main(["distill", "--config", "-", "--dataset", "d", "--seed", "0", "--out", "o", *args])
    assert end.value.code == 2 and "allowed: " in capsys.readouterr().err
