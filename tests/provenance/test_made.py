"""The report says how its numbers were made, and says it plainly where one paper is of several states of the code."""

import json
import re
from html.parser import HTMLParser

import pytest

from dd.figures.report import write_report
from dd.figures.runs import lines_of, mixed
from dd.plan.job import Job
from dd.plan.summary import cost, run_facts, run_file

ONE = {"commit": "a" * 40, "dirty": False, "device": "cuda", "gpu": "A100", "host": "n1", "torch": "2.11", "seconds": 2.0, "peak_memory_mb": 100}


class Cells(HTMLParser):
    """Collects the cells of every row of a page."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th") or (self.inside and tag in ("b", "a", "span"))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def page(tmp_path, runs, **about):
    """Return the report of one empty paper whose jobs have these run.json, as (html, rows)."""
    folder = tmp_path / "p"
    folder.mkdir()
    counts = dict.fromkeys(("cells", "run", "diverged", "scaled", "compared", "within", "reported"), 0)
    paths = []
    for number, facts in enumerate(runs):
        paths.append(str(tmp_path / f"{number}.run.json"))
        if facts is not None:
            (tmp_path / f"{number}.run.json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    (folder / "paper.json").write_text(
        json.dumps({"paper": "p", "title": "P", "scaled": "", "artifacts": [], "counts": counts, "listed": [], "runs": paths[:1]})
    )
    (folder / "claims.json").write_text("[]")
    write_report([folder], tmp_path / "r.html", scale="demo", runs={"p": paths}, **about)
    html = (tmp_path / "r.html").read_text()
    found = Cells()
    found.feed(html)
    return html, found.rows


def test_one_state_of_the_code_is_no_news(tmp_path):
    html, rows = page(tmp_path, [ONE, ONE, None, "{broken"])
    made = {row[0]: row[1] for row in rows if len(row) == 2}
    assert made["jobs with a run.json"] == "2 of 4" and made["commit"] == "a" * 12 and made["gpu"] == "A100" and made["seconds"] == "4"
    assert "several" not in html and "SLURM" not in html and "resumed" not in made
    assert ["jobs with a run.json", "2 of 4 (all stages)"] in rows  # of the paper alone
    assert not re.search(r"https?://|<script|<link", html)


def test_several_commits_and_versions_are_said_plainly(tmp_path):
    other = {**ONE, "commit": "b" * 40, "dirty": True, "torch": "2.15", "slurm": {"job": "7", "partition": "gpu"}, "resumed": 2, "host": "<n2>"}
    html, rows = page(tmp_path, [ONE, other, other], cost=[{"stage": "distill", "device": "A100", "jobs": 3}])
    assert "several states of the code: aaaaaaaaaaaa (1 job), bbbbbbbbbbbb with changes (2 jobs)." in html
    assert "several versions of torch: 2.11 (1 job), 2.15 (2 jobs)." in html
    made = {row[0]: row[1] for row in rows if len(row) == 2}
    assert made["SLURM"] == "2 of 3 jobs, 1 job ids, partitions gpu"
    assert made["resumed"] == "2 of 3 jobs went on where an earlier run had stopped, at least 4 times in all"
    assert made["hosts"] == "<n2> (2 jobs), n1 (1 job)" and "<n2>" not in html
    assert ["distill", "A100", "3"] in rows
    assert html.count("</table>") == html.count("<table")


@pytest.mark.parametrize(
    ("runs", "words"),
    [([], []), ([ONE], []), ([{**ONE, "dirty": True}], ["in no commit"]), ([ONE, {**ONE, "commit": None}], ["several states", "not known"]),
     ([{**ONE, "commit": None}], []), ([{**ONE, "code_commit": "c"}, {**ONE, "commit": "d", "code_commit": "c"}], []), ([ONE, {**ONE, "dirty": True}], ["several states"])],
)  # fmt: skip
def test_what_is_mixed(runs, words):
    said = " ".join(mixed(runs))
    assert bool(said) == bool(words) and all(word in said for word in words)


def test_lines_of_nothing():
    assert lines_of([], 3, "all stages") == [("jobs with a run.json", "0 of 3 (all stages)")]


def test_every_stage_has_a_run_json_of_its_own_that_no_job_takes_or_makes():
    from plans import whole

    plan = whole("demo")
    jobs = list({id(job): job for job in plan.jobs.values()}.values())
    files = [run_file(job) for job in jobs]
    assert len(set(files)) == len(files)
    assert all("run.json" in file.name for file in files)
    named = {path for job in jobs for path in (*job.inputs, *job.outputs)}
    assert not named & {str(file) for file in files}
    assert {job.stage for job in jobs} >= {"download", "prepare", "whiten", "distill", "choose", "artifact", "generator", "quality"}


def test_cost_is_by_stage_and_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [Job("evaluate", [f"s/{n}.json"], [], {}, []) for n in range(4)]
    for job, facts in zip(jobs, [ONE, {**ONE, "peak_memory_mb": 300, "resumed": 2, "peak_gpu_memory_mb": 9}, {"device": "cpu", "seconds": 1.25}], strict=False):
        run_file(job).parent.mkdir(exist_ok=True)
        run_file(job).write_text(json.dumps(facts))
    (tmp_path / "s/3.run.json").write_text("[]")
    assert run_facts(jobs[3]) is None
    assert run_facts(jobs[0]) is None, "a note without its result is about another one"
    for job in jobs:
        (tmp_path / job.outputs[0]).write_text("{}")
    assert run_facts(jobs[0]) == ONE
    rows = {row["device"]: row for row in cost(jobs)}
    assert rows["A100"] == {"stage": "evaluate", "device": "A100", "jobs": 2, "seconds": 4.0, "peak_memory_mb": 300, "peak_gpu_memory_mb": 9, "resumed": 1}
    assert rows["cpu"]["seconds"] == 1.2 and rows["no run.json"]["jobs"] == 1
