"""What `dd check` finds in drawings and claims before anything has run."""

import copy
from pathlib import Path

import pytest
from plans import whole

from dd.config import parse
from dd.errors import ConfigError
from dd.figures.looks import mistakes
from dd.plan.papers import Settings


@pytest.fixture(scope="module")
def job():
    return whole().drawing("dsdm")


def test_the_papers_of_the_project_have_none(job):
    assert list(mistakes(job, "dsdm.yaml")) == []
    for name in ("clom", "hpd"):
        assert list(mistakes(whole().drawing(name), f"{name}.yaml")) == []


@pytest.mark.parametrize(
    ("artifact", "change", "message"),
    [
        ("fig7", {"kind": "tnse"}, "dsdm.yaml: artifacts.fig7: kind: value 'tnse'; did you mean 'tsne'"),
        ("fig4", {"x": "stpe"}, "artifacts.fig4: x: no point has a coordinate 'stpe'; did you mean 'step'"),
        ("table4", {"columns": ["ipcc"]}, "artifacts.table4: columns: no point has a coordinate 'ipcc'"),
        ("fig8", {"label": "{methd}"}, "artifacts.fig8: label: not every point has a coordinate 'methd'"),
        ("table1", {"mean_gain": ["ipcs"], "baseline": {"method": "dm"}}, "artifacts.table1: mean_gain: no point has a coordinate 'ipcs'"),
        ("table1", {"gain": True}, "artifacts.table1: gain: is measured against a baseline"),
        ("fig4", {"baseline": {"method": "dmm"}}, "artifacts.fig4: baseline: no point has these coordinates"),
        ("table1", {"reported": ["table1_etx"]}, "table1_etx"),
    ],
)
def test_a_misspelt_look_is_found(job, artifact, change, message):
    spoilt = copy.deepcopy(job)
    next(one for one in spoilt["artifacts"] if one["name"] == artifact).update(change)
    assert any(message in mistake for mistake in mistakes(spoilt, "dsdm.yaml"))


def test_a_claim_about_cells_that_never_run_is_found(job, tmp_path):
    text = (
        Path("workflow/reported/claims.yaml")
        .read_text()
        .replace("left: {method: dsdm, ipc: [10, 50]}", "left: {method: dsmd, ipc: [10, 50]}", 1)
    )
    (tmp_path / "claims.yaml").write_text(text)
    found = list(mistakes({**job, "claims": str(tmp_path / "claims.yaml")}, "dsdm.yaml"))
    assert len(found) == 1 and "dsdm-t1-1" in found[0] and "not all of its cells" in found[0]


def test_a_device_is_one_that_there_can_be():
    parse(Settings, {"scale": "demo", "papers": [], "device": "cuda:1"}, "config.yaml")
    with pytest.raises(ConfigError, match="device"):
        parse(Settings, {"scale": "demo", "papers": [], "device": "gpu"}, "config.yaml")
