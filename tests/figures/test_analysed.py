"""Figures of analyses: t-SNE over several cells, and several networks."""

import csv
import io

import numpy as np
import pytest
import torch

from dd.artifacts import save_tensors
from dd.errors import ArtifactError
from dd.figures.models import models, models_csv, models_sheet
from dd.figures.paper import _read
from dd.figures.spaces import embed, mmd, tsne, tsne_csv, tsne_sheet

METHODS = ("dm", "dsdm")


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def panels(bench, *, shared=True):
    """dm and dsdm at ipc 2 and 5; dsdm decodes four images of each, and spreads half as far."""
    cells = []
    for number, (ipc, method) in enumerate((ipc, method) for ipc in (2, 5) for method in METHODS):
        path = bench.root / f"{method}{ipc}.safetensors"
        count = ipc * (4 if method == "dsdm" else 1)
        real = normal(0 if shared else number, 40, 6)
        about = {"class": "cat", "embedded": count, "stored": ipc}
        save_tensors(path, {"real": real, "syn": normal(10 + number, count, 6) * (0.5 if method == "dsdm" else 1)}, about)
        cells.append({**bench.cell([[0.5]], method=method, ipc=ipc), "analysis": str(path)})
    return _read({"name": "a", "title": "A", "kind": "tsne", "cells": cells}, "paper", "all", [])


def real_places(figure):
    return [axis.collections[0].get_offsets() for axis in figure.axes]


def test_panels_share_their_real_points_where_these_are_the_same(bench):
    figure = tsne(panels(bench))
    places = real_places(figure)
    assert len(places) == 4 and all((one == places[0]).all() for one in places)
    assert [len(axis.collections[1].get_offsets()) for axis in figure.axes] == [2, 8, 5, 20]
    assert "lie in the same places in all panels" in " ".join(tsne_sheet(panels(bench)).notes)


def test_panels_of_other_real_points_stand_alone_and_say_so(bench):
    drawn = panels(bench, shared=False)
    places = real_places(tsne(drawn))
    assert not (places[0] == places[1]).all()
    assert "a t-SNE of its own" in " ".join(tsne_sheet(drawn).notes)


def test_the_title_and_the_sheet_have_the_ratio_of_spreads_and_what_was_decoded(bench):
    drawn = panels(bench)
    variance = lambda x: float(x.double().numpy().var(0, ddof=1).sum())  # noqa: E731
    ratio = variance(normal(11, 8, 6) * 0.5) / variance(normal(0, 40, 6))
    row = tsne_sheet(drawn).rows[1]
    distance = f"{naive_mmd(normal(0, 40, 6).numpy(), (normal(11, 8, 6) * 0.5).numpy()):.3g}"
    assert row[-3:] == [f"{ratio:.3g}", distance, "8 decoded from 2"] and tsne_sheet(drawn).rows[0][-1] == "2"
    titles = [axis.get_title(loc="left").split("\n") for axis in tsne(drawn).axes]
    assert titles[1] == ["ipc 2, dsdm", f"spread of distilled / real: {ratio:.3g}", f"squared MMD to real: {distance}"]
    rows = list(csv.DictReader(io.StringIO(tsne_csv(drawn))))
    assert [(row["embedded"], row["stored"]) for row in rows] == [("2", "2"), ("8", "2"), ("5", "5"), ("20", "5")]


def naive_mmd(real, syn):
    """The unbiased estimate, sum by sum; the width is the median distance between two real points."""
    real, syn = [[float(v) for v in row] for row in real], [[float(v) for v in row] for row in syn]
    square = lambda a, b: sum((p - q) ** 2 for p, q in zip(a, b, strict=True))  # noqa: E731
    n, m = len(real), len(syn)
    width = np.median([square(real[i], real[j]) ** 0.5 for i in range(n) for j in range(i)])
    k = lambda a, b: np.exp(-square(a, b) / (2 * width * width))  # noqa: E731
    same = [sum(k(p[i], p[j]) for i in range(len(p)) for j in range(len(p)) if i != j) / (len(p) * (len(p) - 1)) for p in (real, syn)]
    return same[0] + same[1] - 2 * sum(k(a, b) for a in real for b in syn) / (n * m)


