"""The graph, run for real: idle when done, the same bytes after a kill, and only what an edit concerns runs again."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.workflow


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_every_result_is_there(finished):
    names = set(finished.results())
    for suffix in ("csv", "md", "png", "pdf"):
        assert f"results/papers/paper/mini/methods.{suffix}" in names
    assert "results/index.csv" in names
    assert (finished.root / "results/report.html").read_text().lstrip().startswith("<!")


def test_every_job_has_a_note_of_how_it_was_made(finished):
    code = (
        "from pathlib import Path\nfrom dd.plan import Plan\nfrom dd.plan.papers import load_settings\nfrom dd.plan.summary import run_facts\n"
        "plan = Plan(load_settings(Path('config.yaml')), Path('workflow'))\n"
        "jobs = [*plan.of(['mini']), plan.report(['mini'])]\n"
        "print(len(jobs), [job.stage for job in jobs if not (run_facts(job) or {}).get('finished')])"
    )
    done = finished.run(sys.executable, "-c", code)
    assert done.stdout.split(" ", 1)[1].strip() == "[]" and int(done.stdout.split()[0]) == 11, done.stdout + done.stderr


def test_touching_every_file_reruns_nothing(finished):
    for path in (finished.root / "results").rglob("*"):
        os.utime(path, (time.time(), time.time()))
    for path in (finished.root / "data").rglob("*"):
        os.utime(path)
    assert finished.planned() == {}


def test_comments_and_docstrings_rerun_nothing(finished):
    before = {}
    for file in ("dd/recipes/dm.py", "dd/distill.py", "dd/networks/convnet.py", "dd/figures/paper.py"):
        path = finished.root / file
        before[path] = path.read_text()
        changed = before[path].replace('"""', '"""Changed words. ', 1) + "\n# a comment\n"
        path.write_text(changed)
    try:
        assert finished.planned() == {}
    finally:
        for path, text in before.items():
            path.write_text(text)


def test_an_edit_in_one_recipe_reruns_its_jobs_and_what_hangs_on_them(finished):
    before = (finished.root / "dd/recipes/dm.py").read_text()
    finished.edit("dd/recipes/dm.py", 'stream(inputs.seed, "init")', 'stream(inputs.seed, "start")')
    try:
        assert finished.planned() == {"distill": 1, "evaluate": 1, "draw_mini": 1, "all": 1, "total": 4}
    finally:
        (finished.root / "dd/recipes/dm.py").write_text(before)


def test_an_edit_in_a_network_that_nobody_uses_reruns_nothing(finished):
    before = (finished.root / "dd/networks/vit.py").read_text()
    finished.edit("dd/networks/vit.py", "0.02", "0.03")
    try:
        assert finished.planned() == {}
    finally:
        (finished.root / "dd/networks/vit.py").write_text(before)


def test_more_networks_compute_only_what_is_new(finished):
    before = (finished.root / "config.yaml").read_text()
    finished.config(before + "nets: 7\n")
    try:
        planned = finished.planned()
        assert "distill" not in planned
        assert planned["evaluate"] == 6  # nets 0-4 and 5-6 for each of three methods: blocks of five
    finally:
        finished.config(before)


def test_a_killed_pipeline_ends_with_the_same_bytes(finished, project):
    """SIGKILL to the whole process group at three moments: a job has begun, the first set is there, the first scores are there."""
    for moment in ("logs/pretrain/**/*.log", "results/distilled/**/distilled.safetensors", "results/scores/**/set*.json"):
        run = subprocess.Popen(["snakemake"], cwd=project.root, env=project.env, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        end = time.monotonic() + 280
        while not list(project.root.glob(moment)) and run.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, "it ended before it could be killed"
        assert list(project.root.glob(moment)), f"no {moment} came"
        assert project.snakemake("--unlock").returncode == 0
    done = project.snakemake()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ours, theirs = project.results(), finished.results()
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


MINE = '''"""Mine: random selection under another name."""

from __future__ import annotations

from dd.config import Frozen


class Config(Frozen):
    """Nothing to set."""


def needs(config, dataset):
    """Need nothing."""
    return []


def build(config, inputs):
    """Select."""
    from dd.rng import stream
    from dd.select import random, selected

    pool = inputs.pool()
    return selected(pool, random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(inputs.seed, "mine")))
'''


def test_a_method_is_one_new_file(project):
    """It appears in the plan, in the graph and in compare's artifacts; its jobs run; nothing else was changed."""
    project.config("scale: demo\npapers: [compare]\ndevice: cpu\n")
    before = project.planned("compare")
    (project.root / "dd/recipes/mine.py").write_text(MINE)
    after = project.planned("compare")
    assert after["distill"] == before["distill"] + 2  # ipc 1 and 10
    plan = project.dd("plan", "compare", "--all", "--rate", "20")
    assert "results/distilled/digits/mine/ipc10-" in plan.stdout
    files = [line.split()[-1] for line in plan.stdout.splitlines() if "/digits/mine/" in line]
    done = project.snakemake(files[0])
    assert done.returncode == 0, done.stderr[-2000:]
    assert (project.root / files[0]).exists()


def test_equal_configurations_are_computed_once(project):
    text = (project.root / "workflow/papers/mini.yaml").read_text()
    (project.root / "workflow/papers/twin.yaml").write_text(text.replace("paper: mini", "paper: twin"))
    planned = project.planned("mini", "twin")
    assert planned["distill"] == 3
    assert planned["evaluate"] == 3
