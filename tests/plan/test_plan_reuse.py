"""What a plan remembers is nobody's to change, and never what a file said before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from plans import whole

from dd import config as configs
from dd import recipes
from dd.config import Frozen, filled, hashed, load_yaml, parse
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.papers import Settings
from dd.plan.told import Tellings, decoded, lineage

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"


class Some(Frozen):
    number: float
    parts: dict[str, int] = {}


def made(folder=WORKFLOW, **settings):
    return Plan(parse(Settings, {"scale": "demo", "papers": [], **settings}, "config.yaml"), folder)


def text(plan):
    jobs = [(job.stage, job.outputs, job.inputs, job.text, job.modules, job.facts) for job in plan.jobs.values()]
    return repr(jobs) + repr(plan.cells) + repr([plan.drawing(name) for name in plan.papers])


# -- parse and filled -------------------------------------------------------------------------------------------------


def test_equal_data_is_one_configuration_and_other_data_another():
    assert parse(Some, {"number": 1.5}, "a") is parse(Some, {"number": 1.5}, "b")
    assert parse(Some, {"number": 1}, "a").number == 1
    with pytest.raises(ConfigError, match=r"^b: number: value True"):
        parse(Some, {"number": True}, "b")  # equal to 1 for Python
    with pytest.raises(ConfigError, match=r"^c: number: value '1'"):
        parse(Some, {"number": "1"}, "c")
    assert filled(Some, {"number": 2.0}, "a") == {"number": 2.0, "parts": {}} == hashed(parse(Some, {"number": 2.0}, "a"))


def test_a_mistake_is_said_each_time_with_its_own_place():
    for where in ("one", "two", "one"):
        with pytest.raises(ConfigError, match=f"^{where}: number: is missing"):
            parse(Some, {}, where)


def test_a_key_written_twice_is_no_known_configuration():
    parse(Some, {"number": 1.0, "parts": {"1": 2}}, "a")
    parse(Some, {"number": 1.0, "parts": {1: 2}}, "a")
    for _ in range(2):
        with pytest.raises(ConfigError, match="written twice"):
            parse(Some, {"number": 1.0, "parts": {1: 2, "1": 2}}, "a")


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(configs, "KNOWN", 3)
    for number in range(10):
        assert filled(Some, {"number": number}, "a")["number"] == number
    assert len(configs._known) <= 3 and len(configs._filled) <= 3
    assert filled(Some, {"number": 0}, "a")["number"] == 0  # ids of what is gone are given to others


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_planning_changes_nothing_that_is_shared(scale):
    configs._known.clear()
    configs._filled.clear()
    first = made(scale=scale)
    assert len(configs._known) > 200
    for (model, data), found in configs._known.items():
        assert hashed(found) == hashed(model.model_validate_json(data)), (model, data)
    for found, plain in configs._filled.values():
        assert plain == hashed(found)
    before = text(first)
    assert before == text(made(scale=scale)) == text(first)  # all of it from memory


def test_a_file_that_changed_between_two_plans_counts(tmp_path):
    shutil.copytree(WORKFLOW, tmp_path / "workflow")
    path = tmp_path / "workflow/papers/dsdm.yaml"
    before, old = made(tmp_path / "workflow"), path.read_text()
    paper = load_yaml(path)
    assert paper["title"] in old
    path.write_text(old.replace(paper["title"], "Another title"))
    assert made(tmp_path / "workflow").drawing("dsdm")["title"] == "Another title"
    path.write_text(old)
    assert text(made(tmp_path / "workflow")) == text(before)
    assert set(made(tmp_path / "workflow", nets=7).jobs) != set(before.jobs)  # as does config.yaml


def test_what_recipes_tell_is_told_of_the_right_fields():
    tell = Tellings()
    points = [cell.point.config for cells in whole("demo").cells.values() for some in cells.values() for cell in some]
    for _ in range(2):
        for point in points:
            told = tell(point)
            assert (told.lineage, told.images) == (lineage(point), decoded(point))
            assert told.id == id(point["recipe"])
    fields = hashed(recipes.load("mtt").Config())
    for zca in (True, False, True):
        assert tell({"method": "mtt", "ipc": 1, "recipe": {**fields, "zca": zca}}).lineage == ("zca" if zca else "dc")


# -- YAML -------------------------------------------------------------------------------------------------------------

TEXTS = [
    "a: [1, 2.5, 1e-3, 1.0e-3, yes, null, 2001-01-01, 'x', \"y\"]", "<<: {a: 1}\nb: &n {c: 1}\nd: *n", "a: |\n  two\n  lines\nb: >-\n  one\n  line",
    "a: 1\na: 2", "a: 1\n'a': 2", "a: &x [*x]", "a: *x", "a: [1", "a: b: c", "\ta: 1", "a: 1\n---\nb: 2", "a: 2001-99-99", "a: !foo x",
    "a: !!python/name:os.system ''", "? [1]\n: 2", "", "- 1", "a: \x01", "a: " + "[" * 50_000, "a: " + "{a: " * 5_000, "- " * 50_000,
    "a: é😀", "a: " + "&a [" + "x, " * 1_000 + "]\nb: &b [" + "*a, " * 1_000 + "]\nc: [*b, *b]",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_both_parsers_read_and_refuse_alike(number, tmp_path, monkeypatch):
    path = tmp_path / "some.yaml"
    path.write_text(TEXTS[number], encoding="utf-8")
    said = []
    for fast in {yaml.__with_libyaml__, False}:
        monkeypatch.setattr(yaml, "__with_libyaml__", fast)
        try:
            said.append(repr(load_yaml(path)))
        except ConfigError as error:
            assert str(error).startswith(str(path))
            said.append(str(error))
    assert len(set(said)) == 1
