"""The small pipeline under git and DVC, made once."""

import pytest
from versioned import Versioned


@pytest.fixture(scope="session")
def remote(tmp_path_factory):
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory, remote):
    """The small pipeline, made by `dvc repro`, committed and pushed. Tests do not change it, but clone it."""
    made = Versioned(tmp_path_factory.mktemp("versions") / "project", remote)
    made.do("dvc", "repro")
    made.commit("made")
    made.do("make", "-o", ".venv/.installed", "push")
    return made
