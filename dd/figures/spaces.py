"""t-SNE of one class, real and distilled, and how far its images spread in the embedding space itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.errors import ArtifactError
from dd.figures.plots import label
from dd.figures.sheets import Drawn, Sheet, cells, long_csv, mark, varying
from dd.figures.style import COLOURS, GREY, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray

SPREAD = (
    "Spread: mean squared distance of a class's images from their own mean in the embedding space, divided by n - 1 instead of n, so "
    "that classes of different size compare; ratio: distilled over real."
)

DISTANCE = (
    "Squared MMD: between the embeddings of distilled and real images, unbiased (it may be below 0), with a Gaussian kernel whose width "
    "is the median distance between two of the real images."
)


@dataclass(frozen=True)
class Embedded:
    """Embeddings (n, d) of `real` and (m, d) of `syn` images, float64, and the metadata of the analysis."""

    real: ndarray
    syn: ndarray
    meta: Mapping[str, Any]

    @property
    def spreads(self) -> tuple[float | None, float | None, float | None]:
        """(of real, of distilled, their ratio), None where it is not known."""
        real, syn = spread(self.real), spread(self.syn)
        return real, syn, syn / real if real and syn is not None else None

    @property
    def distance(self) -> float | None:
        """Squared MMD between distilled and real embeddings, see `mmd`."""
        return mmd(self.real, self.syn)

    @property
    def images(self) -> str:
        """How many distilled images are embedded, and how many stored ones they were decoded from."""
        stored = self.meta.get("stored", len(self.syn))
        return f"{len(self.syn)}" if stored == len(self.syn) else f"{len(self.syn)} decoded from {stored}"


def tsne(drawn: Drawn) -> Figure:
    """Return the embeddings of real and distilled images in the plane, one panel a cell.

    t-SNE (exact gradient, started from the principal components, fixed random state) with perplexity min(30, (n - 1) / 3), of the real
    images and the distilled images of all panels together where the real ones are the same everywhere, else of each panel alone.
    Distances in it mean little, so the titles give the within-class spread of the embeddings themselves (see `spread`).
    """
    found = [read(cell.get("analysis")) for cell in drawn.artifact["cells"]]
    across = 2 if len(found) == 4 else min(len(found), 3)
    down = -(-len(found) // across)
    made = figure(max(5.0, 3.6 * across), 3.55 * down)
    axes = made.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    for axis, point, one, places in zip(axes, drawn.points, found, _places(found), strict=False):
        axis.set(xticks=[], yticks=[])
        ratio = one.spreads[2] if one else None
        said = "" if one is None else f"\nspread of distilled / real: {_shown(ratio)}\nsquared MMD to real: {_shown(one.distance)}"
        axis.set_title(label(drawn, point, varying(drawn)) + said, loc="left")
        axis.grid(False)
        _scatter(axis, one, places)
    parts = [str(drawn.get("note") or ""), _how(found), *((SPREAD, DISTANCE) if any(found) else ()), mark(drawn)]
    heading(made, drawn.title, "\n".join(part for part in parts if part))
    return made


def tsne_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell, with the within-class spread of real and distilled images, and the distance between the two."""
    sheet = cells(drawn)
    found = [read(cell.get("analysis")) for cell in drawn.artifact["cells"]]
    more = [[*map(_shown, (*one.spreads, one.distance)), one.images] if one else ["not run"] * 5 for one in found]
    columns = [*sheet.columns, "spread, real", "spread, distilled", "ratio", "squared MMD", "distilled images embedded"]
    said = [SPREAD, DISTANCE, *([_how(found)] if _how(found) else [])]
    return Sheet(columns, [[*row, *rest] for row, rest in zip(sheet.rows, more, strict=True)], [*sheet.notes, *said])


def tsne_csv(drawn: Drawn) -> str:
    """Return one line a cell, as everywhere, with the within-class spreads, the distance and numbers of images."""
    rows = []
    for one in (read(cell.get("analysis")) for cell in drawn.artifact["cells"]):
        numbers = ["" if item is None else f"{item:.6g}" for item in ((*one.spreads, one.distance) if one else (None,) * 4)]
        rows.append([*numbers, *([str(len(one.syn)), str(one.meta.get("stored", len(one.syn)))] if one else ["", ""])])
    return long_csv(drawn, ("spread_real", "spread_distilled", "spread_ratio", "feature_distance", "embedded", "stored"), rows)


def spread(points: ndarray) -> float | None:
    """Return sum_i |x_i - mean|^2 / (n - 1) over the n finite rows of (n, d) points; None for fewer than two."""
    import numpy as np

    kept = points[np.isfinite(points).all(1)]
    return float(((kept - kept.mean(0)) ** 2).sum() / (len(kept) - 1)) if len(kept) > 1 else None


