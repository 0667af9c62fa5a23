"""Configuration made of garbage, drawn with a seed: it is taken, or refused by a message that names the file; never a traceback."""

import copy
import random
import shutil

import pytest
import yaml
from project import MINI, ROOT
from watching import bounded

from dd.data.config import check_paths, load_datasets
from dd.errors import DDError
from dd.plan import Plan
from dd.plan.papers import load_settings

CONFIG = """
scale: tiny
papers: [mini]
device: cpu
sets: 2
nets: 3
datasets:
  mine: {source: {kind: folder, path: /data/mine}, mean: [0.5], std: [0.25], flip: true}
  mnist: {source: {kind: idx, path: /data/mnist}}
  commands: {source: {kind: wav, path: /data/commands}}
teachers: {resnet18_tv: {path: /data/r.safetensors, sha256: "%s"}}
generators: {stylegan_xl_128: {path: /data/g.safetensors}}
leave_out: {mini: [other]}
strict: false
""" % ("a" * 64)

SCALE = """
scale: tiny
title: Tiny
notes: For this test
keep:
  - {paper: mini, artifacts: [methods], points: {ipc: [1]}}
map: {dataset: {cifar10: digits}, ipc: {"50": 1}}
cap: {recipe.iterations: 10, protocol.epochs: 2}
leave_out: {mini: [other]}
block: {seeds: 1, nets: 2}
"""

PAPER = (
    MINI
    + """
  other:
    title: Others
    kind: line
    matrix: {ipc: [1, 2], method: [random, dm], iterations: [5, 10]}
    exclude: [{ipc: 2, method: dm}]
    overrides:
      - {when: {method: dm}, set: {recipe.batch_real: 8}}
    x: ipc
    hue: [method]
    means: {}
    pending: {}
axes: {iterations: recipe.iterations}
chosen: {iterations: by us}
overrides:
  - {when: {method: random}, set: {nets: 1}}
printed: {method: {dm: DM}}
"""
)

GARBAGE = [
    None, True, False, 0, 1, -1, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "x", "digits", "dm", "convnet3_in_w8", "1", "-1",
    "nan", "1e-3", "no", "../..", "a\nb", "{x}", "$(x)", "ü", "\u202e", "\x7f", "x" * 3000, [], {}, [[]], [{}], {"": 1}, {"a": {"b": {"c": []}}}, [1, "a", None],
    {"when": {}, "set": {}}, {"kind": "folder"}, {"kind": "download", "path": "x"}, {"path": 1}, [None], {"None": None}, "random", "dc_short", ["dm"], "a.b.c",
    "recipe.iterations", "recipe", "recipe.", ".", "guidance.kind", {"sre2l": {}}, "mlp", "vit_d99999", "convnet999_in", {"method": "dm"}, [0], ["x", "x"],
]  # fmt: skip
KEYS = [
    "x",
    "",
    "recipe",
    "method",
    "ipc",
    "dataset",
    "eval_network",
    "protocol",
    "a.b",
    1,
    None,
    True,
    1.5,
    "__class__",
    "copy",
    "steps",
    "guidance",
    "use",
]
TEXT = ["{", "}", "[", "]", ":", "- ", "\n", "\t", "&a ", "*a", "!!python/name:os.system ", "!", "|", ">", "'", '"', "#", "%", "@", "`", "? ", "<<: ", "\x07", "é",
        "\ufeff", "0x", "1_0", "2001-01-01", "~", "---\n", "...\n", "\\ud800", "'\\0'", "999999999999999999999", ".inf"]  # fmt: skip


