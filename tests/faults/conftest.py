"""A paper that has every kind of job, made once without faults; a server that runs jobs; and the seed of all that is random."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Faulty
from project import ROOT
from zygote import Zygote, python_instead


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let `-m faults` have all tests of this folder, also those that others run with fewer kills."""
    if config.option.markexpr == "faults":
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker("faults")


@pytest.fixture(scope="session")
def fault_seed() -> str:
    """Return what all random points follow from; FAULTS_SEED repeats those of a run that failed."""
    return os.environ.get("FAULTS_SEED") or str(random.SystemRandom().randrange(10**6))


@pytest.fixture
def chance(request: pytest.FixtureRequest, fault_seed: str) -> random.Random:
    """Return the random numbers of a test, the same whatever runs beside it; a test that fails shows the seed."""
    print(f"FAULTS_SEED={fault_seed}")
    return random.Random(f"{fault_seed} {request.node.name}")


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """Return how often each kind of job, and the pipeline, is killed."""
    return int(request.config.getoption("--kills"))


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    server = Zygote(tmp_path_factory.mktemp("zygote"), ROOT)
    yield server
    server.close()


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Path:
    return python_instead(tmp_path_factory.mktemp("quick") / "bin", zygote)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Faulty:
    """The paper, made job by job without faults. Nobody changes it."""
    made = Faulty(tmp_path_factory.mktemp("whole") / "project", zygote)
    for job in made.jobs:
        ended = made.do(job)
        assert ended.code == 0, ended.text
        made.writes[job.outputs[0]] = ended.writes
    return made


@pytest.fixture
def copy(tmp_path: Path, whole: Faulty, zygote: Zygote) -> Faulty:
    """A copy of it, results and all, that a test may break."""
    root = tmp_path / "copy"
    shutil.copytree(whole.root, root)
    return Faulty(root, zygote, made=True)