def mmd(real: ndarray, syn: ndarray) -> float | None:
    r"""Return the squared maximum mean discrepancy of two sets of points (n, d), (m, d); None where one has fewer than two finite rows.

    The unbiased estimate of Gretton et al. 2012 (lemma 6), which may be below 0 for sets that are alike:

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{n (n - 1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{m (m - 1)}
              - \frac{2}{n m} \sum_{i, j} k(x_i, y_j)

    with :math:`k(a, b) = \exp(-|a - b|^2 / (2 \sigma^2))`. sigma is the median distance between two of the real points, so that it is
    the same for all sets that are compared with them. None where that is 0.
    """
    import numpy as np
    from scipy.spatial.distance import cdist, pdist

    x, y = (points[np.isfinite(points).all(1)] for points in (real, syn))
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return None
    sigma = float(np.median(pdist(x)))
    if not sigma:
        return None
    among = [2 * np.exp(-pdist(points, "sqeuclidean") / (2 * sigma**2)).sum() / (len(points) * (len(points) - 1)) for points in (x, y)]
    between = np.exp(-cdist(x, y, "sqeuclidean") / (2 * sigma**2)).mean()
    return float(among[0] + among[1] - 2 * between)


def embed(parts: Sequence[ndarray]) -> list[ndarray] | None:
    """Return the finite rows of each of several (n, d) sets of points as (k, 2), placed by one t-SNE of all; None if fewer than five."""
    import numpy as np
    from sklearn.manifold import TSNE

    kept = [part[np.isfinite(part).all(1)] for part in parts]
    every = np.concatenate(kept)
    if len(every) < 5:
        return None
    start = "pca" if every.shape[1] > 1 and every.std() > 0 else "random"
    method = TSNE(2, perplexity=min(30.0, (len(every) - 1) / 3), init=start, method="exact", random_state=0)
    return np.split(method.fit_transform(every), np.cumsum([len(part) for part in kept])[:-1])


def star(count: int) -> dict[str, Any]:
    """Return how one of `count` distilled images is marked: smaller where there are many."""
    size, edge = (90, 0.5) if count <= 20 else (55, 0.5) if count <= 60 else (30, 0.25)
    return {"s": size, "marker": "*", "edgecolors": "white", "linewidths": edge}


def _together(found: Sequence[Embedded | None]) -> bool:
    """Tell whether all panels have the same real points."""
    real = [one.real for one in found if one]
    return all(one.shape == real[0].shape and (one == real[0]).all() for one in real)


def _places(found: Sequence[Embedded | None]) -> list[tuple[ndarray, ndarray] | None]:
    """Return where the real and the distilled images of each panel lie; None for too few or none."""
    some = [one for one in found if one]
    if not some or not _together(some):
        alone = [embed([one.real, one.syn]) if one else None for one in found]
        return [(parts[0], parts[1]) if parts else None for parts in alone]
    parts = embed([some[0].real, *(one.syn for one in some)])
    rest = iter(parts[1:] if parts else ())
    return [(parts[0], next(rest)) if parts and one else None for one in found]


def _how(found: Sequence[Embedded | None]) -> str:
    """Return which class it is, and how the panels belong together."""
    some = [one for one in found if one]
    classes = list(dict.fromkeys(str(one.meta["class"]) for one in some if "class" in one.meta))
    said = [f"Class {', '.join(classes)}."] if classes else []
    if len(some) > 1 and _together(some):
        said.append("One t-SNE of the real images and all distilled ones: the real images lie in the same places in all panels.")
    elif len(some) > 1:
        said.append("Each panel has a t-SNE of its own: places do not compare between panels.")
    return " ".join(said)


def _scatter(axis: Axes, one: Embedded | None, places: tuple[ndarray, ndarray] | None) -> None:
    if one is None or places is None:
        said = "not run" if one is None else "too few finite points"
        axis.text(0.5, 0.5, said, ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    real, syn = places
    axis.scatter(real[:, 0], real[:, 1], s=9, color="#BBBBBB", linewidths=0, label=f"real ({len(real)})")
    axis.scatter(syn[:, 0], syn[:, 1], color=COLOURS[1], label=f"distilled ({one.images})", **star(len(syn)))
    lost = len(one.real) + len(one.syn) - len(real) - len(syn)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.01), "ncols": 2, "columnspacing": 1.0, "handletextpad": 0.1}
    axis.legend(**below, title=f"{lost} not finite, left out" if lost else None, title_fontsize=7)


def _shown(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.3g}"


def read(path: str | None) -> Embedded | None:
    """Return what an analysis of kind `embeddings` found, or None where it was not run."""
    if path is None or not Path(path).exists():
        return None
    tensors, meta = load_tensors(path)
    if not {"real", "syn"} <= set(tensors) or tensors["real"].ndim != 2:
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not the embeddings `real` and `syn` of one network")
    return Embedded(tensors["real"].double().numpy(), tensors["syn"].double().numpy(), meta)