def places(tree, path=()):
    """Yield the path of every value in a tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def at(tree, path):
    """Return the value at a path."""
    for key in path:
        tree = tree[key]
    return tree


def changed(tree, draw):
    """Return a copy of a tree in which one to three things are other than they were."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = draw.choice(list(places(tree)))
        if not path:
            continue
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        match draw.choice(("alike", "alike", "alike", "alike", "alike", "replace", "replace", "delete", "rename", "add", "wrap", "swap")):
            case "alike":  # as far as the first check sees
                others = [at(tree, one) for one in places(tree)] + GARBAGE
                alike = [one for one in others if type(one) is type(parent[path[-1]])]
                parent[path[-1]] = copy.deepcopy(draw.choice(alike or others))
            case "replace":
                parent[path[-1]] = copy.deepcopy(draw.choice(GARBAGE))
            case "delete":
                del parent[path[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw.choice(KEYS)] = parent.pop(path[-1])
            case "add" if isinstance(parent, dict):
                parent[draw.choice(KEYS)] = copy.deepcopy(draw.choice(GARBAGE))
            case "wrap":
                parent[path[-1]] = draw.choice(([parent[path[-1]]], {"x": parent[path[-1]]}))
            case _:
                parent[path[-1]] = copy.deepcopy(tree)
    return tree


def garbled(text, draw):
    """Return a text with something else in one to three places."""
    for _ in range(draw.choice((1, 2, 3))):
        at, to = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        match draw.choice(("insert", "insert", "cut", "end", "double")):
            case "insert":
                text = text[:at] + draw.choice(TEXT) + text[at:]
            case "cut":
                text = text[:at] + text[min(to, at + 20) :]
            case "end":
                text = text[:to]
            case _:
                text = text[:to] + text[at:to] + text[to:]
    return text


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """Return a folder of one paper and one scale."""
    root = tmp_path_factory.mktemp("garbage")
    for name, content in (("papers/mini", PAPER), ("scales/tiny", SCALE)):
        (root / "workflow" / name).parent.mkdir(parents=True)
        (root / "workflow" / f"{name}.yaml").write_text(content)
    shutil.copytree(ROOT / "workflow" / "reported", root / "workflow" / "reported")
    (root / "config.yaml").write_text(CONFIG)
    return root


def planned(root):
    """Do what `python -m dd plan` does before it prints."""
    settings = load_settings(root / "config.yaml")
    plan = Plan(settings, root / "workflow", "config.yaml")
    for paper in settings.papers:
        plan.drawing(paper)
    check_paths(load_datasets({}, "config.yaml: datasets"), "config.yaml: datasets")
    return plan


FILES = {"config.yaml": (CONFIG, 120), "workflow/papers/mini.yaml": (PAPER, 150), "workflow/scales/tiny.yaml": (SCALE, 90)}


def test_the_files_that_are_changed_are_right_ones(workflow):
    assert len(planned(workflow).cells["mini"]["methods"]) == 3


@pytest.mark.parametrize("file", FILES)
def test_garbage_is_taken_or_refused_in_words(file, workflow):
    original, count = FILES[file]
    path, seen = workflow / file, {"taken": 0, "refused": 0}
    try:
        for seed in range(count):
            draw = random.Random(f"{file} {seed}")
            text = garbled(original, draw) if seed % 3 == 0 else yaml.safe_dump(changed(yaml.safe_load(original), draw), sort_keys=False)
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            try:
                with bounded(1500):  # a number that is too large must not take the machine along
                    planned(workflow)
                seen["taken"] += 1
            except DDError as error:
                seen["refused"] += 1
                assert any(name in str(error) for name in ("config.yaml", "mini.yaml", "tiny.yaml", "scale tiny")), (
                    f"seed {seed}: {error}\n{text}"
                )
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\n{text}") from error
    finally:
        path.write_text(original)
    assert seen["refused"] > 0.4 * count and seen["taken"] > 0.03 * count, f"the garbage says little: {seen}"


def test_every_byte_in_place_of_a_letter(workflow):
    """Files in another encoding, and with characters that YAML has not."""
    original = CONFIG.encode()
    path = workflow / "config.yaml"
    try:
        for byte in range(256):
            path.write_bytes(original[:20] + bytes([byte]) + original[21:])
            try:
                load_settings(path)
            except DDError as error:
                assert str(path) in str(error)
    finally:
        path.write_bytes(original)
