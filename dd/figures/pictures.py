"""Distilled images, t-SNE, and tables as pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.errors import ArtifactError
from dd.figures.plots import label
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, cells, mark, value, varying, word
from dd.figures.style import COLOURS, GREY, INK, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray

SHOWN = 24  # grids of images in one figure; more cannot be read, and make the report too heavy to open


def table(title: str, sheet: Sheet) -> Figure:
    """Return a table as a picture: rules above, below and under the header."""
    columns = [[head, *(row[i] for row in sheet.rows)] for i, head in enumerate(sheet.columns)]
    widths = [0.25 + 0.068 * max(len(item) for item in column) for column in columns]
    width = max(6.0, sum(widths) + 0.1)
    said = [wrapped for note in sheet.notes for wrapped in textwrap.wrap(note, int(width * 17))]
    titles = textwrap.wrap(title, int(width * 12)) or [""]
    row, small = 0.23, 0.15
    height = 0.3 + 0.2 * len(titles) + row * (len(sheet.rows) + 1 if columns else 0) + 0.1 + small * len(said)
    made = figure(width, height)
    made.set_layout_engine("none")
    axis = made.add_axes((0.0, 0.0, 1.0, 1.0))
    axis.set(xlim=(0, width), ylim=(-height, 0))
    axis.axis("off")
    y = 0.15 + 0.2 * len(titles)
    axis.text(0.1, -0.1, "\n".join(titles), va="top", fontsize=10, fontweight="bold", color=INK, linespacing=1.2)
    if columns:
        _cells(axis, columns, widths, y, row)
        y += row * (len(sheet.rows) + 1)
    for number, wrapped in enumerate(said):
        axis.text(0.1, -(y + 0.08 + small * number), wrapped, va="top", fontsize=6.8, color=GREY)
    return made


def _cells(axis: Axes, columns: Sequence[Sequence[str]], widths: Sequence[float], top: float, row: float) -> None:
    end = 0.1 + sum(widths)
    bottom = top + row * len(columns[0])
    for y, thick in ((top, 1.0), (top + row, 0.6), (bottom, 1.0)):
        axis.plot([0.1, end], [-y, -y], color=INK, linewidth=thick)
    x = 0.18
    for column, width in zip(columns, widths, strict=True):
        for number, item in enumerate(column):
            weight = "bold" if number == 0 else "normal"
            axis.text(x, -(top + row * (number + 0.5)), item, va="center", fontsize=8, color=INK, fontweight=weight)
        x += width


def grid(drawn: Drawn) -> Figure:
    """Return the grids of distilled images of sets that differ, labelled, the first of the sets of a cell.

    At most SHOWN of them, evenly spaced in the order of the cells so that every part of a sweep is seen; the note says how many more.
    """
    first = _first_sets(drawn)
    named = zip(first.items(), _labels(drawn, list(first.values())), strict=True)  # labels tell all sets apart, not only those shown
    several = len({text(point.at.get("eval_network")) for point in drawn.points}) > 1  # one set, judged by several networks
    kept = set(_evenly(len(first)))
    shown = [one for number, one in enumerate(named) if number in kept]
    across = min(len(shown), 6 if len(shown) > 12 else 4)
    down = -(-len(shown) // across)
    side = 1.9 if across == 6 else 2.5
    made = figure(max(6.0, across * side), down * (side + 0.45))
    axes = made.subplots(down, across, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, ((folder, point), name) in zip(axes, shown, strict=False):
        _image(axis, folder / "grid.png")
        judge = f" on {text(point.at.get('eval_network'))}" if several else ""
        said = f"{textwrap.fill(name, int(side * (16 if across == 6 else 13)))}\n{value(point, drawn.spread)}{judge}"
        axis.set_title(said, fontsize=6.5 if across == 6 else 8, color=INK)
    heading(made, drawn.title, "\n".join(part for part in (_left_out(drawn), mark(drawn)) if part))
    return made


def grid_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell, and how many sets the figure leaves out."""
    sheet, left_out = cells(drawn), _left_out(drawn)
    return Sheet(sheet.columns, sheet.rows, [*sheet.notes, *([left_out] if left_out else [])])


def _first_sets(drawn: Drawn) -> dict[Path, Point]:
    """Return the folder of the first set of each cell, once, with the first cell that shows it."""
    first: dict[Path, Point] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        first.setdefault(Path(cell["sets"][0]), point)
    return first


