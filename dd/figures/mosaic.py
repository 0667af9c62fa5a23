"""Images one by one, in rows and columns: those of a set, read from its file, and a figure of tiles."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.errors import ArtifactError
from dd.figures.plots import ordered
from dd.figures.sheets import Drawn
from dd.figures.style import GREY, INK, figure, heading

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

WIDE = 13.0  # inches: tiles of a wider figure are smaller
GAP, TITLE, LINE = 0.06, 0.32, 0.14  # inches: between tiles, for a title of two lines, of one line beside a row
NOT_RUN = "not run"


@dataclass(frozen=True)
class Tile:
    """One place: pixels (h, w, 3) in [0, 1], or None and the reason why there are none. title: stands above it."""

    pixels: ndarray | None
    reason: str = ""
    title: str = ""


@dataclass(frozen=True)
class Images:
    """Stored images of a set as (n, h, w, 3) in [0, 1], their classes (n,), and whether the distillation diverged."""

    pixels: ndarray
    labels: ndarray
    diverged: bool

    def tile(self, label: int, number: int) -> Tile:
        """Return image `number` of a class, or the reason why there is none."""
        mine = self.pixels[self.labels == label]
        if number < len(mine):
            return Tile(mine[number])
        return Tile(None, f"no image {number} of class {label}" if len(mine) else f"no image of class {label}")


def read_images(path: Path, span: Sequence[float | None]) -> Images | str:
    """Return the stored images of a set, as `dd show` draws them, or the reason why there are none.

    Pixels are clipped to `span` (what is black and what is white; None is the set's smallest, or largest, finite pixel); what is not finite
    is grey, white or black.

    Raises:
        ArtifactError: the file is damaged, or is no set.
    """
    if not path.exists():
        return NOT_RUN
    tensors, meta = load_tensors(path)
    if not {"images", "labels"} <= set(tensors):
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not the images and labels of a set")
    given, labels = tensors.get("stored", tensors["images"]).float().numpy(), tensors["labels"].numpy()
    if not len(given):
        return "positions of real images, no images of its own"
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    labels = labels[:: len(labels) // len(given)]
    return Images(in_unit(given, span), labels, bool(meta.get("diverged")))


def places(rows: Sequence[Sequence[str]]) -> tuple[list[str], bool]:
    """Return the columns of rows that have images at these values, and whether a column is a value.

    Rows of the same values, or of some of them, share columns. Where that would make the figure wider than the widest row, as for steps of
    runs of another length, a column is a place in its row instead, called "1", "2", ..., and its images have their values above them.
    """
    every = ordered(value for row in rows for value in row)
    widest = max(map(len, rows), default=0)
    return (every, True) if len(every) == widest else ([str(place) for place in range(1, widest + 1)], False)


def in_unit(images: ndarray, span: Sequence[float | None]) -> ndarray:
    """Return images (n, c, h, w) in raw units as (n, h, w, 3) in [0, 1]; `span` as in `read_images`."""
    import numpy as np

    finite = images[np.isfinite(images)]
    low = span[0] if span[0] is not None else float(finite.min()) if len(finite) else 0.0
    high = span[1] if span[1] is not None else float(finite.max()) if len(finite) else low + 1
    scaled = np.nan_to_num((images - low) / max(high - low, 1e-6), nan=0.5, posinf=1.0, neginf=0.0).clip(0, 1)
    pixels: ndarray = scaled.transpose(0, 2, 3, 1)
    return pixels.repeat(3, 3) if pixels.shape[3] == 1 else pixels


def mosaic(
    drawn: Drawn, heads: Sequence[str], sides: Sequence[str], tiles: Mapping[tuple[int, int], Tile], *, breaks: Collection[int] = (),
    note: str = "",
) -> Figure:  # fmt: skip
    """Return a figure of tiles, by (row, column): `heads` above the columns, `sides` to the left of the rows.

    A place without pixels stays empty, with its reason; a place without a tile is empty. breaks: rows above which there is more room.
    """
    names = ["\n".join(textwrap.wrap(side, 24)) for side in sides]
    left = 0.12 + max((0.06 * len(line) for name in names for line in name.split("\n")), default=0.0)
    side = max(0.55, min(1.3, (WIDE - left) / len(heads) - GAP))
    across = max(8, int(side / 0.062))  # characters
    tops, y = [], 0.04 + (LINE * max(len(textwrap.wrap(head, across)) for head in heads) if any(heads) else 0.0)
    for row, name in enumerate(names):
        y += 0.16 if row in breaks else 0.0
        y += TITLE if any(tile.title for (at, _), tile in tiles.items() if at == row) else 0.0
        tops.append(y)
        y += max(side, LINE * (name.count("\n") + 1)) + GAP
    width = max(5.0, left + len(heads) * (side + GAP))
    made = figure(width, y)
    axis = made.subplots()
    axis.set(xlim=(0, width), ylim=(-y, 0))
    axis.set_aspect("equal", anchor="W")
    axis.axis("off")
    middle: dict[str, Any] = {"ha": "center", "va": "center"}
    for column, head in enumerate(heads):
        above: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 7.5, "color": INK}
        axis.text(left + column * (side + GAP) + side / 2, 0.03 - _first(tops), "\n".join(textwrap.wrap(head, across)), **above)
    for name, top in zip(names, tops, strict=True):
        axis.text(0.02, -top - side / 2, name, va="center", fontsize=7.5, color=INK)
    for (row, column), tile in tiles.items():
        x, top = left + column * (side + GAP), tops[row]
        if tile.title:
            title = "\n".join(textwrap.wrap(tile.title, across))
            axis.text(x + side / 2, -top + 0.02, title, ha="center", va="bottom", fontsize=6.5, color=INK)
        if tile.pixels is None:
            axis.fill([x, x + side, x + side, x], [-top, -top, -top - side, -top - side], color="#EFEFEF")
            axis.text(x + side / 2, -top - side / 2, "\n".join(textwrap.wrap(tile.reason, across)), fontsize=6.5, color=GREY, **middle)
            continue
        high, wide = (side * number / max(tile.pixels.shape[:2]) for number in tile.pixels.shape[:2])
        axis.imshow(tile.pixels, extent=(x, x + wide, -top - high, -top), interpolation="antialiased", aspect="equal")
    axis.set(xlim=(0, width), ylim=(-y, 0))  # every image had set them to its own
    heading(made, drawn.title, note)
    return made


def _first(tops: Sequence[float]) -> float:
    return tops[0] if tops else 0.0
