"""Every accuracy that a paper prints has a cell of ours beside it, or a reason why not."""

import csv
from pathlib import Path

import pytest
from plans import whole

from dd.config import load_yaml
from dd.figures.reported import COLUMNS as COORDINATES
from dd.figures.reported import SIGNS, find, load_reported
from dd.figures.results import same
from dd.plan.papers import paper_names

WORKFLOW = Path("workflow")
PAPERS = [name for name in paper_names(WORKFLOW) if (WORKFLOW / "reported" / f"{name}.csv").exists()]
LISTED = load_yaml(WORKFLOW / "reported/not_reproduced.yaml")["numbers"]


def listed(paper, row):
    return [one for one in LISTED if one["paper"] == paper and all(same(row[key], value) for key, value in one["rows"].items())]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_printed_accuracy_has_a_cell_or_a_reason(paper):
    path = WORKFLOW / "reported" / f"{paper}.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] in SIGNS and not row["certainty"].startswith("derived")]
    job = whole().drawing(paper)
    known = load_reported(path, {row["artifact"] for row in rows})
    found = set()
    for artifact in job["artifacts"]:
        named = artifact.get("reported") or [artifact["name"]]
        for cell in [*artifact["cells"], *artifact.get("pending", ())]:
            row = find(known, named, cell.get("printed") or cell["at"])
            if row is not None:
                found.add((row.artifact, *sorted(row.at.items())))
    orphans = []
    for row in rows:
        key = (row["artifact"], *sorted((name, value) for name, value in row.items() if value and name in COORDINATES))
        assert not (key in found and listed(paper, row)), f"{key} is reproduced by now; take it out of not_reproduced.yaml"
        if key not in found and not listed(paper, row):
            orphans.append(key)
    assert not orphans, f"{len(orphans)} printed accuracies have neither a cell nor a reason, such as {orphans[:3]}"


def test_every_reason_is_of_a_row_and_says_something():
    for one in LISTED:
        with open(WORKFLOW / "reported" / f"{one['paper']}.csv", encoding="utf-8", newline="") as file:
            assert any(listed(one["paper"], row) for row in csv.DictReader(file)), one
        assert one["reason"]
