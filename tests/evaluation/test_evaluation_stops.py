"""An evaluation that is stopped, or killed, continues where it was and ends with the same scores."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from dd import evaluation
from dd.artifacts import load_tensors
from dd.config import parse
from dd.data.load import load, manifest
from dd.errors import Stopped
from dd.evaluation import resume, run
from dd.evaluation.io import write_scores
from dd.evaluation.run import evaluate
from dd.types import DistilledSet

NET = "convnet3_in_w8"
INSIDE = {  # protocols whose trainings can be cut: several readings, an average, momentum that is reset, dropout
    "dc": ("dc", NET, {"epochs": 6, "readings": 3, "lr": 0.05}),
    "idc": ("idc", NET, {"epochs": 5, "lr": 0.05}),
    "glad": ("glad", NET, {"epochs": 6, "readings": 2, "ema": 0.9}),
    "batch norm": ("dc", "convnet3_bn_w8", {"epochs": 5, "replicas": 2, "batch": 8}),
    "dropout": ("dc", "vit_p4_ln_d1_w32", {"epochs": 3}),
    "without momentum": ("dc", NET, {"epochs": 4, "momentum": 0.0}),
}


@pytest.fixture(scope="module")
def distilled(digits_dir):
    images, labels = load(digits_dir, "train")
    index = torch.cat([(labels == label).nonzero().flatten()[:2] for label in range(10)])
    stats = manifest(digits_dir)["lineages"]["dc"]
    return DistilledSet(images[index].float() / 255, labels[index], torch.tensor(stats["mean"]), torch.tensor(stats["std"]))


@pytest.fixture
def often(monkeypatch):
    """Ask after every epoch."""
    monkeypatch.setattr(resume, "STRETCH", 0.0)


class Judge:
    """One evaluation, which may be stopped and started again."""

    def __init__(self, distilled, dataset, state, name="dc", network=NET, fields=None, nets=2, needs=()) -> None:
        self.protocol = parse(evaluation.config_of(name), fields or {"epochs": 4}, "test")
        self.call = lambda stop, **more: evaluate(
            distilled, network, name, self.protocol, dataset, 0, range(nets), needs=needs, stop=stop, **({"state": state} | more)
        )
        self.state, self.stops = state, []

    def whole(self):
        """Return the scores of one uninterrupted evaluation, whose trainings are not cut."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "stretches", lambda first, last, *, cut: [(first, last)])
            return self.call(lambda: False, state=None)

    def interrupted(self, every: int = 1):
        """Stop at every so-manieth question, until it ends; return the scores."""
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked % every == 0

        for _ in range(50):
            try:
                return self.call(stop)
            except Stopped as error:
                self.stops.append(str(error))
        raise AssertionError("it never ends")


@pytest.mark.parametrize("case", INSIDE)
def test_stopped_after_every_epoch_it_gives_the_same_bytes(case, distilled, digits_dir, tmp_path, often):
    name, network, fields = INSIDE[case]
    judge = Judge(distilled, digits_dir, tmp_path / "state", name, network, fields)
    whole = judge.whole()
    assert judge.interrupted() == whole
    passes = judge.protocol.epochs + judge.protocol.extra_passes
    assert len(judge.stops) == 2 * passes - 1  # after each but the last, which is the end
    for path, scores in (("a.json", whole), ("b.json", judge.call(lambda: True))):
        write_scores(tmp_path / path, {}, scores)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("name", ["elf", "sre2l_short"])
def test_with_lessons_it_stops_between_networks(name, distilled, digits_dir, tmp_path, often, narrow, supply):
    fields = {"epochs": 3, **narrow(name)}
    protocol = parse(evaluation.config_of(name), fields, "test")
    judge = Judge(distilled, digits_dir, tmp_path / "state", name, NET, fields, nets=3, needs=supply(protocol))
    assert judge.interrupted() == judge.whole()
    assert judge.stops == [f"stopped after {done} of 3 networks; start again to continue" for done in (1, 2)]


def test_a_diverged_training_stays_what_it_is(distilled, digits_dir, tmp_path, often):
    judge = Judge(distilled, digits_dir, tmp_path / "state", fields={"epochs": 6, "lr": 1e6})
    whole = judge.whole()
    assert [score.status for score in whole] == ["diverged"] * 2
    assert judge.interrupted() == whole


def test_an_early_reading_that_was_the_best_is_kept(distilled, digits_dir, tmp_path, often, monkeypatch):
    true = run.accuracy

    def falling(*args, **more):
        value, per_class = true(*args, **more)
        return 1 - value, per_class

    monkeypatch.setattr(run, "accuracy", falling)
    judge = Judge(distilled, digits_dir, tmp_path / "state", fields={"epochs": 9, "readings": 10, "lr": 0.05})
    whole = judge.whole()
    assert all(score.accuracy_best_on_test > score.accuracy_last for score in whole)
    assert judge.interrupted() == whole


