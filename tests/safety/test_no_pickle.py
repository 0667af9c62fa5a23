"""Nothing is unpickled anywhere: no reader does it, and no line of the source could."""

import ast
import io
import os
import pickle
import re
import subprocess

import numpy as np
import pytest
import torch
from project import ROOT
from reading_sites import sites
from samples import SAMPLES, functions_called
from watching import Bomb, Forbidden, bomb, guarded

from dd.data.config import KINDS
from dd.data.registry import DATASETS
from dd.errors import DDError

SOURCES = sorted(
    [*(ROOT / "dd").rglob("*.py"), *(ROOT / "docs").glob("*.py"), *(ROOT / "workflow").rglob("*.py"), *(ROOT / "profiles").rglob("*.py")]
)
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "dbm", "imp", "code"}
CODE = {"eval", "exec", "__import__", "compile"}  # of Python; methods such as `re.compile` and `net.eval()` are others
# Functions that unpickle, run text as code, or hand text to a shell.
CALLS = {
    "os.system", "torch.load", "torch.jit.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "pd.read_pickle", "pandas.read_pickle",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "os.popen", "subprocess.getoutput", "pty.spawn",
    "subprocess.getstatusoutput", "tempfile.mktemp", "shutil.unpack_archive",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder for each sample, with its files."""
    root = tmp_path_factory.mktemp("samples")
    for name, sample in SAMPLES.items():
        (root / name).mkdir()
        sample.make(root / name)
    return root


def read(name, root):
    try:
        SAMPLES[name].read(root / name)
    except DDError as error:
        assert SAMPLES[name].refused, f"{name}: {error}"
    else:
        assert not SAMPLES[name].refused, name


def test_every_reader_and_loader_runs_without_an_unpickler(made, monkeypatch):
    def run():
        for name in SAMPLES:
            read(name, made)

    with guarded(monkeypatch, made):
        called = functions_called(run, ROOT)
    writers = {("dd/plan/pack.py", "pack"), ("dd/plan/pack.py", "_new")}
    missing = sites() - called - writers
    assert not missing, f"readers of binary files that have no sample in tests/safety/samples.py: {sorted(missing)}"


def test_every_layout_and_every_kind_of_source_has_a_sample():
    served = {what for sample in SAMPLES.values() for what in sample.serves}
    assert served == {*KINDS, *(known.layout for known in DATASETS.values())}


def test_the_guard_notices_what_it_is_there_for(tmp_path, monkeypatch):
    marker, outside = tmp_path / "marker", tmp_path.parent / "outside"
    original = pickle.loads
    torch.save(Bomb(marker), tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", a=np.array([Bomb(marker)], dtype=object))
    attempts = [
        lambda: pickle.loads(bomb(marker)), lambda: original(bomb(marker)), lambda: pickle.Unpickler(io.BytesIO(bomb(marker))).load(),
        lambda: torch.load(tmp_path / "x.pt", weights_only=False), lambda: np.load(tmp_path / "x.npz", allow_pickle=True)["a"],
        lambda: os.system("true"), lambda: subprocess.run(["true"], timeout=10), lambda: (tmp_path.parent / "outside").write_text("x"),
        lambda: (tmp_path / "in" / ".." / ".." / "outside").write_text("x"), lambda: (tmp_path.parent / "new").mkdir(),
        lambda: outside.touch(), lambda: os.open(outside, os.O_CREAT | os.O_WRONLY), lambda: os.open(os.fsencode(outside), os.O_RDWR | os.O_CREAT),
        lambda: (tmp_path / "mine").rename(outside), lambda: os.replace(tmp_path / "mine", outside), lambda: os.link(tmp_path / "mine", outside),
    ]  # fmt: skip
    (tmp_path / "mine").write_text("x")
    for attempt in attempts:
        with guarded(monkeypatch, tmp_path), pytest.raises(Forbidden):
            attempt()
        assert not marker.exists() and not outside.exists()
    with guarded(monkeypatch, tmp_path):
        (tmp_path / "inside").write_text("x")
        (tmp_path / "inside").rename(tmp_path / "renamed")
        os.close(os.open(tmp_path.parent, os.O_RDONLY))
    original(bomb(marker))
    assert marker.exists(), "the bomb is a live one"


# -- the source ---------------------------------------------------------------------------------------------------------


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(parts)])


def faults(text):
    """Return what in a Python source unpickles, runs text as code, or hands it to a shell."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: imports {name}" for name in names if name.partition(".")[0] in PICKLERS]
            if isinstance(node, ast.ImportFrom):
                wrong = [f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in CALLS]
                found += [f"line {node.lineno}: imports {name}" for name in wrong]
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {word.arg: word.value for word in node.keywords}
        if name in CODE or name in CALLS:
            found.append(f"line {node.lineno}: calls {name}")
        if isinstance(options.get("shell"), ast.Constant) and options["shell"].value:
            found.append(f"line {node.lineno}: {name} with shell=True")
        if name in ("np.load", "numpy.load") and not (
            isinstance(options.get("allow_pickle"), ast.Constant) and options["allow_pickle"].value is False
        ):
            found.append(f"line {node.lineno}: {name} without allow_pickle=False")
        if name.rpartition(".")[2] in ("extractall", "unpack_archive"):
            found.append(f"line {node.lineno}: calls {name}: members are read one by one")
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        "import pickle", "from pickle import loads", "import dill as d", "def f():\n    import joblib.numpy_pickle", "eval(x)",
        "exec(x)", "__import__(x)", "import os\nos.system(x)", "from os import system", "import subprocess\nsubprocess.run(x, shell=True)",
        "import torch\ntorch.load(x, weights_only=True)", "from torch import load", "import numpy as np\nnp.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)", "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)", "tar.extractall(x)",
    ],
)  # fmt: skip
def test_the_static_test_sees(wrong):
    assert faults(wrong), wrong


@pytest.mark.parametrize("right", ["import re\nre.compile(x)", "net.eval()", "np.load(x, allow_pickle=False)", "recipes.load(x)"])
def test_the_static_test_lets_pass(right):
    assert not faults(right), right


def test_no_source_unpickles_or_runs_text():
    wrong = {str(path.relative_to(ROOT)): found for path in SOURCES if (found := faults(path.read_text(encoding="utf-8")))}
    assert not wrong and len(SOURCES) > 150


def test_no_rule_unpickles_or_runs_text():
    """Rules are not quite Python: their text is searched."""
    pattern = re.compile(
        r"pickle|\bmarshal|\bshelve|\beval\(|\bexec\(|os\.system|os\.popen|shell=True|\byaml\.|torch\.load|^\s*run:|^\s*script:", re.M
    )
    for path in RULES:
        assert not pattern.search(path.read_text(encoding="utf-8")), path
