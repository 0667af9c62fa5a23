"""Names and paths that mean something to a shell, to Snakemake or to a file system: refused with a clear message, or carried unharmed."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from image_files import some_images, write_folder
from project import MINI, ROOT, Project

from dd.config import load_yaml, parse
from dd.data.config import load_datasets
from dd.data.load import load, manifest
from dd.errors import ConfigError
from dd.plan import Plan
from dd.plan.command import arguments, shell
from dd.plan.job import Job
from dd.plan.papers import Settings, load_paper, load_scale

HOSTILE = [
    "x; touch pwned", "$(touch pwned)", "`touch pwned`", "a b", "a'b", 'a"b', "a\nb", "a\n", "\n", "{wildcards}", "{dataset}", "a{b", "}", "../..", "..",
    ".", "a/b", "/etc", "-rf", "--help", "~", "~root", "*", "a?", "[a]", "a,b", "a|b", "a&b", "a>b", "a<b", "a#b", "a%b", "a!b", "a=b", "a:b", "a@b",
    "a\\b", "ümlaut", "名", "\u202eabc", "a\u200bb", "a\0b", "a\x1bb", "", " ", "x" * 65, "x" * 5000, "${HOME}", "$((1))", "_a", ".hidden", "a.b",
    "\uff11", "a\ud800",
]  # fmt: skip
# What a folder or a file may be called all the same.
PATHS = [
    "/a b", "/a'b", '/a"b', "/$(touch pwned)", "/`touch pwned`", "/x; touch pwned", "/a&b|c>d<e", "/a,b", "/a\\b", "/ü/名", "/*?[a]", "/-rf", "-rf",
    "/~", "/%s%d", "/#", "/a!b", "/" + "x" * 3000,
]  # fmt: skip
UNSEEN = ["/a\nb", "/a\0b", "/a\x1b[2Jb", "/{wildcards}", "/{", "/}", "/a\rb", "", "/a\tb"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_become_folders_are_refused(name, tmp_path):
    words = r"letters, digits, _ and -|half of a letter"
    with pytest.raises(ConfigError, match=rf"(?s)config\.yaml: datasets.*({words})"):
        load_datasets({name: {"source": {"kind": "folder", "path": "/x"}}}, "config.yaml: datasets")
    paper = {**yaml.safe_load(MINI), "artifacts": {name: yaml.safe_load(MINI)["artifacts"]["methods"]}}
    for kind, load_, content in (("papers", load_paper, paper), ("scales", load_scale, {"scale": "s", "title": "t"})):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "mini.yaml").write_text(yaml.safe_dump({**content, "scale": "../x"} if kind == "scales" else content))
        with pytest.raises(ConfigError, match=r"mini\.yaml: (artifacts|scale)|mini\.yaml: .*special characters"):
            load_(tmp_path, "mini", "config.yaml")
        if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > 200 or "\ud800" in name:
            continue  # no file can be called so
        key = "paper" if kind == "papers" else "scale"
        whole = {**yaml.safe_load(MINI), "paper": name} if kind == "papers" else {"scale": name, "title": "t"}
        (tmp_path / kind / f"{name}.yaml").write_text(yaml.safe_dump(whole))
        with pytest.raises(ConfigError, match="must be called by letters, digits, _ and -"):
            load_(tmp_path, name, "config.yaml")
        assert whole[key] == name


@pytest.mark.parametrize("name", ["mine", "Mine-2_b", "0", "x" * 64])
def test_plain_names_are_taken(name, tmp_path):
    assert name in load_datasets({name: {"source": {"kind": "folder", "path": "/x"}}}, "config.yaml: datasets")
    (tmp_path / "papers").mkdir()
    artifacts = {name: yaml.safe_load(MINI)["artifacts"]["methods"]}
    (tmp_path / "papers" / f"{name}.yaml").write_text(yaml.safe_dump({**yaml.safe_load(MINI), "paper": name, "artifacts": artifacts}))
    assert name in load_paper(tmp_path, name, "config.yaml").artifacts


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_taken_as_they_are(path):
    assert load_datasets({"mine": {"source": {"kind": "folder", "path": path}}}, "x")["mine"].source.path == path
    settings = parse(Settings, {"scale": "demo", "papers": [], "teachers": {"resnet18_tv": {"path": path}}}, "config.yaml")
    assert settings.teachers["resnet18_tv"].path == path
    job = Job("teacher", ["data/teachers/resnet18_tv.safetensors"], [path], {"teacher": "resnet18_tv"}, [])
    assert shlex.split(shlex.join(arguments(job))) == [f"--file={path}", "--out", "data/teachers/resnet18_tv.safetensors"]


@pytest.mark.parametrize("path", UNSEEN)
def test_paths_that_nobody_can_see_or_that_are_wildcards_are_refused(path):
    with pytest.raises(ConfigError, match=r"datasets\.mine: source\..*path: value"):
        load_datasets({"mine": {"source": {"kind": "folder", "path": path}}}, "config.yaml: datasets")
    for key, name in (("teachers", "resnet18_tv"), ("generators", "stylegan_xl_128")):
        with pytest.raises(ConfigError, match=rf"config\.yaml: {key}\.{name}\.path: value"):
            parse(Settings, {"scale": "demo", "papers": [], key: {name: {"path": path}}}, "config.yaml")


@pytest.mark.parametrize("device", ["cpu; touch pwned", "cuda:٣", "cuda:0 --out x", "cuda:0\n", "$(id)", "cuda:", "CPU", ""])
def test_devices_are_those_that_there_are(device):
    with pytest.raises(ConfigError, match=r"config\.yaml: device: value"):
        parse(Settings, {"scale": "demo", "papers": [], "device": device}, "config.yaml")


# -- rules ----------------------------------------------------------------------------------------------------------------

QUOTED = {"params.args", "params.cfg:q", "log:q"}  # params.args is made by shlex.join, which the next test sees to
SAFE = {"DEVICE", "threads", "params.stop", "params.code"}  # of a pattern, two numbers, and hexadecimal digits


def test_every_value_in_a_command_of_a_rule_is_quoted():
    rules = {path: path.read_text(encoding="utf-8") for path in [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]}
    stages = []
    for path, text in rules.items():
        stages += re.findall(r"^\s*shell: shell_of\(\"(\w+)\"\)$", text, re.M)
        assert len(re.findall(r"\bshell:", text)) == len(re.findall(r"^\s*shell: shell_of\(\"\w+\"\)$", text, re.M)), path
        assert not re.search(r"^\s*(run|script|notebook|wrapper):", text, re.M), path
        for made in re.findall(r"args=([^\n]*)", text):
            assert made.startswith("shlex.join(arguments("), f"{path.name}: {made}"
    assert len(stages) == len(set(stages)) >= 15
    for stage in stages:
        fields = set(re.findall(r"\{([^{}]*)\}", shell(stage)))
        assert QUOTED <= fields <= QUOTED | SAFE, f"{stage}: {fields - QUOTED - SAFE}"
        assert "$(" not in shell(stage) and "`" not in shell(stage)


def test_arguments_of_every_job_of_every_paper_are_single_words_for_a_shell():
    settings = load_yaml(ROOT / "config.yaml")
    plan = Plan(parse(Settings, {**settings, "scale": "demo"}, "config.yaml"), ROOT / "workflow")
    jobs = {id(job): job for job in plan.jobs.values()}.values()
    for job in jobs:
        words = arguments(job)
        assert shlex.split(shlex.join(words)) == words
        assert all(re.fullmatch(r"[A-Za-z0-9_./=-]+", word) for word in words), words  # no path of a user's is among these
        assert not [path for path in job.outputs if ".." in path.split("/") or path.startswith("/")]
    assert len(jobs) > 100


HERE = "a b'c\"d $(touch pwned1) `touch pwned2`; touch pwned3 & > pwned4 \\ ü, *? ~ -rf %s #"
PROJECT = "pro ject 'q' \"d\" $(touch pwned5);#"
EVIL = "x; touch pwned6"


@pytest.mark.workflow
def test_hostile_paths_and_names_go_through_snakemake_unharmed(tmp_path):
    """The project, its data, and a class are called so that any unquoted use would make a file."""
    project, folder = Project(tmp_path / PROJECT, papers=()), tmp_path / HERE
    made = some_images(2, 3, (32, 32))
    write_folder(folder, made, ["$(touch pwned7)", "`touch pwned8`"])
    source = {"mine": {"source": {"kind": "folder", "path": str(folder)}}}
    project.config(yaml.safe_dump({"scale": "paper", "papers": ["mini"], "device": "cpu", "datasets": source}))
    done = project.snakemake("-c1", "data/prepared/mine/manifest.json")
    assert done.returncode == 0, done.stderr
    prepared = project.root / "data" / "prepared" / "mine"
    assert manifest(prepared)["classes"] == ["$(touch pwned7)", "`touch pwned8`"]
    for split, (images, labels) in made.items():
        found, numbers = load(prepared, split)
        rows = sorted((int(label), image.numpy().tobytes()) for image, label in zip(found, numbers, strict=True))
        assert rows == sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))

    (project.root / "dd" / "recipes" / f"{EVIL}.py").write_text("raise SystemExit('imported')\n")
    project.edit("workflow/papers/mini.yaml", "method: [random, dm, herding]", f"method: [random, {json.dumps(EVIL)}]")
    done = project.dd("plan")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "imported" not in done.stderr
    assert f"mini.yaml: artifacts.methods: method: value '{EVIL}': a method's name is" in done.stderr

    code = "?__import__('pathlib').Path('pwned9').touch()"
    project.config(f"scale: paper\npapers: [mini]\ndevice: cpu\n__use_yte__: true\nsets: {json.dumps(code)}\n")
    done = project.snakemake("-n")
    assert done.returncode != 0 and "config.yaml: __use_yte__: unknown key" in done.stdout + done.stderr
    assert not list(Path(tmp_path).rglob("pwned*")), "something was run"
