"""What `explain` says of results that are there, absent, changed, unknown; and how Snakemake's records are read."""

import json
import shutil
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from project import MINI, ROOT

from dd.config import parse
from dd.errors import ConfigError
from dd.plan import Plan, code
from dd.plan.command import arguments
from dd.plan.explain import explain
from dd.plan.papers import Settings
from dd.plan.reasons import Fates, changed_modules, differences
from dd.plan.recorded import interrupted, recorded, recorded_code
from dd.plan.summary import run_file


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with the small paper's plan and nothing made."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("papers"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "workflow/papers").mkdir()
    (tmp_path / "workflow/papers/mini.yaml").write_text(MINI)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(**settings):
    return Plan(parse(Settings, {"scale": "paper", "papers": ["mini"], **settings}, "config.yaml"), Path("workflow"))


def one(plan, stage, word=""):
    return next(job for job in plan.stage(stage) if word in job.outputs[0])


def place(folder, path):
    file = Path(".snakemake", folder, urlsafe_b64encode(path.encode()).decode())
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def record(job, **change):
    """Write what Snakemake would have recorded of a job that has just run."""
    import shlex

    facts = {"cfg": job.text, "code": job.code, "args": shlex.join(arguments(job)), "inputs": job.inputs, "command": None, "sums": {}, **change}
    params = sorted(repr(facts[key]) for key in ("cfg", "code", "args") if facts[key] is not None)
    for path in job.outputs:
        data = {"rule": job.stage, "input": sorted(facts["inputs"]), "params": params, "code": facts["command"], "input_checksums": facts["sums"]}
        place("metadata", path).write_text(json.dumps(data))


def make(*jobs):
    """Write the outputs of jobs, and what Snakemake would have recorded."""
    for job in jobs:
        for path in job.outputs:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text("x")
        record(job)


def chain(plan):
    prepare, distill = one(plan, "prepare"), one(plan, "distill", "/dm/")
    return prepare, distill, next(job for job in plan.stage("evaluate") if distill.outputs[0] in job.inputs)


def test_an_absent_result_is_told_with_all_that_it_takes_and_serves(checkout):
    text = explain(planned(), chain(planned())[1].facts["id"])
    assert "distill" in text and "recipe.iterations: 30" in text
    assert "prepare digits: absent, data/prepared/digits/manifest.json" in text
    assert "mini, methods: dataset digits" in text and "method dm" in text and "method random" not in text
    assert "no run.json" in text and "yes: results/distilled/digits/dm" in text
    assert "absent: results/distilled" in text and "absent: data/prepared/digits/manifest.json is not there, and is needed" in text


def test_a_milestone_is_shown_under_what_it_serves(checkout):
    text = explain(planned(), one(planned(), "distill", "/herding/").facts["id"])
    made = text[text.index("Made of") : text.index("Used by")]
    assert "\n  pretrain " in made and "0 of 2 there" in made and "\n    prepare digits" in made


def test_what_is_there_as_it_was_made_stays(checkout):
    plan = planned()
    jobs = chain(plan)
    make(*jobs)
    run_file(jobs[2]).write_text(json.dumps({"commit": "c" * 40, "dirty": True, "gpu": "A100", "host": "n1", "seconds": 3, "slurm": {"job": "5"}}))
    text = explain(plan, jobs[2].facts["id"])
    assert f"no: {jobs[2].outputs[0]}" in text and "yes:" not in text
    assert "commit cccccccccccc with changes that are in no commit, on A100 of n1, SLURM job 5" in text
    assert explain(plan, jobs[2].outputs[0]) == text == explain(plan, str(Path(jobs[2].outputs[0]).absolute()))
    assert explain(plan, jobs[2].facts["id"][:5]) == text


def reasons(plan, job):
    return [(reason.kind, reason.text) for reason in Fates(plan, [job]).of(job).why]


def test_every_cause_is_named(checkout):
    plan = planned()
    jobs = chain(plan)
    _, distill, evaluate = jobs
    make(*jobs)
    assert reasons(plan, distill) == []
    record(distill, cfg=distill.text.replace('"iterations":30', '"iterations":25'))
    assert reasons(plan, distill) == [("config", "config: recipe.iterations: 25 -> 30")]
    record(distill, args="--seed 1")
    ((kind, text),) = reasons(plan, distill)
    assert kind == "arguments" and "'--seed 1'" in text and "--seed 0" in text
    record(distill, inputs=["data/prepared/old/manifest.json"])
    ((kind, text),) = reasons(plan, distill)
    assert kind == "inputs" and "no longer data/prepared/old/manifest.json" in text and "now also data/prepared/digits/manifest.json" in text
    record(distill, command="python -m dd distill --of-old {params.args}")
    assert [kind for kind, _ in reasons(plan, distill)] == ["command"]
    record(distill)
    place("incomplete", distill.outputs[0]).write_text("{}")
    assert [kind for kind, _ in reasons(plan, distill)] == ["unfinished"]
    assert [kind for kind, _ in reasons(plan, evaluate)] == ["made"]  # it rests on the set


def test_newer_inputs_count_by_their_content(checkout):
    import hashlib
    import os

    plan = planned()
    _, distill, _ = jobs = chain(plan)
    make(*jobs)
    manifest = Path("data/prepared/digits/manifest.json")
    sums = {str(manifest): "sha256:" + hashlib.sha256(b"x").hexdigest()}
    record(distill, sums=sums)
    os.utime(manifest, (2e9, 2e9))
    assert reasons(plan, distill) == []
    manifest.write_text("other")
    os.utime(manifest, (2e9, 2e9))
    ((kind, text),) = reasons(plan, distill)
    assert kind == "input" and f"{manifest} has other content: sha256 {hashlib.sha256(b'x').hexdigest()[:12]} -> " in text
    record(distill)
    assert "no checksum of it was recorded" in reasons(plan, distill)[0][1]
    os.utime(manifest, (1, 1))
    assert reasons(plan, distill) == []


