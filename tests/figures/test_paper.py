import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dd.artifacts import load_tensors, save_tensors
from dd.errors import ConfigError
from dd.figures.paper import OTHERS, OVER_CELLS, _read, draw_paper
from dd.figures.pictures import grid, grid_sheet
from dd.figures.spaces import spread

CHOSEN = {"ipc": "not stated"}
CLAIMS = """
artifacts:
  - {paper: p, name: bars, title: Bars}
  - {paper: p, name: gone, title: Gone}
  - {paper: p, name: fields, title: Fields}
  - {paper: p, name: never, title: Never drawn, absent: needs a supercomputer}
claims:
  - {id: c1, paper: p, artifact: bars, claim: More is more., reported_numbers: none,
     check: {kind: greater, left: {ipc: 50}, right: {ipc: 10}, over: [method]}}
  - {id: c2, paper: p, artifact: never, claim: Prose., reported_numbers: none, check: {kind: at_most, left: {ipc: 1}, value: 1}}
"""


def everything(bench, scaled=()):
    """A job with every kind; one cell diverged, one was never run, one set has no picture."""
    import torch

    cells = [
        bench.cell([[0.50, 0.52], [0.47, 0.49]], ipc=10, scaled=scaled),
        bench.cell([[0.60, 0.62], [0.57, 0.59]], ipc=50, scaled=scaled),
        bench.cell([[0.10, 0.10], [0.11, 0.10]], ipc=10, method="dc", scaled=scaled, diverged=[(0, 0)]),
        bench.cell([[0.55, 0.52], [0.57, 0.59]], ipc=50, method="dc", scaled=scaled),
    ]
    Path(cells[3]["scores"][0]).unlink()
    Path(cells[3]["scores"][1]).unlink()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for cell in cells[:3]:
        Image.fromarray(pixels).save(Path(cell["sets"][0]) / "grid.png")
    generator = torch.Generator().manual_seed(0)
    real, syn = torch.randn(30, 6, generator=generator), torch.randn(5, 6, generator=generator) + 2
    syn[0, 0] = float("nan")
    save_tensors(bench.root / "embedded.safetensors", {"real": real, "syn": syn})
    seen = [{**cells[0], "analysis": str(bench.root / "embedded.safetensors")}, cells[1]]
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    about = {"config": {"label": 1}, "class": "cat", "batch": 64, "embedded": 5, "stored": 5}
    several = {"real": draw(2, 8, 6), "syn": draw(2, 5, 6), "loss": draw(2, 3, 4).square()}
    save_tensors(bench.root / "several.safetensors", several, about)
    under = [{**cells[0], "analysis": str(bench.root / "several.safetensors")}, cells[1]]
    (bench.root / "run.json").write_text(json.dumps({"seconds": 6.0, "device": "cpu"}))
    about = {"config": {"network": "convnet3_in"}, "classes": ["a", "b"], "range": [0.0, 1.0], "epochs": [0, 1], "wanted": [1], "image": 0}
    (bench.root / "cams-1").mkdir(exist_ok=True)
    maps = {"images": draw(1, 3, 8, 8).sigmoid(), "labels": torch.tensor([1]), "maps": draw(2, 1, 8, 8).sigmoid()}
    save_tensors(bench.root / "cams-1/set0.safetensors", maps, about)
    mapped = [{**cells[0], "analysis": str(bench.root / "cams-1/set0.safetensors")}, cells[1]]
    images = {"images": draw(2, 3, 8, 8).sigmoid(), "labels": torch.arange(2), "mean": torch.zeros(3), "std": torch.ones(3)}
    save_tensors(Path(cells[0]["sets"][0]) / "distilled.safetensors", images)
    (Path(cells[0]["sets"][0]) / "curve.csv").write_text("step,loss,grad_norm\n0,2.5,1\n9,1.5,1\n")
    at_end = {"config": {"recipe": {"iterations": 10}}, "published": [0]}
    steps = [{**cells[0], **at_end}, {**cells[1], **at_end}]
    runs = [
        {"network": "convnet3_in", "epoch": 1, "run": str(bench.root / "run.json"), "seeds": [0, 1], "previous_epoch": 0},
        {"network": "convnet3_in", "epoch": 2, "run": str(bench.root / "nowhere.json")},
    ]
    looks = {"x": "ipc", "hue": ["method"], "label": "{method} on {eval_network}", "chosen": CHOSEN}
    artifacts = [
        {"name": "bars", "title": "Bars", "kind": "bars", "cells": cells, **looks, "note": "A note with a $ sign | and a bar"},
        {"name": "line", "title": "Line", "kind": "line", "cells": cells, **looks, "panel": ["eval_network"]},
        {"name": "tab", "title": "Table", "kind": "table", "cells": cells, "rows": ["method"], "columns": ["dataset", "ipc"]},
        {"name": "fields", "title": "Settings", "kind": "settings", "cells": cells, "fields": {"lr": "recipe.lr", "size": "16x16", "depth": 3}},
        {"name": "rates", "title": "Rates", "kind": "parameters", "cells": cells, "rows": ["ipc", "method"], "fields": {"lr": "recipe.lr"}},
        {"name": "names", "title": "Names", "kind": "class_names", "cells": [], "fields": {"C": "cifar10"}},
        {"name": "plan", "title": "Design", "kind": "design", "cells": [], "groups": {"One": "bars"}},
        {"name": "images", "title": "Images", "kind": "grid", "cells": [*cells, cells[0]], "label": "{method}"},
        {"name": "tsne", "title": "t-SNE", "kind": "tsne", "cells": seen, "label": "{method}, {ipc}"},
        {"name": "models", "title": "Models", "kind": "models", "cells": under, "label": "{method}, {ipc}"},
        {"name": "classes", "title": "Classes", "kind": "classes", "cells": cells, "rows": ["method"], "panel": ["ipc"]},
        {"name": "seconds", "title": "Seconds", "kind": "seconds", "cells": [{**cells[0], "config": {"guidance": {"kind": "clom"}}}, cells[1]]},
        {"name": "features", "title": "Features", "kind": "features", "cells": [
            {**cells[0], "config": {"protocol": {"features": {"network": "convnet3_in", "epochs": 1}}}}, cells[1]]},
        {"name": "heat", "title": "Heat", "kind": "heatmap", "cells": cells, "x": "ipc", "rows": ["method"]},
        {"name": "steps", "title": "Steps", "kind": "transition", "cells": steps, "fields": {"labels": [0, 1], "steps": "published"}},
        {"name": "cams", "title": "CAMs", "kind": "cams", "cells": mapped},
        {"name": "losses", "title": "Losses", "kind": "losses", "cells": cells, "hue": ["ipc", "method"]},
        {"name": "curves", "title": "Curves", "kind": "normalised", "cells": steps, "x": "ipc", "panel": ["ipc"]},
        {"name": "ratio", "title": "Ratio", "kind": "seconds_ratio", "cells": cells, "rows": ["ipc"], "fields": {"over": {"method": "dm"}}},
        {"name": "cost", "title": "Cost", "kind": "cost", "cells": [], "runs": runs},
        {"name": "gone", "title": "Gone", "kind": "absent", "cells": [], "absent": "the code is lost"},
    ]
    (bench.root / "claims.yaml").write_text(CLAIMS)
    reported = bench.reported(
        {"dataset": "cifar10", "ipc": 10, "method": "dm", "mean": 49.0, "std": 0.4},
        {"dataset": "cifar10", "ipc": 50, "method": "dm", "mean": 77.7, "certainty": "external_probable"},
        {"dataset": "cifar10", "ipc": 50, "method": "dm", "mean": 66.6, "certainty": "derived"},
        {"dataset": "cifar10", "ipc": 10, "method": "dc", "mean": 20, "metric": "top1_percent_upper_bound", "certainty": "inferred"},
    )
    return bench.job(*artifacts, reported=reported, claims=bench.root / "claims.yaml", scale="demo" if scaled else "paper")