def _evenly(count: int) -> list[int]:
    """Return which of `count` things are shown: all, or SHOWN of them with the first and the last."""
    return list(range(count)) if count <= SHOWN else [number * (count - 1) // (SHOWN - 1) for number in range(SHOWN)]


def _left_out(drawn: Drawn) -> str:
    count = len(_first_sets(drawn))
    return f"{SHOWN} of {count} sets shown, evenly spaced; {count - SHOWN} more lie as grid.png in their folders." if count > SHOWN else ""


def _labels(drawn: Drawn, points: Sequence[Point]) -> list[str]:
    """Return a label a set; where two would be equal, with the coordinates in which they differ."""
    names = varying(drawn)
    found = [label(drawn, point, names) for point in points]
    if len(set(found)) == len(found):
        return found
    used = {name for name in names if f"{{{name}}}" in str(drawn.get("label"))} | {"eval_network"}  # no set depends on who judges it
    more = [name for name in names if name not in used and len({text(point.at.get(name)) for point in points}) > 1]
    extra = [[f"{word(name)} {text(point.at.get(name))}" for name in more] for point in points]
    return [", ".join([one, *parts]) for one, parts in zip(found, extra, strict=True)]


def _image(axis: Axes, path: Path) -> None:
    if not path.exists():
        axis.text(0.5, 0.5, "no image", ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            axis.imshow(np.asarray(image.convert("RGB")), interpolation="antialiased")
    except (OSError, UnidentifiedImageError) as error:
        raise ArtifactError(f"{path}: is not a readable image ({error}); delete its folder and run again") from error


def tsne(drawn: Drawn) -> Figure:
    """Return the embeddings of real and distilled images in the plane, one panel a cell.

    t-SNE (exact gradient, started from the principal components, fixed random state) with perplexity min(30, (n - 1) / 3). Distances
    in it mean little, so the legend gives the within-class spread of the embeddings themselves (see `spread`).
    """
    pairs: list[tuple[Mapping[str, Any], Point]] = list(zip(drawn.artifact["cells"], drawn.points, strict=True))
    across = min(len(pairs), 3)
    down = -(-len(pairs) // across)
    made = figure(max(5.0, 3.6 * across), 3.4 * down)
    axes = made.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    for axis, (cell, point) in zip(axes, pairs, strict=False):
        axis.set(xticks=[], yticks=[])
        axis.set_title(label(drawn, point, varying(drawn)), loc="left")
        axis.grid(False)
        _scatter(axis, cell.get("analysis"))
    heading(made, drawn.title, "\n".join(part for part in (str(drawn.get("note") or ""), mark(drawn)) if part))
    return made


def _scatter(axis: Axes, path: str | None) -> None:
    found = _embeddings(path)
    if found is None:
        axis.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    real, syn = found
    placed, finite = embed(real, syn)
    if placed is None:
        axis.text(0.5, 0.5, "too few finite points", ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    kept = int(finite[: len(real)].sum())
    axis.scatter(placed[:kept, 0], placed[:kept, 1], s=9, color="#BBBBBB", linewidths=0, label=f"real ({kept}), spread {_shown(real)}")
    look: dict[str, Any] = {"s": 90, "marker": "*", "color": COLOURS[1], "edgecolors": "white", "linewidths": 0.6}
    axis.scatter(placed[kept:, 0], placed[kept:, 1], label=f"distilled ({len(placed) - kept}), spread {_shown(syn)}", **look)
    lost = len(finite) - len(placed)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.01), "ncols": 2, "columnspacing": 1.0, "handletextpad": 0.1}
    axis.legend(**below, title=f"{lost} not finite, left out" if lost else None, title_fontsize=7)


def tsne_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell, with the within-class spread of real and distilled images."""
    sheet = cells(drawn)
    found = [_embeddings(cell.get("analysis")) for cell in drawn.artifact["cells"]]
    spreads = [[_shown(one) for one in pair] if pair else ["not run"] * 2 for pair in found]
    said = "Spread: root mean square distance of a class's images from their mean, in the embedding space."
    columns = [*sheet.columns, "spread, real", "spread, distilled"]
    return Sheet(columns, [[*row, *more] for row, more in zip(sheet.rows, spreads, strict=True)], [*sheet.notes, said])


def spread(points: ndarray) -> float | None:
    """Return sqrt(mean_i |x_i - mean|^2) over the finite rows of (n, d) points; None for fewer than two."""
    import numpy as np

    kept = points[np.isfinite(points).all(1)]
    return float(np.sqrt(((kept - kept.mean(0)) ** 2).sum(1).mean())) if len(kept) > 1 else None


def _shown(points: ndarray) -> str:
    found = spread(points)
    return "unknown" if found is None else f"{found:.3g}"


def _embeddings(path: str | None) -> tuple[ndarray, ndarray] | None:
    """Return `real` (n, d) and `syn` (m, d) of an analysis, float64, or None where it was not run."""
    if path is None or not Path(path).exists():
        return None
    tensors, _ = load_tensors(path)
    if not {"real", "syn"} <= set(tensors):
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not the embeddings `real` and `syn`")
    return tensors["real"].double().numpy(), tensors["syn"].double().numpy()


def embed(real: ndarray, syn: ndarray) -> tuple[ndarray | None, ndarray]:
    """Return the finite rows of (n, d) `real` then (m, d) `syn` as (<= n + m, 2) points, and which rows are finite.

    None in place of points when fewer than five rows are finite.
    """
    import numpy as np
    from sklearn.manifold import TSNE

    both = np.concatenate([real, syn])
    finite = np.isfinite(both).all(1)
    kept = both[finite]
    if len(kept) < 5:
        return None, finite
    start = "pca" if kept.shape[1] > 1 and kept.std() > 0 else "random"
    method = TSNE(2, perplexity=min(30.0, (len(kept) - 1) / 3), init=start, method="exact", random_state=0)
    return method.fit_transform(kept), finite