def test_changed_code_names_the_modules_and_can_be_switched_off(checkout):
    plan = planned()
    _, distill, _ = jobs = chain(plan)
    make(*jobs)
    now = code.modules_of(distill.modules)
    then = {**{name: value for name, value in now.items() if name != "dd.rng"}, "dd.recipes.dm": "0" * 12, "dd.gone": "1" * 12}
    record(distill, code="0123456789ab")
    ((kind, text),) = reasons(plan, distill)
    assert kind == "code" and "which modules changed is not known" in text and "results/code/0123456789ab.json" in text
    code.write_json("results/code/0123456789ab.json", then)
    wanted = f"dd.recipes.dm changed, dd.rng is new, dd.gone is no longer used (0123456789ab -> {distill.code})"
    assert reasons(plan, distill) == [("code", f"code: {wanted}")]
    assert changed_modules(distill, "0123456789ab") == wanted
    off = planned(track_code=False)
    assert off.code_of(distill) == "0123456789ab"
    assert reasons(off, one(off, "distill", "/dm/")) == []
    text = explain(off, distill.facts["id"])
    assert "(not a reason) code: dd.recipes.dm changed" in text and "yes:" not in text
    assert {job.outputs[0]: job.text for job in off.stage("distill")} == {job.outputs[0]: job.text for job in plan.stage("distill")}
    assert off.drawing_settings(["mini"]) == plan.drawing_settings(["mini"])


def test_what_is_unknown_is_an_error_that_helps(checkout):
    plan = planned()
    id_ = chain(plan)[1].facts["id"]
    wrong = id_[:7] + ("0" if id_[7] != "0" else "1")
    with pytest.raises(ConfigError, match=f"no id or result '{wrong}' at scale paper, and none on disk; nearest: .*{id_}"):
        explain(plan, wrong)
    with pytest.raises(ConfigError, match="no id or result ''"):
        explain(plan, "")
    with pytest.raises(ConfigError, match=r"nearest: data/prepared/digits/manifest\.json"):
        explain(plan, "data/prepared/digit/manifest.json")
    other = chain(plan)[1].outputs[0].replace("seed0", "seed7")
    with pytest.raises(ConfigError, match=f"asks for this file now, but for others of the same id: distill {id_}"):
        explain(plan, other)


def test_the_first_digits_of_two_ids_are_refused(checkout):
    plan = planned()
    first, second = plan.stage("distill")[:2]
    second.facts["id"] = first.facts["id"][:6] + ("00" if first.facts["id"][6:] != "00" else "11")
    with pytest.raises(ConfigError, match="beginning of several ids"):
        explain(plan, first.facts["id"][:4])
    assert explain(plan, first.facts["id"])


def test_a_result_of_an_older_configuration_is_recognised(checkout):
    plan = planned()
    config = json.loads(chain(plan)[1].text)
    config["recipe"]["iterations"] = 99
    folder = Path("results/distilled/digits/dm/ipc1-deadbeef/seed0")
    folder.mkdir(parents=True)
    (folder / "distilled.safetensors").write_text("x")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        explain(plan, "deadbeef")
    said = str(caught.value)
    assert "distill deadbeef" in said and "of another scale or of a configuration that was" in said
    assert chain(plan)[1].facts["id"] in said and "recipe.iterations: 99 -> 30" in said and said.count(" -> ") == 1
    text = explain(plan, chain(plan)[1].facts["id"])
    assert "config: on disk is deadbeef" in text and "recipe.iterations: 99 -> 30" in text
    (folder / "config.json").write_text("{broken")
    with pytest.raises(ConfigError, match="Nothing tells its configuration"):
        explain(plan, "deadbeef")


def test_differences_name_the_field():
    assert differences({"a": {"b": 1, "c": [1]}, "d": None}, {"a": {"b": 2, "c": [1]}, "e": "x"}) == ["a.b: 1 -> 2", "d: null -> (none)", 'e: (none) -> "x"']


def test_no_record_is_evaluated_and_none_that_is_broken_stops_anything(checkout):
    path = "results/choices/0.json"
    harm = "__import__('pathlib').Path('harm').touch()"
    place("metadata", path).write_text(json.dumps({"rule": "r", "params": [harm, "'0123456789ab'", "[1, 2]", "(" * 500], "input": None}))
    found = recorded(path)
    assert found.code == recorded_code(path) == "0123456789ab" and found.inputs == () and found.objects() == []
    assert found.others() == {harm, "[1, 2]", "(" * 500}
    assert not Path("harm").exists()
    for text in ("", "{", "[]", '{"params": 1}', '{"params": [], "input_checksums": 3}', '{"params": [], "input": 3}'):
        place("metadata", path).write_text(text)
        assert recorded(path) is None
    assert recorded("results/never.json") is None and recorded_code("results/never.json") is None and not interrupted(path)


def test_records_of_long_paths_lie_where_snakemake_puts_them(checkout):
    persistence = pytest.importorskip("snakemake.persistence.file")
    store = object.__new__(persistence.FilePersistence)
    store._max_len = None
    Path(".snakemake/metadata").mkdir(parents=True)
    for length in (10, 180, 191, 192, 400, 1000):
        path = "results" + "/a" * (length // 2)
        file = Path(store._record_path(".snakemake/metadata", path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"rule": str(length), "params": ["'0123456789ab'"]}))
        assert recorded(path).rule == str(length)