@pytest.fixture(scope="module")
def drawn(lasting_bench):
    draw_paper(everything(lasting_bench), lasting_bench.root / "out")
    return lasting_bench.root / "out"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_writes_its_four_files_and_a_second_draw_the_same_bytes(drawn, lasting_bench):
    job = everything(lasting_bench)
    kinds = {artifact["kind"] for artifact in job["artifacts"]}
    assert kinds == {*OVER_CELLS, *OTHERS}
    again = lasting_bench.root / "again"
    draw_paper(json.loads(json.dumps(job)), again)
    wanted = {f"{artifact['name']}.{suffix}" for artifact in job["artifacts"] for suffix in ("csv", "md", "png", "pdf")}
    assert {path.name for path in drawn.iterdir()} == wanted | {"claims.json", "paper.json"}
    for path in drawn.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert b"CreationDate" not in (drawn / "bars.pdf").read_bytes()
    for path in drawn.glob("*.png"):
        with Image.open(path) as image:
            assert "Software" not in image.info and image.width > 300
            assert np.asarray(image.convert("L")).std() > 2, "not blank"


def test_the_csv_holds_the_numbers(drawn):
    found = rows(drawn / "bars.csv")
    assert [row["ipc"] for row in found] == ["10", "50", "10", "50"]
    first = found[0]
    assert float(first["mean"]) == pytest.approx(49.5) and float(first["best_on_test_mean"]) == pytest.approx(50.5)
    assert (first["n"], first["reported"], first["reported_std"], first["reported_certainty"]) == ("4", "49", "0.4000", "exact")
    assert float(first["difference"]) == pytest.approx(0.5)
    assert (found[2]["diverged"], found[2]["reported"]) == ("1", "<=20")
    assert (found[3]["mean"], found[3]["n"], found[3]["missing"]) == ("", "0", "2")


