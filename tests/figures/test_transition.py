"""Images of sets at their steps, one by one."""

import csv
import io
import json

import numpy as np
import pytest
import torch

from dd.artifacts import save_tensors, write_json
from dd.errors import ConfigError
from dd.figures.looks import mistakes
from dd.figures.mosaic import in_unit
from dd.figures.paper import _read
from dd.figures.transition import transition, transition_csv, transition_sheet

CLASSES = ["ant", "bee", "cat"]


def brightness(method, step, label, number=0):
    """What every image of the synthetic sets is filled with, in percent: no two alike."""
    return {"glad": 10, "hpd": 30}[method] + 4 * (step // 10) + 12 * label + number


def write(path, method, step, *, ipc=2, channels=3, **meta):
    images = [torch.full((channels, 6, 4), brightness(method, step, label, n) / 100) for label in range(3) for n in range(ipc)]
    labels = torch.arange(3).repeat_interleave(ipc)
    save_tensors(path, {"images": torch.stack(images), "labels": labels, "mean": torch.full((3,), 9.0), "std": torch.full((3,), 7.0)}, meta)


def cell(bench, method, step=None, *, published=(), iterations=30, steps=None, **more):
    """A cell whose set lies at all published steps and at its end."""
    one = bench.cell([[0.5]], method=method, step=step)
    folder = bench.root / method
    for each in published:
        write(folder / "steps" / f"{each}.safetensors", method, each)
    write(folder / "distilled.safetensors", method, iterations)
    write_json(bench.root / "manifest.json", {"classes": CLASSES, "range": [0.0, 1.0]})
    config = {"recipe": {"iterations": iterations, "steps": steps if steps is not None else list(published)}, "step": step}
    return {**one, "id": method, "config": config, "sets": [str(folder)], "published": list(published),
            "manifest": str(bench.root / "manifest.json"), **more}  # fmt: skip


def drawn(cells, **look):
    return _read({"name": "a", "title": "A", "kind": "transition", "cells": cells, **look}, "paper", "all", [])


def by_step(bench, **look):
    steps = {"published": (0, 10, 20)}
    cells = [cell(bench, method, step, **steps) for method in ("glad", "hpd") for step in (0, 10, 30)]
    return drawn(cells, x="step", rows=["method"], **look)


def shown(figure):
    """The brightness of all pictures from top to bottom, row by row, in percent."""
    images = {}
    for image in figure.axes[0].images:
        left, _, _, top = image.get_extent()
        images.setdefault(round(top, 3), {})[round(left, 3)] = round(100 * float(np.asarray(image.get_array()).mean()))
    return [[row[x] for x in sorted(row)] for _, row in sorted(images.items(), reverse=True)]


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_steps_stand_side_by_side_and_the_points_of_a_class_below_each_other(bench):
    figure = transition(by_step(bench, fields={"labels": [2, 0], "image": 1}))
    wanted = [[brightness(m, s, label, 1) for s in (0, 10, 30)] for label in (2, 0) for m in ("glad", "hpd")]
    assert shown(figure) == wanted
    said = words(figure)
    assert said[:3] == ["step 0", "step 10", "step 30"] and said[3:7] == ["cat: glad", "cat: hpd", "ant: glad", "ant: hpd"]


def test_pictures_keep_their_shape_and_nothing_is_normalised(bench):
    image = transition(by_step(bench)).axes[0].images[0]
    left, right, bottom, top = image.get_extent()
    assert (top - bottom) / (right - left) == pytest.approx(6 / 4)
    pixels = in_unit(np.array([[[[-1.0, 0.25, 2.0, np.nan]]]]), (0.0, 1.0))
    assert pixels.shape == (1, 1, 4, 3) and pixels[0, 0, :, 0].tolist() == [0.0, 0.25, 1.0, 0.5]
    free = in_unit(np.array([[[[1.0, 3.0, np.inf, 5.0]]]]), (None, None))
    assert free[0, 0, :, 1].tolist() == [0.0, 0.5, 1.0, 1.0]


def test_all_published_steps_of_a_point_are_a_row_and_the_last_is_among_them(bench):
    cells = [cell(bench, "glad", published=(0, 15)), cell(bench, "hpd", published=(0, 10, 20), steps="spaces")]
    one = drawn(cells, rows=["method"], fields={"labels": [1], "steps": "published"})
    figure = transition(one)
    assert shown(figure) == [[brightness("glad", s, 1) for s in (0, 15, 30)], [brightness("hpd", s, 1) for s in (0, 10, 20, 30)]]
    said = words(figure)
    for text in ("0 updates", "15 updates", "start", "space 1, 10 updates", "space 3, 30 updates"):
        assert text in [" ".join(one.split("\n")) for one in said], text
    rows = list(csv.DictReader(io.StringIO(transition_csv(one))))
    assert [(row["method"], row["updates"]) for row in rows] == [("glad", "0"), ("glad", "15"), ("glad", "30"), ("hpd", "0"),
                                                                ("hpd", "10"), ("hpd", "20"), ("hpd", "30")]  # fmt: skip
    same = drawn([cells[1]], rows=["method"], fields={"labels": [1], "steps": "published"})
    assert "space 3, 30 updates" in [" ".join(one.split("\n")) for one in words(transition(same))]


def test_a_single_column_puts_the_classes_side_by_side(bench):
    cells = [cell(bench, method) for method in ("glad", "hpd")]
    figure = transition(drawn(cells, rows=["method"], fields={"labels": [0, 1, 2], "steps": "published"}))
    assert shown(figure) == [[brightness(m, 30, label) for label in (0, 1, 2)] for m in ("glad", "hpd")]
    assert words(figure)[:5] == ["ant", "bee", "cat", "glad, 30 updates", "hpd, 30 updates"]


def test_steps_of_runs_of_another_length_are_places_in_their_rows(bench):
    cells = [cell(bench, "glad", step, published=(0, 10, 20)) for step in (0, 20)]
    cells += [cell(bench, "hpd", step, published=(0, 10, 20)) for step in (0, 10)]
    figure = transition(drawn(cells, x="step", rows=["method"], fields={"labels": [1]}))
    assert shown(figure) == [[brightness("glad", s, 1) for s in (0, 20)], [brightness("hpd", s, 1) for s in (0, 10)]]
    assert [text for text in words(figure) if text.startswith("step")] == ["step 0", "step 20", "step 0", "step 10"]
    aligned = transition(
        drawn([*cells[:2], cell(bench, "hpd", 20, published=(0, 10, 20))], x="step", rows=["method"], fields={"labels": [1]})
    )
    assert words(aligned)[:2] == ["step 0", "step 20"] and "no such point" in words(aligned)


def test_classes_of_other_datasets_have_their_own_names(bench):
    cells = [cell(bench, method) for method in ("glad", "hpd")]
    write_json(bench.root / "other.json", {"classes": ["dog", "elk", "fox"], "range": [0.0, 1.0]})
    cells[1]["manifest"] = str(bench.root / "other.json")
    said = words(transition(drawn(cells, rows=["method"], fields={"labels": [0, 1], "steps": "published"})))
    assert [text for text in said if text in (*CLASSES, "dog", "elk")] == ["ant", "bee", "dog", "elk"]


def test_the_csv_has_brightness_contrast_and_change(bench):
    rows = list(csv.DictReader(io.StringIO(transition_csv(by_step(bench, fields={"labels": [1]})))))
    assert [(row["class"], row["step"], row["updates"]) for row in rows[:3]] == [
        ("bee", "0", "0"),
        ("bee", "10", "10"),
        ("bee", "30", "30"),
    ]
    assert [float(row["brightness"]) for row in rows[:3]] == pytest.approx([22, 26, 34], abs=1e-3)
    assert [row["change"] for row in rows[:1]] == [""] and [float(row["change"]) for row in rows[1:3]] == pytest.approx([4, 8], abs=1e-3)
    assert {float(row["contrast"]) for row in rows} == {0.0} and rows[3]["change"] == "", "another row begins anew"
    assert transition_sheet(by_step(bench, fields={"labels": [1]})).rows[0] == ["bee", "glad", "shown", "4.0 %", "8.0 %"]


def test_an_empty_place_says_why(bench):
    one = by_step(bench, fields={"labels": [0], "image": 1})
    (bench.root / "glad/steps/10.safetensors").unlink()
    write(bench.root / "hpd/steps/0.safetensors", "hpd", 0, ipc=1, diverged={"step": 3})
    chosen = {
        **one.artifact["cells"][5],
        "config": {"recipe": {"iterations": 30}, "step": {"split": "test"}},
        "choice": str(bench.root / "no"),
    }
    one.artifact["cells"][5] = chosen
    figure = transition(one)
    said = [text.replace("\n", " ") for text in words(figure)]
    assert "not run" in said and "no image 1 of class 0" in said and "not chosen yet" in said and "ant: hpd✕" in said
    assert [len(row) for row in shown(figure)] == [2, 1]
    reasons = {row["reason"] for row in csv.DictReader(io.StringIO(transition_csv(one)))}
    assert reasons == {"", "not run", "no image 1 of class 0", "not chosen yet"}
    (bench.root / "choice.json").write_text(json.dumps({"value": 20, "criterion": "c", "split": "test", "candidates": {}}))
    one.artifact["cells"][5] = {**chosen, "choice": str(bench.root / "choice.json")}
    assert shown(transition(one))[1][-1] == brightness("hpd", 20, 0, 1), "the step that was picked"


def test_stored_images_are_shown_and_selections_say_that_they_have_none(bench):
    one = cell(bench, "glad")
    stored, decoded = torch.stack([torch.full((1, 2, 2), 0.2 * k) for k in range(3)]), torch.ones(12, 1, 2, 2)
    about = {"mean": torch.zeros(1), "std": torch.ones(1)}
    path = bench.root / "glad/distilled.safetensors"
    save_tensors(path, {"images": decoded, "stored": stored, "labels": torch.arange(3).repeat_interleave(4), **about})
    fields = {"labels": [0, 1, 2], "steps": "published"}
    assert shown(transition(drawn([one], fields=fields))) == [[0, 20, 40]]
    save_tensors(path, {"images": torch.zeros(0), "indices": torch.arange(3), "labels": torch.arange(3), **about})
    assert "positions of real images, no images of its own" in transition_csv(drawn([one], fields=fields))


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"x": "step", "rows": ["method"], "fields": {"lables": [0]}}, "did you mean 'labels'"),
        ({"rows": ["method"]}, "needs x"),
        ({"x": "step", "fields": {"steps": "published"}}, "and not both"),
        ({"x": "step", "rows": ["dataset"]}, "two points stand in row cifar10, column 0; name what differs in rows"),
    ],
)
def test_mistakes_are_named(bench, look, said):
    one = by_step(bench)
    artifact = {key: value for key, value in one.artifact.items() if key not in ("x", "rows")} | look
    with pytest.raises(ConfigError, match=said):
        transition(drawn(artifact["cells"], **look))
    if "two points" not in said:
        job = {"artifacts": [artifact], "reported": str(bench.root / "none.csv"), "claims": None, "paper": "p"}
        assert any(said in mistake and mistake.startswith("p.yaml: artifacts.a: ") for mistake in mistakes(job, "p.yaml"))
