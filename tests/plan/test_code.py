"""Code identity: comments do not move it, edits do, and only where they count."""

import shutil

import pytest

from dd.plan import code


@pytest.fixture
def copy(tmp_path, monkeypatch):
    shutil.copytree(code.ROOT, tmp_path / "dd", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path / "dd")
    for cached in (code._path, code._tree, code._imports, code._semantic):
        cached.cache_clear()
    yield tmp_path / "dd"
    for cached in (code._path, code._tree, code._imports, code._semantic):
        cached.cache_clear()


def identity(*modules):
    for cached in (code._path, code._tree, code._imports, code._semantic):
        cached.cache_clear()
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
    assert not {name for name in found if name.startswith("dd.networks.") and not name.endswith("_layers")}


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