def test_diverged_and_missing_cells_stay_in_the_table(drawn):
    text = (drawn / "bars.md").read_text()
    assert text.startswith("## Bars\n")
    assert "✕" in text and "1 diverged" in text and "not run" in text
    assert "[<= 20]" in text, "a reading that is not exact is marked"
    assert "\\|" not in text.split("- ")[0]


def test_what_the_paper_does_not_print_is_shown_nowhere(drawn):
    for path in drawn.iterdir():
        if path.suffix in (".csv", ".md", ".json"):
            assert "77.7" not in path.read_text() and "66.6" not in path.read_text()


def test_the_table_shows_reported_beside_reproduced(drawn):
    text = (drawn / "tab.md").read_text()
    assert "| dm | 49.5 ± 1.8 (paper 49 ± 0.4, +0.5) | 59.5 ± 1.8 |" in text


def test_scaled_cells_are_marked_and_never_compared(bench):
    draw_paper(everything(bench, scaled=["dataset digits", "iterations 60"]), bench.root / "out")
    found = rows(bench.root / "out/bars.csv")
    assert [row["difference"] for row in found] == [""] * 4
    assert {row["scaled"] for row in found} == {"dataset digits; iterations 60"}
    text = (bench.root / "out/bars.md").read_text()
    assert "not compared (demo)" in text and "† demo: dataset digits, iterations 60." in text
    assert "+0.5" not in (bench.root / "out/tab.md").read_text()
    (claim,) = [c for c in json.loads((bench.root / "out/claims.json").read_text()) if c["id"] == "c1"]
    assert claim["scaled"] is True
    page = json.loads((bench.root / "out/paper.json").read_text())
    assert page["counts"] == {"cells": 4, "run": 3, "diverged": 1, "scaled": 4, "reported": 2, "compared": 0, "within": 0}


def test_claims_and_what_became_of_every_listed_artifact(drawn):
    claims = json.loads((drawn / "claims.json").read_text())
    assert [(c["id"], c["artifact"], c["verdict"]) for c in claims] == [("c1", "bars", "undecided"), ("c2", "never", "not run")]
    assert claims[0]["reason"].startswith("holds in 1 of 2 comparisons; 1 not run")
    listed = json.loads((drawn / "paper.json").read_text())["listed"]
    assert [(one["state"], one["reason"]) for one in listed] == [
        ("drawn", ""), ("absent", "the code is lost"), ("settings only", ""), ("absent", "needs a supercomputer"),
    ]  # fmt: skip


def test_listings(drawn):
    assert "| lr | 1.5 |" in (drawn / "fields.md").read_text() and "| size | 16x16 |" in (drawn / "fields.md").read_text()
    assert "| One | convnet3_in |" in (drawn / "plan.md").read_text()
    assert "the code is lost" in (drawn / "gone.md").read_text()
    cost = rows(drawn / "cost.csv")
    assert [(row["to_epoch"], row["seconds_per_network"], row["missing"]) for row in cost] == [("1", "3.00", "0"), ("2", "", "1")]
    assert "missing" in (drawn / "cost.md").read_text()


