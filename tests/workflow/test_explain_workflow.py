"""`explain` says the same as `snakemake -n`: nothing, or which jobs run and why."""

import json
import os
import shutil
import sys

import pytest

pytestmark = pytest.mark.workflow

TOLD = """
import json, sys
from pathlib import Path
from dd.plan import Plan
from dd.plan.explain import explain
from dd.plan.papers import load_settings
from dd.plan.reasons import Fates
plan = Plan(load_settings(Path("config.yaml")), Path("workflow"))
fates = Fates(plan, [job for job in plan.stage("artifact") if job.facts["paper"] == "mini"])
runs = {}
for fate in fates.fates.values():
    if fate.why:
        runs.setdefault(fate.job.stage, []).append(fate.job.outputs[0])
json.dump({"runs": {stage: len(paths) for stage, paths in runs.items()}, "text": [explain(plan, name) for name in sys.argv[1:]]}, sys.stdout)
"""
STAGES = {"draw": "artifact"}


@pytest.fixture
def told(finished):
    """Return a function that gives what runs by explain, and its texts for some ids or paths, after checking it against Snakemake."""

    def check(*names):
        done = finished.run(sys.executable, "-c", TOLD, *names)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        planned = {}
        for rule, count in finished.planned("mini").items():
            if rule not in ("mini", "total"):
                stage = rule.split("_")[0]
                stage = STAGES.get(stage, stage)
                planned[stage] = planned.get(stage, 0) + count
        assert found["runs"] == planned
        return found["runs"], "\n".join(found["text"])

    return check


def of(finished, pattern):
    (path,) = finished.root.glob(pattern)
    return path


def test_nothing_then_an_edited_module_then_the_switch(finished, told):
    set_ = of(finished, "results/distilled/digits/dm/ipc1-*")
    (score,) = (finished.root / "results/scores" / set_.name[-8:]).glob("*/set0-nets0-1.json")
    score = str(score.relative_to(finished.root))
    before = (finished.root / "dd/recipes/dm.py").read_text()
    other = (finished.root / "dd/distill.py").read_text()
    settings = (finished.root / "config.yaml").read_text()
    # A comment in one module of the set's, so that `told` also checks that it counts for neither.
    finished.edit("dd/distill.py", '"""', '"""Other words. ')
    try:
        runs, text = told(set_.name[-8:], score)
        assert runs == {}
        assert "yes:" not in text and text.count("\n  no: ") == 2
        finished.edit("dd/recipes/dm.py", 'stream(inputs.seed, "init")', 'stream(inputs.seed, "start")')
        runs, text = told(set_.name[-8:], score)
        finished.config(settings + "track_code: false\n")
        off, said = told(set_.name[-8:])
    finally:
        finished.config(settings)
        (finished.root / "dd/recipes/dm.py").write_text(before)
        (finished.root / "dd/distill.py").write_text(other)
    assert runs == {"distill": 1, "evaluate": 1, "artifact": 1}
    assert "code: dd.recipes.dm changed (" in text
    assert "dd.distill changed" not in text
    assert f"input: {set_.relative_to(finished.root)}/seed0/distilled.safetensors is made anew" in text  # the scores'
    assert off == {} and "(not a reason) code: dd.recipes.dm changed (" in said and "yes:" not in said


def test_another_configuration(finished, told):
    paper = finished.root / "workflow/papers/mini.yaml"
    before, old = paper.read_text(), of(finished, "results/distilled/digits/dm/ipc1-*").name[-8:]
    finished.edit("workflow/papers/mini.yaml", "iterations: 30", "iterations: 31")
    try:
        script = "from pathlib import Path; from dd.plan import Plan; from dd.plan.papers import load_settings\n"
        script += "plan = Plan(load_settings(Path('config.yaml')), Path('workflow'))\n"
        script += "print(*[j.facts['id'] for j in plan.of(['mini']) if '/dm/' in str(j.inputs[:1] + j.outputs[:1]) and 'id' in j.facts])"
        new, scores = finished.run(sys.executable, "-c", script).stdout.split()
        runs, text = told(new, scores)
        assert runs == {"distill": 1, "evaluate": 1, "artifact": 1}
        assert f"config: on disk is {old} (" in text and "recipe.iterations: 30 -> 31" in text
        assert f"distilled {old} -> {new}: recipe.iterations: 30 -> 31" in text  # of the scores, whose own settings are the same
        asked = finished.dd("explain", old)
    finally:
        paper.write_text(before)
    assert asked.returncode == 1
    assert "no paper at scale paper asks for it now" in asked.stderr and new in asked.stderr and "recipe.iterations: 30 -> 31" in asked.stderr


def test_another_input_and_an_absent_one(finished, told, tmp_path):
    set_ = of(finished, "results/distilled/digits/random/ipc1-*/seed0/distilled.safetensors")
    gone = of(finished, "results/pretrained/digits/*/*/epoch1/seed0.safetensors")
    kept, times = set_.read_bytes(), set_.stat()
    shutil.move(gone, tmp_path / "gone")
    try:
        set_.write_bytes(kept + b" ")
        (score,) = (finished.root / "results/scores" / set_.parent.parent.name[-8:]).glob("*/set0-nets0-1.json")
        runs, text = told(str(score.relative_to(finished.root)), gone.parts[-3])
    finally:
        set_.write_bytes(kept)
        os.utime(set_, ns=(times.st_atime_ns, times.st_mtime_ns))
        shutil.move(tmp_path / "gone", gone)
    assert runs == {"evaluate": 1, "artifact": 1}  # a milestone that nobody needs any more is not made again
    assert f"input: {set_.relative_to(finished.root)} has other content: sha256 " in text
    assert "pretrain" in text and "1 of 2 there" in text and "absent: " in text
