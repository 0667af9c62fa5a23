"""Points, ids and the graph."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plans import whole

from dd import recipes
from dd.config import Frozen, added, digest, hashed, load_yaml, parse
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.cost import total
from dd.plan.papers import Settings, load_settings, paper_names

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflow"
SCALES = sorted(path.stem for path in (WORKFLOW / "scales").glob("*.yaml"))


@pytest.fixture
def folder(tmp_path):
    """A workflow folder to spoil."""
    import shutil

    shutil.copytree(WORKFLOW, tmp_path / "workflow")
    return tmp_path / "workflow"


def spoil(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("paper", paper_names(WORKFLOW))
def test_every_paper_plans_at_every_scale(paper, scale):
    jobs = whole(scale).of([paper])
    assert jobs[-1].stage == "artifact"
    makers = {path for job in jobs for path in job.outputs}
    for job in jobs:
        assert {path for path in job.inputs if not path.startswith(str(WORKFLOW))} <= makers
    outputs = [path for job in jobs for path in job.outputs]
    assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize(("paper", "most", "seconds"), [("extractors", 40, 120), ("dsdm", 35, 110), ("clom", 35, 120), ("elf", 27, 100), ("hpd", 42, 130)])
def test_the_demo_holds_its_budget(paper, most, seconds):
    jobs = whole("demo").of([paper])
    assert len(jobs) + 1 <= most  # and the report
    assert total(jobs, 25e9) / 2 <= seconds  # on two cores, at the rate of the machine this was written on


def test_the_whole_demo_holds_its_budget():
    settings = load_settings(ROOT / "config.yaml").model_copy(update={"scale": "demo"})
    jobs = Plan(settings, WORKFLOW).of(settings.papers)
    assert len(jobs) + 1 <= 160
    assert total(jobs, 25e9) / 2 <= 540


def test_planning_imports_neither_torch_nor_anything_heavy():
    code = (
        "import sys; sys.modules.update({name: None for name in ('torch', 'pandas', 'matplotlib', 'sklearn', 'snakemake', 'dvc')})\n"
        "from pathlib import Path; from dd.plan import Plan; from dd.plan.papers import load_settings\n"
        "from dd import recipes\n"
        "[recipes.load(name) for name in recipes.names()]\n"
        "Plan(load_settings(Path('config.yaml')), Path('workflow')).drawing('extractors')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_reported_row_is_a_point_or_accounted_for():
    reported = WORKFLOW / "reported" / "extractors.csv"
    rows = list(csv.DictReader(reported.open()))
    assert rows
    cells = whole().cells["extractors"]
    skipped = {"paper", "artifact", "metric", "mean", "std", "source", "certainty", "note"}
    for row in rows:
        key = {name: value for name, value in row.items() if value and name not in skipped}
        found = [c for c in cells[row["artifact"]] if all(str(c.point.at.get(name)) == value for name, value in key.items())]
        assert found, f"no point for {key}"


def test_every_artifact_of_the_claims_is_planned():
    for artifact in load_yaml(WORKFLOW / "reported" / "claims.yaml")["artifacts"]:
        if artifact["paper"] == "extractors" and not artifact.get("absent"):
            assert artifact["name"] in load_yaml(WORKFLOW / "papers" / "extractors.yaml")["artifacts"]


def test_the_papers_axes_are_all_there_at_paper_scale():
    cells = whole().cells["extractors"]
    epochs = lambda name: {cell.point.at["extractor_epochs"] for cell in cells[name]}  # noqa: E731
    assert len(cells["fig3"]) == 2 * 16
    assert len(cells["fig4"]) == 2 * 24
    for name in ("fig5", "fig6", "fig7", "mlp_epochs"):
        assert epochs(name) == {0, 1, 2, 3, 4, 5, 10, 50, 100}
        assert len(cells[name]) == 2 * 9
    assert all(cell.point.scaled == [] for found in cells.values() for cell in found)


def test_scaled_cells_say_what_changed():
    cell = whole("demo").cells["extractors"]["fig3"][0]
    assert "dataset digits" in cell.point.scaled
    assert "iterations 60" in cell.point.scaled
    assert cell.point.at["dataset"] == "cifar10"
    assert cell.point.config["dataset"] == "digits"


def test_pretraining_is_a_chain_that_a_later_epoch_only_lengthens():
    blocks = {(job.facts["network"], job.facts["epoch"], job.facts["seeds"]): job for job in whole().stage("pretrain")}
    job = blocks["vit", 10, (0,)]
    assert job.facts["previous_epoch"] == 5
    assert job.facts["previous"][0].endswith("epoch5/seed0.safetensors")
    assert blocks["vit", 1, (0,)].facts["previous"] == []
    # ConvNet: pools of 20 up to 3 epochs in blocks of 5, then only the sets' own three seeds
    assert ("convnet3_in", 3, (15, 16, 17, 18, 19)) in blocks
    assert ("convnet3_in", 100, (2,)) in blocks
    assert ("convnet3_in", 100, (0, 1, 2, 3, 4)) not in blocks


def test_more_sets_and_networks_only_add_jobs():
    few = Plan(parse(Settings, {"scale": "paper", "papers": ["extractors"]}, "config.yaml"), WORKFLOW, only=["extractors"])
    many = Plan(parse(Settings, {"scale": "paper", "papers": ["extractors"], "nets": 10}, "config.yaml"), WORKFLOW, only=["extractors"])
    paths = lambda made: {path for job in made.of(["extractors"]) for path in job.outputs}  # noqa: E731
    assert paths(few) < paths(many)
    assert {job.text for job in few.stage("distill")} == {job.text for job in many.stage("distill")}


# -- ids --------------------------------------------------------------------------------------------------------------


class Before(Frozen):
    lr: float = 0.1
    steps: int = 5


class DefaultChanged(Frozen):
    lr: float = 0.2
    steps: int = 5


class FieldAdded(Frozen):
    lr: float = 0.1
    steps: int = 5
    decay: float = added(0.0)


def test_a_changed_default_moves_ids_and_a_new_field_does_not():
    assert digest(hashed(Before())) != digest(hashed(DefaultChanged()))
    assert digest(hashed(Before())) == digest(hashed(FieldAdded()))
    assert digest(hashed(FieldAdded(decay=0.5))) != digest(hashed(Before()))


def test_whole_numbers_and_their_floats_are_one_value():
    assert digest(hashed(parse(Before, {"lr": 1}, ""))) == digest(hashed(parse(Before, {"lr": 1.0}, "")))


def test_ids_know_no_seed():
    assert not re.search(r'"seed"', "".join(job.text for job in whole().jobs.values()))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_has_a_docstring_and_frozen_defaults(name):
    recipe = recipes.load(name)
    assert recipe.__doc__
    assert issubclass(recipe.Config, Frozen)
    recipe.needs(recipe.Config(), "digits")


# -- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("papers/extractors.yaml", "lr_img: 1.0, batch_real", "lr_img: 1e-3, batch_real", ["extractors.yaml", "lr_img", "'1e-3'", "0.001"]),
    ("papers/extractors.yaml", "batch_real: 256}", "batch_reel: 256}", ["extractors.yaml", "batch_reel", "unknown key", "'batch_real'"]),
    ("papers/extractors.yaml", "method: dm,", "method: dmm,", ["'dmm'", "allowed", "dm"]),
    ("papers/extractors.yaml", "extractor: [convnet3_in, resnet18_bn]", "extractor: [convnet3_im, resnet18_bn]", ["'convnet3_im'", "'convnet3_in'"]),
    ("papers/extractors.yaml", "      extractor_mode: [dynamic]", "      extractor_mod: [dynamic]", ["fig3", "'extractor_mod'", "'extractor_mode'"]),
    ("papers/extractors.yaml", "extractor_mode: [dynamic]", "extractor_mode: [dynamik]", ["mode", "'dynamik'", "'fixed'"]),
    ("papers/extractors.yaml", "dataset: cifar10,", "dataset: cifar11,", ["'cifar11'", "'cifar10'"]),
    ("papers/extractors.yaml", "{baseline: dc}", "{baseline: dcc}", ["'dcc'", "allowed: clom_validate, dc, dc_short, elf, glad, glad_short, idc"]),
    ("papers/extractors.yaml", "when: {supply: literal}", "when: {supply: literally}", ["dynamic_supply", "literally", "matches no point"]),
    ("papers/extractors.yaml", "ipc: [10, 50]", "ipc: [10, 5001]", ["ipc", "5001", "1 to 5000"]),
    ("papers/extractors.yaml", "kind: bars\n", "kind: bars\n    exclude: [{ipc: 11}]\n", ["exclude", "11", "matches no point"]),
    ("papers/extractors.yaml", "    title: \"Figure 3", "    title: a\n    title: \"Figure 3", ["extractors.yaml", "'title'", "twice"]),
    ("scales/paper.yaml", "title:", "cap: {}\nmapp: {}\ntitle:", ["paper.yaml", "mapp", "'map'"]),
]


@pytest.mark.parametrize(("file", "old", "new", "words"), MISTAKES, ids=[f"{m[0]}-{m[2][:24]}" for m in MISTAKES])
def test_mistakes_are_named(folder, file, old, new, words):
    spoil(folder, file, old, new)
    with pytest.raises(ConfigError) as error:
        Plan(parse(Settings, {"scale": "paper", "papers": ["extractors"]}, "config.yaml"), folder, only=["extractors"])
    for word in words:
        assert word in str(error.value), str(error.value)


def test_a_keep_that_matches_nothing_is_an_error(folder):
    spoil(folder, "scales/demo.yaml", "{ipc: [10], extractor_epochs: [0, 1]}", "{ipc: [11]}")
    with pytest.raises(ConfigError, match=r"keep for extractors\.fig3.*matches none"):
        Plan(parse(Settings, {"scale": "demo", "papers": ["extractors"]}, "config.yaml"), folder, only=["extractors"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": "dem", "papers": []}, ["scale", "'dem'", "'demo'"]),
        ({"scale": "demo", "papers": ["extractor"]}, ["papers", "'extractor'", "'extractors'"]),
        ({"scale": "demo", "papers": [], "devise": "cpu"}, ["devise", "'device'"]),
        ({"scale": "demo", "papers": [], "datasets": {"cifar10": {"source": {"kind": "parket", "path": "x"}}}}, ["cifar10", "parket", "parquet"]),
        ({"scale": "demo", "papers": [], "datasets": {"mine": {"source": {"kind": "download"}}}}, ["mine", "folder"]),
    ],
)
def test_mistakes_in_settings_are_named(settings, words):
    with pytest.raises(ConfigError) as error:
        Plan(parse(Settings, settings, "config.yaml"), WORKFLOW)
    assert "config.yaml" in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


def test_all_mistakes_of_a_file_are_said_at_once():
    with pytest.raises(ConfigError) as error:
        parse(recipes.load("dm").Config, {"lr_imgg": 1.0, "momentum": 2.0, "iterations": "10"}, "x.yaml")
    assert len(str(error.value).splitlines()) == 3
