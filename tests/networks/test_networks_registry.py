"""Names, messages and discovery; none of it needs torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dd import networks
from dd.errors import ConfigError

BLOCKED = """
import sys
sys.modules["torch"] = None
from dd import networks
for name in networks.names():
    assert networks.module_of(name).startswith("dd.networks."), name
print(networks.parse("convnet3_in_w256"))
try:
    networks.parse("convnet3")
except Exception as error:
    print(type(error).__name__)
"""


def test_names_are_checked_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["{'depth': 3, 'norm': 'in', 'width': 256}", "ConfigError"]


def test_every_family_has_examples_with_a_width_and_no_name_belongs_to_two() -> None:
    families = {networks.module_of(name) for name in networks.names()}
    files = {path.stem for path in Path(networks.__file__).parent.glob("[!_]*.py")}
    assert families == {f"dd.networks.{stem}" for stem in files}
    for module in families:
        assert any("width" in networks.parse(name) for name in networks.names() if networks.module_of(name) == module), module
    for name in networks.names():
        assert sum(bool(family.pattern.fullmatch(name)) for family in networks.FAMILIES.all) == 1, name
    assert len(set(networks.names())) == len(networks.names())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("convnet3_in", {"depth": 3, "norm": "in"}),
        ("convnet4_in_w512_leaky_nopool", {"depth": 4, "norm": "in", "width": 512, "activation": "leaky", "pooling": "nopool"}),
        ("convnet3_none_sigmoid", {"depth": 3, "norm": "none", "activation": "sigmoid"}),
        ("mlp", {}),
        ("mlp_w32", {"width": 32}),
        ("resnet18_bn_w16", {"norm": "bn", "width": 16}),
        ("vit_d4", {"depth": 4}),
        ("vit_w48_d4", {"width": 48, "depth": 4}),
    ],
)
def test_parse(name: str, fields: dict[str, object]) -> None:
    assert networks.parse(name) == fields


@pytest.mark.parametrize(
    "wrong", ["", "convnet3", "convnet0_in", "convnet3_in_w0", "convnet3_in_max_w8", "Convnet3_in", "convnet3_in\n", "resnet18"]
)
def test_a_wrong_name_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is unknown"):
        networks.parse(wrong)


def test_the_message_has_the_nearest_name_and_the_forms() -> None:
    with pytest.raises(ConfigError) as caught:
        networks.module_of("resnet18in")
    message = str(caught.value)
    assert "'resnet18in'" in message
    assert "did you mean 'resnet18_in'?" in message
    assert "convnet<depth>_(in|bn|none)[_w<width>][_(sigmoid|leaky)][_(max|nopool)]" in message
    assert "vit[_w<width>][_d<depth>]" in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("NAME = 'x'\n", "must have EXAMPLES"),
        ("NAME = 'x' + y\nEXAMPLES = ['x']\n", "NAME must be a plain literal"),
        ("NAME = '('\nEXAMPLES = ['x']\n", "not a regular expression"),
    ],
)
def test_a_family_without_its_literals_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        networks.FAMILIES.read(path)
    assert str(path) in str(caught.value)


def test_a_family_that_is_read_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("raise RuntimeError\nNAME = r'mine(?P<width>[0-9]+)'\nEXAMPLES = ['mine3']\n")
    family = networks.FAMILIES.read(path)
    assert family.module == "dd.networks.mine"
    assert family.examples == ("mine3",)


def test_the_page_about_networks_shows_a_family_that_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-a-network.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    path = tmp_path / "lenet.py"
    path.write_text(code)
    family = networks.FAMILIES.read(path)
    space: dict[str, object] = {"__name__": "lenet"}
    exec(compile(ast.parse(code), str(path), "exec"), space)
    import torch

    for name in family.examples:
        found = family.pattern.fullmatch(name)
        assert found, name
        fields = {key: int(value) for key, value in found.groupdict().items() if value is not None}
        least = space["smallest"](**fields)  # type: ignore[operator]
        network = space["build"](1, (least, least), 10, **fields)  # type: ignore[operator]
        x = torch.randn(2, 1, least, least)
        assert network(x).shape == (2, 10)
        assert torch.equal(network.rear(network.stages(x)[0], 0), network(x))
        with pytest.raises(ConfigError, match=f"{least}x{least}"):
            space["build"](1, (least - 1, least), 10, **fields)  # type: ignore[operator]
