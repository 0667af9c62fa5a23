"""The benchmark runs, and compares paths that compute the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the benchmarks are no part of what is installed

from benchmarks import floor, growth, textbook, units  # noqa: E402
from benchmarks.__main__ import main, table  # noqa: E402
from benchmarks.measure import Measured, Worker  # noqa: E402
from benchmarks.textbook import Data, Sizes  # noqa: E402
from dd.errors import DDError  # noqa: E402

ALL_REAL = Sizes(classes=3, ipc=2, real=8, width=8, steps=3, per_class=8)  # a batch is all images of a class, in whatever order
NUMBERS = {"ours_s", "textbook_s", "speedup", "floor_s", "of_floor", "peak_mb"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    """Return report, table and folder of one quick run."""
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr, out


@pytest.mark.slow
def test_a_quick_run_measures_every_unit(quick) -> None:
    found, shown, out = quick
    assert set(found) == {"units", "machine"}
    assert list(found["units"]) == list(textbook.UNITS)
    for unit, row in found["units"].items():
        assert set(row) >= NUMBERS and all(row[key] > 0 for key in NUMBERS), unit
        assert row["finite"] and unit in shown
        assert row["speedup"] == pytest.approx(row["textbook_s"] / row["ours_s"])
        assert row["of_floor"] == pytest.approx(row["floor_s"] / row["ours_s"])
        assert row["floor_s"] == pytest.approx(min(row["ours_flops"], row["textbook_flops"]) / found["machine"]["gflops_per_s"] / 1e9)
    assert found["machine"]["threads"] == 1
    assert json.loads((out / "bench.json").read_text()) == found


@pytest.mark.slow
def test_both_paths_need_about_the_same_operations(quick) -> None:
    for unit, row in quick[0]["units"].items():
        assert 0.5 < row["ours_flops"] / row["textbook_flops"] < 2, unit


@pytest.mark.slow
def test_growth_is_measured_and_drawn(quick) -> None:
    rows = json.loads((quick[2] / "growth.json").read_text())["rows"]
    assert {row["along"] for row in rows} == {"ipc", "classes", "steps", "experts"}
    assert [row["x"] for row in rows if row["along"] == "experts"] == [1, 2]
    one, two = (row["ours_mb"] for row in rows if row["along"] == "experts")
    assert two == pytest.approx(2 * one, rel=0.01)
    assert (quick[2] / "growth.png").stat().st_size > 10_000


def test_the_full_growth_goes_as_far_as_is_said() -> None:
    seen = {
        along: sorted({cell.x for cell in growth.cells(growth.SMALL, False) if cell.along == along})
        for along in ("ipc", "classes", "steps", "experts")
    }
    assert seen == {"ipc": [1, 10, 50], "classes": [10, 50, 100], "steps": [5, 10, 20, 40], "experts": [1, 2, 4, 8]}


def _forward_flops(width: int, classes: int) -> int:
    convolutions = sum(2 * side**2 * width * inputs * 9 for side, inputs in ((32, 3), (16, width), (8, width)))
    return convolutions + 2 * 16 * width * classes


def test_a_forward_pass_is_counted_as_by_hand() -> None:
    net = textbook.convnet(Sizes(width=8, classes=5), "cpu")
    with torch.no_grad():
        assert floor.flops(lambda: net(torch.zeros(3, 3, 32, 32))) == 3 * _forward_flops(8, 5)


def test_a_second_backward_pass_is_counted_also_inside_an_autograd_function() -> None:
    from dd.objectives.unroll import adjoint, full

    x, weight = torch.randn(4, 3, 8, 8), torch.randn(2 * 3 * 9)
    alpha = torch.tensor(0.1, requires_grad=True)

    def unrolled(unroll) -> int:
        images = x.clone().requires_grad_(True)

        def loss(i, theta, seen):
            return torch.nn.functional.conv2d(seen, theta.view(2, 3, 3, 3)).square().sum()

        return floor.flops(lambda: unroll(loss, images, weight, alpha, 1).sum().backward())

    once = 2 * 4 * 36 * 2 * 3 * 9
    # Forward, backward to the weights; then back through both: to the images and, of the second one, to what it was given.
    assert unrolled(full) == pytest.approx(6 * once, abs=2 * once)
    assert unrolled(adjoint) - unrolled(full) == pytest.approx(2 * once, abs=once)  # it takes the step once more


def test_the_least_count_makes_the_floor() -> None:
    row = Measured(([2.0, 4.0, 3.0], [6.0, 5.0, 9.0]), ([4.0], [8.0]), (400, 200), (10.0, 20.0)).row(100.0)
    assert (row["ours_s"], row["textbook_s"], row["speedup"], row["floor_s"]) == (3.0, 6.0, 2.0, 2.0)
    assert row["speedup_range"] == [1.25, 3.0] and row["ours_range_s"] == [2.0, 4.0] and row["rounds"] == 3
    assert (row["ours_cpu_s"], row["textbook_cpu_s"]) == (4.0, 8.0)


def test_numbers_that_are_not_finite_are_shown() -> None:
    row = Measured(([1.0], [1.0]), ([1.0], [1.0]), (1, 1), (1.0, 1.0), finite=False).row(1.0)
    where = {"device": "cpu", "name": "", "threads": 1, "torch": "", "load_before": 0.0, "gflops_per_s": 1.0, "gflops_per_s_seen": [1.0]}
    assert "NOT FINITE" in table({"units": {"dm_iteration": row}, "machine": where})


def test_another_checkout_is_measured_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "dd").mkdir()
    (tmp_path / "dd" / "__init__.py").write_text("")
    worker = Worker(True, "cpu", 1, tmp_path.resolve())
    try:
        with pytest.raises(DDError, match=r"our path: setup dm_iteration: (.|\n)*No module named 'dd\.verbs'"):
            worker.ask("setup", unit="dm_iteration", sizes={})
    finally:
        worker.close()


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cpu", "--dd", str(tmp_path), "--out", str(tmp_path / "out")])
    assert main() == 1
    assert f"--dd: value {tmp_path}: has no package dd; allowed: the root folder of a checkout" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_process_that_was_killed_is_reported(tmp_path: Path) -> None:
    worker = Worker(False, "cpu", 1, ROOT)
    worker._process.kill()
    try:
        with pytest.raises(DDError, match="the textbook path: about : it ended with status -9"):
            worker.ask("about")
    finally:
        worker.close()


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch):
    """Take augmentation and shuffling from the textbook path, and let it have one network; return that, and the same weights for dd."""
    from dd import networks

    torch.manual_seed(1)
    net = textbook.convnet(ALL_REAL, "cpu")
    monkeypatch.setattr(textbook, "convnet", lambda sizes, device: net)
    monkeypatch.setattr(textbook, "augment", lambda x, op, shared: x)
    ours = networks.build(units.network(ALL_REAL), 3, (32, 32), ALL_REAL.classes, 0)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), net.parameters(), strict=True):
            assert a.shape == b.shape
            a.copy_(b)
    return net, ours


def _losses(run, first: torch.Tensor, times: int = 3) -> list[float]:
    """Return the losses of the first iterations of our run from these images."""
    images = run.optimizer.param_groups[0]["params"][0]
    with torch.no_grad():
        images.copy_(first)
    seen, term = [], run.term
    run.term = lambda batches, net: seen.append(term(batches, net)) or seen[-1]
    unit = units.descending(run)
    for _ in range(times):
        unit.work()
    return [float(loss.detach()) for loss in seen]


@pytest.mark.parametrize("method", ["dm", "dsa", "dsdm"])
def test_matching_has_the_textbook_losses(same, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, ours = same
    data = Data(ALL_REAL, "cpu")
    first, _ = data.start(ALL_REAL)
    monkeypatch.setattr(data, "start", lambda sizes: (first.clone(), torch.arange(3).repeat_interleave(2)))
    unit = {"dm": "dm_iteration", "dsa": "dsa_step", "dsdm": "dsdm_iteration"}[method]
    work = textbook.UNITS[unit](ALL_REAL, data)
    fields = {**getattr(units, f"{method}_fields")(ALL_REAL), "augment": "none"} | ({"lr_img": 0.1} if method == "dsdm" else {})
    paths = [units.checkpoints(ALL_REAL, 1)] if method == "dsdm" else []
    run = units.assembled(method, fields, ALL_REAL, data, *paths)
    ours.requires_grad_(method == "dsa")
    net.requires_grad_(method == "dsa")
    monkeypatch.setattr(run.source, "draw", lambda step: ours)
    start = first * data.std + data.mean if method == "dsdm" else first
    losses = _losses(run, start)
    assert losses == pytest.approx([float(work()) for _ in range(3)], rel=2e-4)
    assert len(set(losses)) == 3


def test_trajectories_have_the_textbook_losses(same, monkeypatch: pytest.MonkeyPatch) -> None:
    from dd.sources.trajectories import Segment
    from dd.train.functional import Flat, flat

    _, ours = same
    data = Data(ALL_REAL, "cpu")
    first, labels = data.start(ALL_REAL)
    monkeypatch.setattr(data, "start", lambda sizes: (first.clone(), labels))
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)  # the way that the expert went
    work = textbook.mtt_iteration(ALL_REAL, data)
    run = units.assembled("mtt", {**units.mtt_fields(ALL_REAL), "augment": "none"}, ALL_REAL, data, [units.expert_file(ALL_REAL)])
    start = flat(ours.parameters())
    monkeypatch.setattr(run.source, "draw", lambda step: Segment(Flat(ours), start, start + 0.01))
    losses = _losses(run, first)
    assert losses == pytest.approx([float(work()) for _ in range(3)], rel=1e-5)
    assert len(set(losses)) == 3


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("benchmarks.paths", ["--networks", "convnet3_in_w4:3:16", "--images", "2", "--rounds", "1"]),
        ("benchmarks.several_networks", ["--networks", "2", "--width", "4", "--threads", "1"]),
    ],
)
def test_the_scripts_behind_the_choices_run(module, options):
    done = subprocess.run([sys.executable, "-m", module, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
