"""Code identity: comments do not move it, edits do, and only where they count."""

import json
import shutil
import time

import pytest

from dd.plan import code
from dd.plan.job import Job

CACHED = (code._path, code._tree, code._imports, code._semantic, code._code_id, code._modules_of, code._module_id)


def forget():
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(code.ROOT, tmp_path / "dd", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path / "dd")
    forget()
    yield tmp_path / "dd"
    forget()


def identity(*modules):
    forget()
    return code.code_id(modules)


def test_comments_docstrings_and_layout_do_not_count(copy):
    before = identity("dd.distill", "dd.recipes.dm")
    path = copy / "recipes/dm.py"
    text = path.read_text().replace('"""Return the pre-trained extractors."""', '"""Other\n\n    words."""  # and a comment')
    path.write_text(text + "\n\n# end\n")
    assert identity("dd.distill", "dd.recipes.dm") == before


def test_an_edit_counts_for_its_own_method_only(copy):
    dm, random = identity("dd.distill", "dd.recipes.dm"), identity("dd.distill", "dd.recipes.random")
    path = copy / "recipes/dm.py"
    path.write_text(path.read_text().replace("momentum=config.momentum", "momentum=0.9 * config.momentum"))
    assert identity("dd.distill", "dd.recipes.dm") != dm
    assert identity("dd.distill", "dd.recipes.random") == random


def test_what_is_imported_inside_functions_counts(copy):
    before = identity("dd.distill", "dd.recipes.dm")
    path = copy / "objectives/distribution.py"
    path.write_text(path.read_text().replace(".square().sum()", ".abs().sum()"))
    assert identity("dd.distill", "dd.recipes.dm") != before


def test_registered_files_are_not_in_the_closure_of_the_registry():
    found = code.closure(["dd.distill"])
    assert not {name for name in found if name.startswith("dd.recipes.")}
    assert not {name for name in found if name.startswith("dd.networks.") and not name.rpartition(".")[2].startswith("_")}


def test_the_wall_between_evaluation_and_methods():
    from dd import evaluation

    for protocol in evaluation.names():
        found = code.closure(["dd.evaluation.run", evaluation.module_of(protocol)])
        for part in ("objectives", "sources", "recipes", "distill", "select", "parameterizations", "plan"):
            assert not [name for name in found if name.split(".")[1:2] == [part]], part


ORDER = [
    {"errors", "types", "rng", "artifacts", "config", "progress", "images"},
    {"data", "augment", "networks", "generators"},
    {"train"},
    {"sources", "parameterizations", "batches"},
    {"objectives", "select"},
    {"recipes"},
]


def test_lower_layers_do_not_import_higher_ones():
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    for path in sorted(code.ROOT.rglob("*.py")):
        parts = path.relative_to(code.ROOT).with_suffix("").parts
        own = level.get(parts[0])
        if own is None:
            continue
        name = ".".join(["dd", *(part for part in parts if part != "__init__")])
        for imported in code._imports(name):
            other = level.get(imported.split(".")[1]) if "." in imported else None
            assert other is None or other <= own, f"{name} imports {imported}"


def test_figures_see_no_networks():
    for path in (code.ROOT / "figures").glob("*.py"):
        name = "dd.figures" if path.stem == "__init__" else f"dd.figures.{path.stem}"
        found = {part.split(".")[1] for part in code.closure([name]) if "." in part}
        assert not found & {"networks", "train", "recipes", "distill", "objectives", "sources", "evaluation"}, name


def job(*modules):
    return Job("distill", ["x"], [], {}, list(modules))


def test_the_modules_of_an_identity_are_kept_once_each_and_name_what_changed(copy, tmp_path):
    jobs = [job("dd.distill", "dd.recipes.dm"), job("dd.distill", "dd.recipes.dm"), job("dd.choose")]
    folder = tmp_path / "codes"
    code.write_codes(jobs, folder)
    assert {path.stem for path in folder.iterdir()} == {jobs[0].code, jobs[2].code}
    kept = json.loads((folder / f"{jobs[0].code}.json").read_text())
    assert {"dd.recipes.dm", "dd.distill", "dd.rng"} <= set(kept) and "dd.recipes.random" not in kept and "dd.errors" not in kept
    (copy / "recipes/dm.py").write_text((copy / "recipes/dm.py").read_text().replace("momentum=config.momentum", "momentum=0.9 * config.momentum"))
    (copy / "rng.py").write_text((copy / "rng.py").read_text() + "# a comment\n")
    forget()
    now = code.modules_of(jobs[0].modules)
    assert [name for name in now if now[name] != kept[name]] == ["dd.recipes.dm"] and set(now) == set(kept)
    assert jobs[0].code != next(iter({path.stem for path in folder.iterdir()} - {jobs[2].code}))  # `Job.code` follows the code


def test_what_is_kept_is_never_written_again(tmp_path):
    one = job("dd.choose")
    path = tmp_path / f"{one.code}.json"
    path.write_text("{}")
    code.write_codes([one], tmp_path)
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


def test_identities_of_many_jobs_take_no_time(tmp_path):
    jobs = [job("dd.distill", "dd.recipes.dm", "dd.networks.convnet") for _ in range(20_000)]
    code.code_id(jobs[0].modules)
    began = time.process_time()
    code.write_codes(jobs, tmp_path)
    assert {one.code for one in jobs} == {jobs[0].code}
    assert time.process_time() - began < 1
