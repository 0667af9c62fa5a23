import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dd.errors import ArtifactError
from dd.figures.paper import draw_paper
from dd.figures.report import write_index, write_report

COST = [{"stage": "distill", "jobs": 2, "measured": 1, "seconds": 12.5, "devices": "cpu"}]


class Tags(HTMLParser):
    """Collects every address that a page names, checks that its tags close, and keeps its text."""

    def __init__(self):
        super().__init__()
        self.addresses, self.open, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def written(bench, scaled=()):
    cells = [
        bench.cell([[0.50, 0.52]], ipc=10, scaled=scaled),
        bench.cell([[0.70, 0.72]], ipc=50, scaled=scaled),
        bench.cell([[0.10, 0.12]], ipc=1, scaled=scaled, diverged=[(0, 1)]),
    ]
    Path(cells[0]["scores"][0]).with_suffix(".run.json").write_text(json.dumps({"commit": "abc123", "device": "cpu", "seconds": 2.0}))
    (bench.root / "claims.yaml").write_text(
        "artifacts: [{paper: p, name: bars, title: In the paper}]\n"
        "claims: [{id: c1, paper: p, artifact: bars, claim: More <is> more., reported_numbers: none,"
        " check: {kind: greater, left: {ipc: 50}, right: {ipc: 10}, chosen: a number of ours}}]\n"
    )
    looks = {"x": "ipc", "hue": ["method"], "chosen": {"ipc": "not stated"}}
    bars = {"name": "bars", "title": "Bars & more", "kind": "bars", "cells": cells, **looks}
    gone = {"name": "gone", "title": "Gone", "kind": "absent", "cells": [], "absent": "the code is lost", "chosen": {"ipc": "not stated"}}
    reported = bench.reported({"dataset": "cifar10", "ipc": 10, "mean": 50.5}, {"dataset": "cifar10", "ipc": 50, "mean": 60})
    draw_paper(bench.job(bars, gone, reported=reported, claims=bench.root / "claims.yaml", scale="demo"), bench.root / "p")
    out = bench.root / "report.html"
    write_report([bench.root / "p"], out, scale="demo", scale_notes="Small.", cost=COST)
    html = out.read_text()
    page = Tags()
    page.feed(html)
    assert page.open == []
    return html, page, " ".join(" ".join(page.words).split())


def test_the_page_loads_nothing(bench):
    html, page, _ = written(bench)
    assert html.lstrip().startswith("<!doctype html>")
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", html)
    targets = set(re.findall(r'id="([^"]+)"', html))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= targets


def test_the_scorecard_comes_first_and_counts(bench):
    html, _, text = written(bench)
    assert html.index("Scorecard") < html.index("Claims") < html.index("Bars &amp; more") < html.index(">Cost<")
    assert "A paper 1 0 0 0 3 of 3 1 0 2 of 2 1" in text


def test_claims_tables_reasons_cost_and_provenance_are_shown(bench):
    html, page, text = written(bench)
    assert "More &lt;is&gt; more." in html and "holds in 1 of 1 comparisons: all" in text and "Chosen by us: a number of ours" in text
    assert "50.5" in text and "51.0 ± 1.0" in text and "+11.0 (outside)" in text
    assert "Not reproduced: the code is lost" in text
    assert "12.5" in text and "abc123" in text and "1 of 6 (distillations and evaluations)" in text
    assert sum(address.startswith("data:") for address in page.addresses) == 1


def test_a_scale_is_said_and_nothing_is_compared(bench):
    _, _, text = written(bench, scaled=["dataset digits", "iterations 60"])
    assert "cannot rank methods" in text and "changed: dataset digits, iterations 60." in text
    assert "0 of 2" in text and "holds†" in text and "+11.0" not in text
    _, _, other = written(bench, scaled=["iterations 60"])
    assert "cannot rank methods" not in other and "not the papers' setting" in other


def test_a_folder_that_was_never_drawn_is_an_error(bench):
    (bench.root / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"paper\.json"):
        write_report([bench.root / "empty"], bench.root / "r.html", scale="demo")


def test_the_index_has_every_field_of_every_id(bench):
    write_index([{"id": "a", "config": {"b": 1}}, {"id": "b", "path": "x,y"}], bench.root / "index.csv")
    assert (bench.root / "index.csv").read_text() == 'id,config,path\na,"{""b"": 1}",\nb,,"x,y"\n'
    write_index([], bench.root / "index.csv")
    assert (bench.root / "index.csv").read_text() == "id\n"