def test_a_state_of_a_network_that_is_built_otherwise_now_is_not_used(distilled, digits_dir, tmp_path, often, monkeypatch):
    judge = Judge(distilled, digits_dir, tmp_path / "state")
    with pytest.raises(Stopped):
        judge.call(lambda: True)
    true = run.networks.build
    monkeypatch.setattr(run.networks, "build", lambda name, *more: true("convnet3_bn_w8", *more))
    assert judge.call(lambda: False) == judge.whole()


def test_a_killed_one_continues_from_the_last_save(distilled, digits_dir, tmp_path, often):
    judge = Judge(distilled, digits_dir, tmp_path / "state", fields={"epochs": 5}, nets=2)
    calls = []

    def killed() -> bool:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt  # as good as a signal: nothing is saved from here on
        return False

    with pytest.raises(KeyboardInterrupt):
        judge.call(killed, save_every=0.0)
    (tensors, meta) = load_tensors(tmp_path / "state")
    assert (len(meta["scores"]), meta["begun"]["epoch"]) == (1, 2)
    assert any(name.startswith("momentum.") for name in tensors)
    continued = []
    assert judge.call(lambda: bool(continued.append(1))) == judge.whole()
    assert len(continued) == 3  # of six passes, four were left, and one ends it


def test_between_saves_a_state_is_written_no_more_often_than_it_should(distilled, digits_dir, tmp_path, often):
    judge = Judge(distilled, digits_dir, tmp_path / "state", nets=1)
    judge.call(lambda: False)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_state_is_not_used(damage, distilled, digits_dir, tmp_path, often, capsys):
    judge = Judge(distilled, digits_dir, tmp_path / "state")
    with pytest.raises(Stopped):
        judge.call(lambda: True)
    data = bytearray((tmp_path / "state").read_bytes())
    data[-3] ^= 1
    made = {"truncated": bytes(data[:-40]), "flipped": bytes(data), "empty": b"", "text": b"{}"}[damage]
    (tmp_path / "state").write_bytes(made)
    assert judge.call(lambda: False) == judge.whole()
    assert "from the beginning" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["image", "label", "protocol", "set", "nets", "split", "network", "name"])
def test_a_state_of_another_evaluation_is_not_used(other, distilled, digits_dir, tmp_path, often, capsys):
    state = tmp_path / "state"
    protocol = parse(evaluation.config_of("dc"), {"epochs": 3}, "test")
    about = {"distilled": distilled, "network": NET, "name": "dc", "protocol": protocol, "dataset": digits_dir, "set_": 0, "nets": range(2)}
    with pytest.raises(Stopped):
        evaluate(**about, stop=lambda: True, state=state)
    changed = {
        "image": {"distilled": dataclasses.replace(distilled, images=distilled.images.flip(0))},
        "label": {"distilled": dataclasses.replace(distilled, labels=distilled.labels.flip(0))},
        "protocol": {"protocol": protocol.model_copy(update={"lr": 0.02})},
        "set": {"set_": 1},
        "nets": {"nets": range(1, 3)},
        "split": {"split": "holdout"},
        "network": {"network": "convnet3_bn_w8"},
        "name": {"name": "dc_short"},
    }[other]
    assert evaluate(**(about | changed), state=state) == evaluate(**(about | changed))
    assert "of another set or protocol" in capsys.readouterr().err


def test_sets_of_positions_are_told_apart_by_their_positions(distilled):
    first, second = (dataclasses.replace(distilled, images=torch.empty(0, 1, 16, 16), indices=torch.arange(20) + k) for k in (0, 1))
    assert resume.content(first) == resume.content(dataclasses.replace(first))
    assert len({resume.content(one) for one in (first, second, distilled, dataclasses.replace(distilled, step_size=0.1))}) == 4


def test_stretches_grow_to_what_takes_ten_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    seen = []
    for begin, end in resume.stretches(3, 100, cut=True):
        seen.append((begin, end))
        now[0] += (end - begin) * 0.5
    assert seen == [(3, 4), (4, 24), (24, 44), (44, 64), (64, 84), (84, 100)]
    assert list(resume.stretches(3, 100, cut=False)) == [(3, 100)]
    assert list(resume.stretches(0, 1, cut=True)) == [(0, 1)]


def test_scores_stand_in_a_state_as_they_are(distilled, digits_dir, tmp_path):
    judge, asked = Judge(distilled, digits_dir, tmp_path / "state", nets=3), []

    def second() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Stopped, match="1 of 3 networks"):
        judge.call(second)
    kept = load_tensors(tmp_path / "state")[1]["scores"]
    assert json.dumps(kept, sort_keys=True) == json.dumps(
        [dataclasses.asdict(judge.whole()[0])], sort_keys=True
    )
