"""What is left of a job that stopped: continued by the same code only, and counted in the time that the result took."""

from __future__ import annotations

import json

import pytest

from dd.artifacts import ArtifactError, write_text
from dd.states import continued, states_of


@pytest.fixture
def states(tmp_path):
    return states_of([tmp_path / "seed0.safetensors", tmp_path / "seed1.safetensors"])


def stop(states, code, monkeypatch, seconds=0.0, leaves=True):
    """Let a run work for so long and stop; return what it was told of earlier runs."""
    clock = iter([0.0, seconds])
    monkeypatch.setattr("dd.states.time.monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), continued(states, code) as facts:
        if leaves:
            write_text(states[1], "half of it")
        raise KeyboardInterrupt
    monkeypatch.undo()
    return facts


def finish(states, code):
    """Let a run come to its end; return what it was told of earlier runs."""
    with continued(states, code) as facts:
        there = [state.exists() for state in states]
        for state in states:
            state.unlink(missing_ok=True)
    assert not list(states[0].parent.iterdir())
    return facts, there


def test_states_stand_hidden_beside_the_results(tmp_path, states):
    assert states == [tmp_path / ".resume/seed0.safetensors", tmp_path / ".resume/seed1.safetensors"]


def test_a_first_run_has_nothing_behind_it(states):
    assert finish(states, "aa") == ({"resumed": 0, "earlier_seconds": 0.0}, [False, False])


def test_runs_and_seconds_add_up(states, monkeypatch):
    assert stop(states, "aa", monkeypatch, 5.0) == {"resumed": 0, "earlier_seconds": 0.0}
    assert stop(states, "aa", monkeypatch, 2.5) == {"resumed": 1, "earlier_seconds": 5.0}
    assert finish(states, "aa") == ({"resumed": 2, "earlier_seconds": 7.5}, [False, True])


def test_a_run_that_left_no_state_counts_for_nothing(states, monkeypatch):
    stop(states, "aa", monkeypatch, 5.0, leaves=False)
    assert not list(states[0].parent.iterdir())
    assert finish(states, "aa")[0] == {"resumed": 0, "earlier_seconds": 0.0}


def test_a_state_of_other_code_is_not_continued(states, monkeypatch, capsys):
    stop(states, "aa", monkeypatch, 5.0)
    assert finish(states, "bb") == ({"resumed": 0, "earlier_seconds": 0.0}, [False, False])
    assert "other code left a state here; starting anew" in capsys.readouterr().err


def test_a_state_that_a_killed_run_left_is_its_codes(states, monkeypatch):
    stop(states, "aa", monkeypatch, 5.0)
    write_text(states[0], "what came after the note")
    assert finish(states, "aa")[1] == [True, True]


@pytest.mark.parametrize("note", [None, "{", "[]", '{"code": "aa"}'])
def test_a_state_whose_code_nobody_noted_is_not_continued(states, note):
    write_text(states[0], "half of it")
    if note is not None:
        write_text(states[0].with_name("seed0.safetensors.job.json"), note)
    assert finish(states, "aa") == ({"resumed": 0, "earlier_seconds": 0.0}, [False, False])


def test_by_hand_without_an_identity_states_are_kept(states, monkeypatch):
    stop(states, "aa", monkeypatch, 5.0)
    assert finish(states, None)[1] == [False, True]


def test_the_first_error_is_the_one_that_is_told(states, monkeypatch):
    def full(path, text):
        raise ArtifactError("the disk is full")

    with pytest.raises(ValueError, match="the reason"), continued(states, "aa"):
        write_text(states[0], "half of it")
        monkeypatch.setattr("dd.states.write_text", full)
        raise ValueError("the reason")
    assert json.loads(states[0].with_name("seed0.safetensors.job.json").read_text())["runs"] == 1
