"""The demo, as a newcomer sees it."""

import json

import pytest

from dd.config import load_yaml
from dd.plan.jobs import DRAWN

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_every_artifact_is_drawn_and_marked(demo):
    paper = load_yaml(demo.root / "workflow/papers/extractors.yaml")
    folder = demo.root / "results/papers/demo/extractors"
    for name in paper["artifacts"]:
        for suffix in DRAWN:
            assert (folder / f"{name}.{suffix}").stat().st_size > 0
    assert "digits" in (folder / "fig3.md").read_text()
    _, *rows = (folder / "fig3.csv").read_text().splitlines()
    assert len(rows) == 8
    assert all("dataset digits" in row for row in rows)


def test_nothing_is_left_to_do(demo):
    done = demo.snakemake("-n", "--config", "scale=demo")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_report_says_what_was_changed_and_judges_every_claim(demo):
    html = (demo.root / "results/report.html").read_text()
    assert "cannot rank methods" in html
    assert "iterations 60" in html
    claims = json.loads((demo.root / "results/papers/demo/extractors/claims.json").read_text())
    wanted = [c["id"] for c in load_yaml(demo.root / "workflow/reported/claims.yaml")["claims"] if c["paper"] == "extractors"]
    assert [claim["id"] for claim in claims] == wanted
    assert {claim["verdict"] for claim in claims} <= {"holds", "fails", "undecided", "not run"}


def test_accuracies_are_those_of_networks_that_learned(demo):
    for path in (demo.root / "results/scores").rglob("set*.json"):
        if "run.json" not in path.name:
            for score in json.loads(path.read_text())["scores"]:
                assert score["status"] == "diverged" or score["accuracy_last"] > 0.3, path
