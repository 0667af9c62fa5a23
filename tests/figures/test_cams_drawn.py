"""Maps of class evidence over images."""

import csv
import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from dd.artifacts import save_tensors
from dd.errors import ArtifactError, ConfigError
from dd.figures.cams import cams, cams_csv, cams_sheet, misfits, read
from dd.figures.paper import _read

CLASSES = ["ant", "bee", "cat"]


def corner(*places):
    """A map of 4x4 with these numbers in its first pixels."""
    found = torch.zeros(16)
    found[: len(places)] = torch.tensor(places)
    return found.view(4, 4)


MAPS = torch.stack([  # two epochs, two classes
    torch.stack([corner(1.0, 0.5, 0.25), corner()]),
    torch.stack([corner(0.0, 1.0), corner(1.0, 1.0, 1.0, 1.0)]),
])  # fmt: skip


def analysed(bench, name, labels=(0, 2), maps=MAPS, epochs=(0, 20), wanted=(0, 2), **more):
    path = bench.root / f"cams-{name}" / "set0.safetensors"
    path.parent.mkdir(exist_ok=True)
    about = {"config": {"network": "resnet18_bn"}, "classes": CLASSES, "range": [0.0, 1.0], "epochs": epochs, "wanted": wanted, "image": 0}
    images = torch.stack([torch.full((1, 4, 4), 0.2 + 0.3 * place) for place in range(len(labels))])
    save_tensors(path, {"images": images, "labels": torch.tensor(labels), "maps": maps}, {**about, **more})
    return str(path)


def drawn(cells, **look):
    return _read({"name": "a", "title": "A", "kind": "cams", "cells": cells, **look}, "paper", "all", [])


def rows_of(figure):
    found = {}
    for image in figure.axes[0].images:
        left, _, _, top = image.get_extent()
        found.setdefault(round(top, 3), {})[round(left, 3)] = np.asarray(image.get_array())
    return [[row[x] for x in sorted(row)] for _, row in sorted(found.items(), reverse=True)]


def words(figure):
    return [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]


def test_images_stand_above_their_maps_with_classes_across(bench):
    cells = [{**bench.cell([[0.5]], method=method), "analysis": analysed(bench, method)} for method in ("glad", "hpd")]
    figure = cams(drawn(cells, rows=["method"]))
    images = rows_of(figure)
    assert [len(row) for row in images] == [2] * 6
    assert words(figure)[:8] == ["ant", "cat", "glad", "evidence, network not trained", "evidence, network of 20 epochs", "hpd",
                                 "evidence, network not trained", "evidence, network of 20 epochs"]  # fmt: skip
    assert images[0][1] == pytest.approx(0.5) and images[0][0] == pytest.approx(0.2)
    over = images[1][0]  # of the first class, not trained: the first pixel has the most evidence, the last none
    most, none = (np.array(colormaps["plasma"](value))[:3] for value in (1.0, 0.0))
    assert over[0, 0] == pytest.approx(0.25 * 0.2 + 0.75 * most, abs=1e-6)
    assert over[3, 3] == pytest.approx(0.85 * 0.2 + 0.15 * none, abs=1e-6)
    assert not np.allclose(over, images[2][0])


def test_values_of_x_stand_side_by_side(bench):
    cells = [{**bench.cell([[0.5]], step=step), "analysis": analysed(bench, f"s{step}")} for step in (20, 0, 10)]
    cells[0]["analysis"] = str(bench.root / "cams-gone")
    figure = cams(drawn(cells, x="step"))
    assert words(figure)[:3] == ["step 0", "step 10", "step 20"]
    assert [text for text in words(figure) if text in ("ant", "bee", "cat")] == ["ant", "cat"]
    assert [len(row) for row in rows_of(figure)] == [2] * 6 and words(figure).count("not run") == 6
    with pytest.raises(ConfigError, match="two points stand in row , column 0; name what differs"):
        cams(drawn([cells[1], {**cells[2], "at": cells[1]["at"]}], x="step"))