def test_what_was_chosen_is_listed_below_every_table(drawn):
    for path in drawn.glob("*.md"):
        chosen = "Chosen, since the paper does not state it:\n\n- ipc: not stated\n"
        assert path.read_text().endswith(chosen) == (path.stem in ("bars", "line")), path.name


def test_the_spread_of_embeddings_is_that_of_their_finite_rows(drawn, lasting_bench):
    tensors, _ = load_tensors(lasting_bench.root / "embedded.safetensors")
    expected = []
    for name in ("real", "syn"):
        rows_ = [[float(x) for x in row] for row in tensors[name] if all(math.isfinite(float(x)) for x in row)]
        assert len(rows_) == {"real": 30, "syn": 4}[name], "one distilled row is not a number"
        centre = [math.fsum(column) / len(rows_) for column in zip(*rows_, strict=True)]
        expected.append(math.fsum((x - c) ** 2 for row in rows_ for x, c in zip(row, centre, strict=True)) / (len(rows_) - 1))
    text = (drawn / "tsne.md").read_text()
    ratio = expected[1] / expected[0]
    assert f"| {expected[0]:.3g} | {expected[1]:.3g} | {ratio:.3g} | " in text and "| not run | not run | not run | not run | not run |" in text
    first, second = rows(drawn / "tsne.csv")
    assert float(first["spread_ratio"]) == pytest.approx(ratio, rel=1e-4) and (first["embedded"], second["embedded"]) == ("5", "")
    assert spread(np.zeros((1, 3))) is None


@pytest.mark.parametrize(("count", "left_out"), [(24, 0), (25, 1), (60, 36)])
def test_a_grid_shows_at_most_24_sets_from_all_of_them_and_says_how_many_more(bench, count, left_out):
    cells = [bench.cell([[0.5]], ipc=number) for number in range(1, count + 1)]
    artifact = {"name": "images", "title": "Images", "kind": "grid", "cells": [*cells, cells[0]], "label": "number {ipc}"}
    one = _read(artifact, "paper", "all", [])
    titles = [axis.get_title().split("\n")[0] for axis in grid(one).axes]
    shown = [int(title.removeprefix("number ")) for title in titles if title]
    assert len(shown) == len(set(shown)) == 24
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (1, count)
    steps = np.diff(shown)
    assert steps.max() - steps.min() <= 1, "evenly spaced"
    note = [text for text in grid_sheet(one).notes if "sets shown" in text]
    assert note == ([f"24 of {count} sets shown, evenly spaced; {left_out} more lie as grid.png in their folders."] if left_out else [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "bar"}, "did you mean 'bars'"),
        ({"hue": []}, "name what differs"),
        ({"label": "{methd}"}, "did you mean 'method'"),
        ({"x": None}, "needs x"),
        ({"kind": "table", "rows": ["method"], "columns": ["dataset"]}, "two cells"),
        ({"kind": "settings", "fields": {"lr": "recipe.lrr"}}, "did you mean 'lr'"),
        ({"kind": "design", "groups": {"One": "barz"}}, "did you mean 'bars'"),
        ({"cells": []}, "no cells"),
    ],
)
def test_mistakes_in_artifacts_are_named(bench, change, said):
    job = everything(bench)
    job["artifacts"] = [{**job["artifacts"][0], **change}]
    with pytest.raises(ConfigError, match=said):
        draw_paper(job, bench.root / "out")


def test_an_experiment_of_ours_needs_neither_reported_numbers_nor_claims(bench):
    job = everything(bench)
    job["artifacts"], job["reported"], job["claims"] = job["artifacts"][:1], str(bench.root / "none.csv"), None
    draw_paper(job, bench.root / "out")
    assert json.loads((bench.root / "out/claims.json").read_text()) == []


def test_importing_figures_imports_nothing_heavy_and_no_network():
    code = (
        "import sys, dd.figures.paper, dd.figures.report\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'jinja2', 'dd.networks', 'dd.objectives', 'dd.distill'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
