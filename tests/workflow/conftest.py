"""Checkouts of the project: one a test, one with the small pipeline done, one with the demo done."""

import shutil

import pytest
from project import ROOT, Project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


@pytest.fixture
def checkout(tmp_path):
    """The project as it is, with all its papers and no other."""
    made = Project(tmp_path / "project", papers=None)
    (made.root / "workflow" / "papers" / "mini.yaml").unlink()
    return made


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small pipeline, run once to its end. Tests that change it must put it back."""
    made = Project(tmp_path_factory.mktemp("finished") / "project")
    done = made.snakemake()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """What a newcomer gets: the demo, run once."""
    made = Project(tmp_path_factory.mktemp("demo") / "project", papers=None)
    (made.root / "workflow" / "papers" / "mini.yaml").unlink()
    shutil.copy(ROOT / "config.yaml", made.root / "config.yaml")
    done = made.snakemake("--config", "scale=demo", timeout=1500)  # it shares two cores with other tests
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made