def test_the_distance_is_small_for_points_of_the_same_law_and_unknown_for_one_point():
    draw = np.random.default_rng(0).normal
    real, alike, shifted = draw(size=(60, 5)), draw(size=(20, 5)), draw(size=(20, 5)) + 1
    assert mmd(real, shifted) == pytest.approx(naive_mmd(real, shifted), rel=1e-12)
    assert abs(mmd(real, alike)) < 0.02 < 0.1 < mmd(real, shifted)
    assert mmd(real * 100, shifted * 100) == pytest.approx(mmd(real, shifted)), "no matter in which unit"
    assert mmd(real, shifted[:1]) is None and mmd(np.ones((5, 2)), alike[:, :2]) is None
    holed = np.concatenate([shifted, np.full((1, 5), np.nan)])
    assert mmd(real, holed) == mmd(real, shifted), "what is not finite is left out"


def test_points_that_are_not_finite_have_no_place(bench):
    parts = [np.random.default_rng(0).normal(size=(6, 3)), np.full((2, 3), np.nan)]
    assert [len(part) for part in embed(parts)] == [6, 0]
    assert embed([parts[0][:4], parts[1]]) is None


def several(bench, loss, **more):
    path = bench.root / "several.safetensors"
    count = len(loss)
    about = {"config": {"label": 1}, "class": "cat", "batch": 64, "embedded": 4, "stored": 1}
    save_tensors(path, {"real": normal(0, count, 8, 6), "syn": normal(1, count, 4, 6), "loss": torch.tensor(loss)}, about)
    cells = [{**bench.cell([[0.5]]), "analysis": str(path)}, {**bench.cell([[0.5]], method="dsdm"), "analysis": None}]
    return _read({"name": "a", "title": "A", "kind": "models", "cells": cells, **more}, "paper", "all", [])


LOSS = [[[9.0, 9.0], [1.0, 3.0]], [[0.0, 2.0], [4.0, 8.0]], [[5.0, 7.0], [6.0, 6.0]]]  # models, classes, draws


def test_each_model_has_a_row_with_its_loss_and_spreads(bench):
    drawn = several(bench, LOSS)
    rows = list(csv.DictReader(io.StringIO(models_csv(drawn))))
    numbers = [[float(row[key]) for key in ("loss", "loss_std_draws", "loss_all_classes", "loss_std_classes")] for row in rows[:3]]
    # class 1: means 2, 6, 6 over draws; means over classes of (9, 2), (1, 6), (6, 6)
    assert numbers == [[2, 1, 5.5, 3.5], [6, 2, 3.5, 2.5], [6, 0, 6, 0]]
    assert (rows[3]["method"], rows[3]["loss"]) == ("dsdm", "") and rows[0]["embedded"] == "4"
    sheet = models_sheet(drawn)
    assert [row[1:] for row in sheet.rows][:2] == [
        ["1", "2 ± 1", "5.5 ± 3.5", "4 decoded from 1"], ["2", "6 ± 2", "3.5 ± 2.5", "4 decoded from 1"],
    ]  # fmt: skip
    spread = 100 * np.std([2, 6, 6]) / np.mean([2, 6, 6])
    assert sheet.rows[3][1:3] == ["variation over models", f"{spread:.1f} %"]
    assert sheet.rows[4] == ["dsdm", "", "not run", "not run", ""]
    said = " ".join(sheet.notes)
    assert "Class cat: mean and standard deviation over 2 batches" in said


def test_bars_are_as_high_as_the_losses(bench):
    figure = models(several(bench, LOSS))
    bars = [patch.get_height() for patch in figure.axes[1].patches]
    assert bars == [2, 5.5, 6, 3.5, 6, 6]
    points = [len(one.get_offsets()) for one in figure.axes[0].collections]
    assert points == [8, 4] * 3, "dots of the real images and stars of the distilled ones, model by model"


def test_a_model_that_diverged_is_said_and_not_drawn(bench):
    drawn = several(bench, [LOSS[0], [[float("nan")] * 2] * 2])
    assert [patch.get_height() for patch in models(drawn).axes[1].patches] == [2, 5.5]
    assert models_sheet(drawn).rows[1][1:4] == ["2", "nan ± nan", "nan ± nan"]


def test_an_analysis_of_the_other_kind_is_refused(bench):
    drawn = panels(bench)
    with pytest.raises(ArtifactError, match="not `real`, `syn` and `loss`"):
        models(drawn)
    with pytest.raises(ArtifactError, match="of one network"):
        tsne(several(bench, LOSS))