def test_rows_of_other_steps_or_classes_say_their_own(bench):
    path = analysed(bench, "one")
    cells = [{**bench.cell([[0.5]], method=m, step=s), "analysis": path} for m, s in (("dm", 0), ("dm", 24), ("dsa", 0), ("dsa", 120))]
    figure = cams(drawn(cells, x="step", rows=["method"]))
    assert [text for text in words(figure) if text.startswith("step")] == ["step 0", "step 24", "step 0", "step 120"] * 2
    assert [len(row) for row in rows_of(figure)] == [2] * 12
    other = analysed(bench, "two", classes=["dog", "elk", "fox"])
    pair = [{**bench.cell([[0.5]], method=m), "analysis": p} for m, p in (("dm", path), ("dsa", other))]
    assert [text for text in words(cams(drawn(pair, rows=["method"]))) if len(text) == 3] == ["dsa", "ant", "cat", "dog", "fox"]


def test_one_analysis_of_several_evaluations_is_shown_once(bench):
    path = analysed(bench, "one")
    cells = [{**bench.cell([[0.5]], eval_network=name), "analysis": path} for name in ("alexnet", "convnet3_in")]
    assert [len(row) for row in rows_of(cams(drawn(cells)))] == [2] * 3
    assert len(list(csv.DictReader(io.StringIO(cams_csv(drawn(cells)))))) == 4


def test_the_csv_has_how_far_evidence_spreads_and_agrees(bench):
    one = drawn([{**bench.cell([[0.5]]), "analysis": analysed(bench, "one")}, {**bench.cell([[0.5]], method="hpd"), "analysis": None}])
    rows = list(csv.DictReader(io.StringIO(cams_csv(one))))
    assert [(row["class"], row["epoch"]) for row in rows[:4]] == [("ant", "0"), ("ant", "20"), ("cat", "0"), ("cat", "20")]
    first = rows[0]
    assert float(first["mean"]) == pytest.approx(1.75 / 16, abs=1e-4) and float(first["half"]) == pytest.approx(100 * 2 / 16)
    flat = [[float(v) for v in part.flatten()] for part in MAPS[:, 0]]
    means = [sum(part) / 16 for part in flat]
    cov = sum((a - means[0]) * (b - means[1]) for a, b in zip(*flat, strict=True))
    scale = (sum((a - means[0]) ** 2 for a in flat[0]) * sum((b - means[1]) ** 2 for b in flat[1])) ** 0.5
    assert float(first["agreement"]) == pytest.approx(cov / scale, abs=1e-4)
    assert [row["agreement"] for row in rows[1:]] == ["", "", "", ""], "of the last itself, and of a map without evidence"
    assert rows[4]["method"] == "hpd" and rows[4]["mean"] == ""
    assert cams_sheet(one).rows[-1][2] == "not run"


def test_a_class_without_an_image_leaves_its_place_empty(bench):
    path = analysed(bench, "one", labels=(2,), maps=MAPS[:, 1:])
    one = drawn([{**bench.cell([[0.5]]), "analysis": path}])
    assert words(cams(one)).count("no image of ant") == 3
    assert [row[:2] for row in cams_sheet(one).rows] == [["ant", "no image"], ["cat", "0"], ["cat", "20"]]
    none = bench.root / "cams-none.safetensors"
    about = {"config": {"network": "n"}, "classes": CLASSES, "range": [0.0, 1.0], "epochs": [0, 20], "wanted": [0], "image": 0}
    save_tensors(none, {"images": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64), "maps": torch.zeros(2, 0)}, about)
    none = str(none)
    assert words(cams(drawn([{**bench.cell([[0.5]]), "analysis": none}]))).count("no image of ant") == 3


def test_another_analysis_is_refused(bench):
    save_tensors(bench.root / "other.safetensors", {"real": torch.zeros(1)}, {})
    with pytest.raises(ArtifactError, match="not `images`, `labels` and `maps`"):
        read(str(bench.root / "other.safetensors"))
    assert "needs analysis" in "".join(misfits({"cells": [{"analysis": None}]}))
    wrong = {"cells": [{"analysis": "results/analyses/a/cams-b/set0.safetensors"}], "fields": {"labels": [1]}}
    assert "labels and image stand under analysis" in "".join(misfits(wrong))
