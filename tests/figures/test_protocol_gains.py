"""Baselines that are another value on the same axis, such as another protocol, and their gains in tables."""

import pytest

from dd.figures.baselines import baseline_of
from dd.figures.gains import each
from dd.figures.paper import _read, draw_paper
from dd.figures.reported import load_gains
from dd.figures.tables import pivot

LOOKS = {"rows": ["method", "eval_protocol"], "columns": ["eval_network"], "baseline": {"eval_protocol": "baseline"}, "gain": True}
ELF = {"eval_protocol": "elf", "extractor": "convnet3_in_w512", "extractor_mode": "fixed", "extractor_epochs": 30}


def cell(bench, mean, **at):
    return {**bench.cell([[mean / 100 - 0.01, mean / 100 + 0.01]], **at), "config": {}}


def whole(bench, mean, **at):
    return cell(bench, mean, method="whole", ipc=None, distill_network=None, eval_protocol="baseline", **at)


def made(bench):
    """In the order of a paper file: all baselines before all else; the distillation's own network has no ELF."""
    plain = {"distill_network": "convnet3_in", "eval_protocol": "baseline"}
    return [
        *(cell(bench, mean, method=method, eval_network=network, **plain)
          for method, mean in (("dm", 40), ("mtt", 50)) for network in ("convnet3_in", "resnet18_in")),
        *(cell(bench, mean, method=method, eval_network="resnet18_in", distill_network="convnet3_in", **ELF) for method, mean in (("dm", 43), ("mtt", 60))),
        whole(bench, 90, eval_network="resnet18_in"),
    ]  # fmt: skip


def read(cells, gains=(), **looks):
    artifact = {"name": "a", "title": "A", "kind": "table", "cells": cells, **LOOKS, **looks}
    return _read(artifact, "paper", "all", [], list(gains))


def test_three_lines_a_method_as_papers_print_them(bench):
    row = {"dataset": "cifar10", "ipc": 10, "method": "mtt", "distill_network": "convnet3_in", "eval_network": "resnet18_in", **ELF}
    gains = load_gains(bench.reported({**row, "metric": "gain_pp", "mean": 9.5}))
    sheet = pivot(read(made(bench), gains))
    assert [row[:2] for row in sheet.rows] == [
        ["dm", "baseline"], ["dm", "elf"], ["dm", "gain"], ["mtt", "baseline"], ["mtt", "elf"], ["mtt", "gain"], ["whole", "baseline"],
    ]  # fmt: skip
    assert [row[2:] for row in sheet.rows[3:]] == [
        ["50.0 ± 1.0", "50.0 ± 1.0"], ["", "60.0 ± 1.0"], ["", "+10.0 (paper +9.5)"], ["", "90.0 ± 1.0"],
    ]  # fmt: skip
    assert sheet.rules == [3, 6] and "Gain: percentage points above the same cell with protocol baseline." in sheet.notes


def test_a_gain_is_against_the_same_set_and_network(bench):
    drawn = read(made(bench))
    assert [baseline_of(drawn, point.at) for point in drawn.points] == [0, 1, 2, 3, 1, 3, 6]
    assert {number: gain.value for number, gain in each(drawn).items()} == {4: pytest.approx(3), 5: pytest.approx(10)}
    other = read([*made(bench), cell(bench, 70, method="mtt", eval_network="vgg11_in", distill_network="convnet3_in", **ELF)])
    assert set(each(other)) == {4, 5}, "without a baseline there is no gain"


def test_rows_of_several_datasets_stay_together_whatever_the_order_of_the_paper_file(bench):
    first = made(bench)
    second = [{**one, "at": {**one["at"], "dataset": "tiny"}} for one in first[:1]]
    more = [{**one, "at": {**one["at"], "dataset": "tiny", "method": "tesla"}} for one in (first[1], first[4])]
    sheet = pivot(
        read(
            [*first, whole(bench, 80, dataset="tiny", eval_network="vgg11_in"), *more, *second], rows=["dataset", "method", "eval_protocol"]
        )
    )
    assert [row[:3] for row in sheet.rows][7:] == [
        ["tiny", "whole", "baseline"], ["tiny", "tesla", "baseline"], ["tiny", "tesla", "elf"], ["tiny", "tesla", "gain"], ["tiny", "dm", "baseline"],
    ]  # fmt: skip


def rates(bench, *, elf=(0.005, 0.01)):
    plain = {"method": "dm", "distill_network": "convnet3_in"}
    return [
        *(cell(bench, mean, eval_protocol="baseline", lr=lr, **plain) for lr, mean in ((0.01, 40), (0.005, 42))),
        *(cell(bench, 45, lr=lr, **plain, **ELF) for lr in elf),
    ]


def test_a_learning_rate_that_is_not_named_is_compared(bench):
    drawn = read(rates(bench), rows=["method", "lr", "eval_protocol"])
    assert {number: round(gain.value, 3) for number, gain in each(drawn).items()} == {2: 3, 3: 5}
    assert [row[:3] for row in pivot(drawn).rows] == [
        ["dm", "0.01", "baseline"], ["dm", "0.01", "elf"], ["dm", "0.01", "gain"], ["dm", "0.005", "baseline"], ["dm", "0.005", "elf"], ["dm", "0.005", "gain"],
    ]  # fmt: skip


def test_order_does_not_depend_on_gains_and_rules_are_drawn(bench):
    sheet = pivot(read(made(bench), gain=False))
    assert [row[:2] for row in sheet.rows] == [
        ["dm", "baseline"],
        ["dm", "elf"],
        ["mtt", "baseline"],
        ["mtt", "elf"],
        ["whole", "baseline"],
    ]
    assert (
        pivot(read(made(bench), gain=False, baseline={})).rows[1][0] == "mtt"
        and not pivot(read(made(bench), gain=False, baseline={})).rules
    )
    artifact = {"name": "a", "title": "A", "kind": "table", "cells": made(bench), **LOOKS}
    draw_paper(bench.job(artifact), bench.root / "out")
    assert "| dm | gain |  | +3.0 |" in (bench.root / "out/a.md").read_text()


def test_ratios_stay_beside_their_rows(bench):
    cells = [{**one, "config": {"dataset": "cifar10", "ipc": one["at"]["ipc"] or 0}} for one in made(bench)]
    fifty = [{**cell(bench, 66, method="dm", ipc=50, eval_protocol="baseline"), "config": {"dataset": "cifar10", "ipc": 50}}]
    sheet = pivot(read([*cells, *fifty], gain=False, ratio=True, rows=["method", "ipc", "eval_protocol"]))
    found = {tuple(row[:3]): row[3] for row in sheet.rows}
    assert found["dm", "50", "baseline"] == "1" and found["dm", "10", "elf"] == "0.2" and found["whole", "", "baseline"] == "100"
