"""A long job saves its state when its time is over or when it is asked to, says so with status 75, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dd.__main__ import CONTINUE, _parser
from dd.config import hashed
from dd.config.stages import Dataset, DistillConfig
from dd.plan.command import LONG
from dd.stopping import Stopper
from dd.train.config import ExpertConfig


def test_nothing_asks_without_a_limit():
    with Stopper(None) as stop:
        assert not stop()


def test_the_time_counts_from_when_it_was_made():
    stopper = Stopper(0.05)
    time.sleep(0.06)
    with stopper as stop:
        assert stop()
    with Stopper(60) as stop:
        assert not stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_ask_and_afterwards_mean_what_they_meant(number):
    before = signal.getsignal(number)
    with Stopper(None) as stop:
        os.kill(os.getpid(), number)
        assert stop()
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once():
    with Stopper(None) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_every_long_stage_takes_a_limit_and_no_other_does():
    (verbs,) = (action for action in _parser()._actions if action.dest == "verb")
    assert {name for name, verb in verbs.choices.items() if "--stop-after" in verb.format_help()} == set(LONG)


def distill(digits: Path, iterations: int) -> tuple[list[str], str]:
    """Return a distillation of so many updates: arguments and configuration."""
    recipe = {"iterations": iterations, "batch_real": 16, "extractor": {"network": "convnet3_in_w8"}}
    config = DistillConfig(dataset=Dataset(name="digits", fingerprint=None), method="dm", ipc=1, recipe=recipe)
    return ["distill", "--dataset", str(digits), "--seed", "0", "--save-every", "1000", "--device", "cpu"], json.dumps(hashed(config))


def experts(digits: Path, epochs: int) -> tuple[list[str], str]:
    """Return the training of one expert for so many epochs: arguments and configuration."""
    config = ExpertConfig(dataset=Dataset(name="digits", fingerprint=None), network="convnet3_in_w8", epochs=epochs)
    return ["experts", "--dataset", str(digits), "--seeds", "0", "--device", "cpu"], json.dumps(hashed(config))


def start(args: list[str], config: str, out: Path) -> subprocess.Popen:
    """Start a verb, which reads its configuration from standard input."""
    verb = subprocess.Popen(
        [sys.executable, "-m", "dd", *args, "--config", "-", "--out", str(out)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert verb.stdin is not None
    verb.stdin.write(config)
    verb.stdin.close()
    verb.stdin = None
    return verb


CASES = {  # stage -> job, where the result and where the state of an interrupted one is, and what brings it to its end in seconds
    "distill": (distill, 250, "set", "set/distilled.safetensors", "set/.resume/state.safetensors"),
    "experts": (experts, 12, "expert0.safetensors", "expert0.safetensors", ".resume/expert0.safetensors"),
}


@pytest.mark.parametrize(("stage", "number"), [("distill", signal.SIGTERM), ("experts", signal.SIGUSR1)])
def test_a_job_that_gets_a_signal_saves_and_continues_to_the_same_bytes(stage, number, digits_dir, tmp_path):
    make, long, out, result, state = CASES[stage]
    args, config = make(digits_dir, long)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    asked = start(args, config, parts / out)
    end = time.monotonic() + 60
    started = False
    while asked.poll() is None and time.monotonic() < end:  # before it handles signals, it would end as any process does
        handled = int(next(line for line in Path(f"/proc/{asked.pid}/status").read_text().splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if handled >> (number - 1) & 1:
            started = True
            break
        time.sleep(0.01)
    assert started, "it ended before it could be asked"
    time.sleep(0.3)
    asked.send_signal(number)
    said = asked.communicate(timeout=60)[1]
    assert asked.returncode == CONTINUE, said
    assert "start again to continue" in said
    assert (parts / state).is_file() and not (parts / result).exists()
    for folder in (parts, whole):
        done = start(args, config, folder / out)
        assert done.wait(timeout=120) == 0, done.stderr.read()
    assert (parts / result).read_bytes() == (whole / result).read_bytes()
    assert not (parts / state).exists()


def test_a_time_limit_ends_one_attempt_and_the_next_continues(digits_dir, tmp_path):
    args, config = distill(digits_dir, 100)
    counts = []
    for _ in range(60):
        one = start([*args, "--stop-after", "0.5"], config, tmp_path / "set")
        said = one.communicate(timeout=60)[1]
        if one.returncode == 0:
            break
        assert one.returncode == CONTINUE, said
        counts.append(int(said.split("stopped after ")[1].split()[0]))
    assert one.returncode == 0 and counts == sorted(set(counts)) and counts
    assert json.loads((tmp_path / "set/run.json").read_text())["resumed"] == len(counts)
