"""What learning from features costs, beside what it gains."""

import json
from pathlib import Path

import pytest

from dd.errors import ConfigError
from dd.figures.features import features, units
from dd.figures.paper import OTHERS


def noted(bench, name, value, **more):
    path = bench.root / name
    path.write_text(json.dumps({"seconds": value, "device": "cpu", "gpu": None, **more}))
    return str(path)


def cell(bench, mean, size=None, runs=(), *, lr=0.01, network="convnet3_in_w512", epochs=30, set_id="set", ran=True, **at):
    """A cell of the plain protocol, or with size a cell with features of so many bytes."""
    elf = size is not None
    at = {"eval_network": "resnet18_in", "eval_protocol": "elf" if elf else "baseline", "lr": lr, **at}
    made = bench.cell([[mean - 0.01, mean + 0.01]], **at)
    for path in made["scores"]:
        scores = json.loads(Path(path).read_text())
        for one in scores["scores"]:
            one["detail"] = {"feature_bytes": size} if elf else {}
        Path(path).write_text(json.dumps(scores))
    protocol = {"name": at["eval_protocol"], "lr": lr, **({"features": {"network": network, "epochs": epochs}} if elf else {})}
    config = {"dataset": at.get("dataset", "cifar10"), "ipc": 10, "network": at["eval_network"], "protocol": protocol}
    files = {**made["run_files"], "features": [{"run": run, "share": share} for run, share in runs]}
    extra = {} if ran else {"scores": ["nowhere.json"]}
    return {**made, "id": set_id, "score_id": "-".join(map(str, at.values())), "config": config, "run_files": files, **extra}


def facts(artifact):
    sheet, header, lines = features({"name": "f", **artifact})
    return sheet, [dict(zip(header, line, strict=True)) for line in lines]


def test_bytes_seconds_and_accuracies_stand_beside_each_other(bench):
    block, own = noted(bench, "block.json", 100.0), noted(bench, "own.json", 7.0, gpu="H200")
    plain, slow = cell(bench, 0.40), cell(bench, 0.30, lr=0.005)
    first = cell(bench, 0.55, 3_276_800, [(block, 0.2), (own, 1.0)])
    low = cell(bench, 0.50, 3_276_800, [(block, 0.2)], lr=0.005)
    sheet, lines = facts({"cells": [plain, slow, first, low, first, {**first, "at": {**first["at"], "variant": "again"}}]})
    assert len(sheet.rows) == 2, "one row an evaluation, however often it is shown"
    ratio = 3_276_800 / (10 * 10 * 3 * 32 * 32 * 4)
    assert sheet.columns[-8:] == ["features of", "epochs", "with features (%)", "baseline (%)", "features", "of the set's bytes",
                                  "training of the feature network (s)", "device"]  # fmt: skip
    assert sheet.rows[0][-8:] == ["convnet3_in_w512", "30", "55.0", "40.0", "3.28 MB", f"{ratio:.3g} times", "27.0", "cpu, H200"]
    assert sheet.rows[1][-8:] == ["convnet3_in_w512", "30", "50.0", "30.0", "3.28 MB", f"{ratio:.3g} times", "20.0", "cpu"], "its own rate"
    assert (lines[0]["feature_bytes"], lines[0]["set_bytes"]) == ("3276800", str(10 * 10 * 3 * 32 * 32 * 4))
    assert (float(lines[0]["gain"]), lines[0]["feature_runs"], lines[0]["feature_runs_missing"]) == (pytest.approx(15), "2", "0")


def test_what_is_not_known_is_said_and_never_guessed(bench):
    run = noted(bench, "run.json", 5.0)
    cells = [
        cell(bench, 0.5, 1000, [(run, 1.0), (str(bench.root / "gone.json"), 1.0)], eval_network="a", set_id="one"),
        cell(bench, 0.5, 1000, [], eval_network="b", ran=False),
        cell(bench, 0.4, eval_network="b", ran=False),
        cell(bench, 0.4, eval_network="a", set_id="two"),
    ]
    sheet, lines = facts({"cells": cells, "note": "of ours"})
    assert [row[-6:-1] for row in sheet.rows] == [
        ["50.0", "", "1 kB", "0.000814 times", "not measured"], ["not run", "not run", "not measured", "", "not trained here"],
    ]  # fmt: skip
    assert (lines[0]["baseline_accuracy"], lines[0]["seconds_features"], lines[0]["feature_runs_missing"]) == ("", "", "1")
    assert (lines[1]["feature_bytes"], lines[1]["accuracy"], lines[1]["n"]) == ("", "", "0")
    assert sheet.notes[0] == "of ours"


def test_a_baseline_that_is_not_clear_is_left_out(bench):
    other = cell(bench, 0.3)
    other = {**other, "score_id": "another"}
    sheet, _ = facts({"cells": [cell(bench, 0.4), other, cell(bench, 0.5, 10)]})
    assert sheet.rows[0][-6:-4] == ["50.0", ""]


def test_scaled_evaluations_are_marked(bench):
    sheet, lines = facts({"cells": [{**cell(bench, 0.5, 10), "scaled": ["dataset digits"]}]})
    assert sheet.rows[0][-6] == "50.0†" and "dataset digits" in sheet.notes[-1] and lines[0]["scaled"] == "dataset digits"


def test_it_is_an_error_where_nothing_has_features(bench):
    with pytest.raises(ConfigError, match="no evaluation with features"):
        facts({"cells": [cell(bench, 0.4)]})
    assert "features" in OTHERS


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (1_638_400, "1.64 MB"), (32_768_000_000, "32.8 GB")]
)
def test_bytes_in_human_units(count, shown):
    assert units(count) == shown
