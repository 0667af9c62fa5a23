"""A cluster for the tests of this folder, where one can be had."""

import os

import pytest
from toycluster import Cluster, unavailable


@pytest.fixture(scope="session")
def cluster():
    """Two nodes, two pretended GPUs each; skips with the reason where there can be none, unless DD_REQUIRE has slurm."""
    reason = unavailable()
    if reason is not None:
        if "slurm" in map(str.strip, os.environ.get("DD_REQUIRE", "").split(",")):
            pytest.fail(f"{reason}, and DD_REQUIRE asks for slurm")
        pytest.skip(reason)
    made = Cluster()
    try:
        made.up()
        yield made
    finally:
        made.down()
