"""Which files of a folder are families; what networks and generators make of names is tested with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dd import generators, networks
from dd.errors import ConfigError
from dd.families import Families

FAMILY = "NAME = r'mine(?:_w(?P<width>[1-9][0-9]*))?(?:_(?P<norm>in|bn))?'\nEXAMPLES = ['mine', 'mine_w8_in']\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FAMILY)
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "_shared.py").write_text(FAMILY.replace("mine", "hidden"))
    return tmp_path


def test_files_that_begin_with_an_underscore_are_no_families(folder: Path) -> None:
    found = Families("network", "some.package", folder)
    assert [family.module for family in found.all] == ["some.package.mine"]
    assert found.names() == ["mine", "mine_w8_in"]
    assert found.module_of("mine_bn") == "some.package.mine"
    assert found.parse("mine_w16_bn") == {"width": 16, "norm": "bn"}
    with pytest.raises(ConfigError, match=r"network 'hidden' is unknown.*mine\[_w<width>\]\[_\(in\|bn\)\]"):
        found.parse("hidden")


def test_a_file_with_neither_literal_is_refused_only_where_every_file_must_be_a_family(folder: Path) -> None:
    (folder / "other.py").write_text("WORD = 1\n")
    assert Families("generator", "some.package", folder, strict=False).names() == ["mine", "mine_w8_in"]
    with pytest.raises(ConfigError, match=r"other\.py: a network family must have EXAMPLES and NAME"):
        Families("network", "some.package", folder).names()
    (folder / "other.py").write_text("NAME = 'other'\n")
    with pytest.raises(ConfigError, match=r"other\.py: a generator family must have EXAMPLES at"):
        Families("generator", "some.package", folder, strict=False).names()


def test_networks_are_strict_and_generators_are_not() -> None:
    assert networks.FAMILIES.strict
    assert not generators.FAMILIES.strict
    assert {family.module for family in generators.FAMILIES.all} == {"dd.generators.mini"}
