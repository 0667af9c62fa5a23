"""Generators below their gates: what tables, figures and the report say of them."""

import html
import json

import pytest

from dd.analysis.gates import UNMEASURED
from dd.artifacts import write_json
from dd.figures.gates import missed, notes, page
from dd.figures.paper import draw_paper
from dd.figures.report import write_report


@pytest.fixture
def generators(tmp_path):
    """Return (good, bad, file, later): entries of a cell of a drawing job."""
    low = {"gate": [0.9, None]}
    good = {"consistency": {"value": 0.97, "passed": True, **low}, "recall": {"value": 0.3, "gate": [0.1, None], "passed": True}}
    bad = {"consistency": {"value": 0.71, "passed": False, **low}, "recall": {"value": 0.3, "gate": [0.1, None], "passed": True}}
    found = []
    for epoch, measures in ((14, good), (2, bad)):
        path = tmp_path / f"epoch{epoch}.quality.json"
        write_json(path, {"measures": measures, "passed": epoch == 14, "samples": 400, "classifier_accuracy": 0.95})
        found.append({"dataset": "digits", "generator": "mini", "epoch": epoch, "quality": str(path)})
    file = {"dataset": "imagenet_a_128", "generator": "stylegan_xl_128", "epoch": None, "quality": None}
    return *found, file, {**found[0], "epoch": 99, "quality": str(tmp_path / "epoch99.quality.json")}


def drawn(bench, generators):
    """Draw one table; return what the report is made from, and the page."""
    at = [("dm", []), *zip(("glad", "hpd", "mtt"), ([generators[0]], [generators[1]], generators[1:3]), strict=True)]
    cells = [{**bench.cell([[0.5, 0.52]], method=name), "generators": found} for name, found in at]
    table = {"name": "t", "title": "T", "kind": "table", "rows": ["method"], "columns": ["ipc"], "cells": cells, "chosen": {}}
    heat = {**table, "name": "h", "kind": "heatmap", "x": "method", "rows": ["ipc"], "columns": ["method"]}
    plain = {**table, "name": "bars", "kind": "bars", "cells": cells[:2], "x": "method"}
    draw_paper(bench.job(table, plain, heat), bench.root / "p")
    write_report([bench.root / "p", bench.root / "p"], bench.root / "report.html", scale="demo")
    return json.loads((bench.root / "p/paper.json").read_text()), (bench.root / "report.html").read_text()


def test_cells_are_marked_and_the_notes_say_why(bench, generators):
    found, _ = drawn(bench, generators)
    table, bars, heat = found["artifacts"]
    marked = {row[0]: "‡" in row[1] for row in table["rows"]}
    assert marked == {"dm": False, "glad": False, "hpd": True, "mtt": True}
    said = "‡ generator below its gate: mini of digits, epoch 2: consistency 0.71 < 0.9; 2 of 4 cells rest on it."
    assert said in table["notes"] and said in heat["notes"]
    assert said in (bench.root / "p/t.md").read_text()
    assert not [note for note in bars["notes"] if "gate" in note] and "‡" not in str(bars["rows"])


def test_the_report_shows_every_generator_once_with_its_gates(bench, generators):
    found, text = drawn(bench, generators)
    assert [(one["generator"], one["epoch"], len(one["missed"])) for one in found["generators"]] == [
        ("mini", 14, 0), ("mini", 2, 1), ("stylegan_xl_128", None, 0),
    ]  # fmt: skip
    text = html.unescape(text)
    section = text.split('<section id="generators">')[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + 2 + 2 + 1
    assert section.count("passed</span>") == 3 and section.count("below</span>") == 1
    assert "0.9 and more" in section and "0.710" in section and "400 samples; the classifier has 0.950" in section
    assert UNMEASURED in section
    warning = text.split("Generators below their gates.")[1].split("</div>")[0]
    assert "mini of digits, epoch 2: consistency 0.71 < 0.9" in warning and "epoch 14" not in warning


def test_a_report_without_generators_has_no_such_section(bench):
    artifact = {
        "name": "t",
        "title": "T",
        "kind": "table",
        "rows": ["method"],
        "columns": ["ipc"],
        "cells": [bench.cell([[0.5]])],
        "chosen": {},
    }
    draw_paper(bench.job(artifact), bench.root / "p")
    write_report([bench.root / "p"], bench.root / "report.html", scale="demo")
    text = (bench.root / "report.html").read_text()
    assert 'id="generators"' not in text and "#generators" not in text and "below their gates" not in text


def test_what_is_not_measured_is_below_nothing_and_says_so(generators):
    good, bad, file, later = generators
    assert missed([good, file, later]) == ()
    assert missed([good, bad]) == ("mini of digits, epoch 2: consistency 0.71 < 0.9",)
    rows = page([{"cells": [{"generators": [later, file]}, {"generators": [file]}, {}]}])
    assert [(row["epoch"], row["measures"], row["note"]) for row in rows] == [(99, [], "not measured yet"), (None, [], UNMEASURED)]
    assert notes([("a", "b"), ("a",)]) == [
        "‡ generator below its gate: a; all cells rest on it.", "‡ generator below its gate: b; 1 of 2 cells rest on it.",
    ]  # fmt: skip
    assert notes([(), ()]) == []
