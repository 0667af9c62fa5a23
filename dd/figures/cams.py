"""Maps of class evidence over distilled images: where pre-trained networks see the class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.errors import ArtifactError, ConfigError
from dd.figures import gates
from dd.figures.mosaic import NOT_RUN, Tile, in_unit, mosaic, places
from dd.figures.plots import label, ordered
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

COLUMNS = ("label", "class", "image", "epoch", "mean", "half", "agreement", "scaled", "id")
HALF = 0.5  # of the largest evidence
LEAST, MOST = 0.15, 0.75  # how much of the image the colour of a map hides, from no evidence to the most
SAID = (
    "Grad-CAM of the images' own class, each map scaled by its own largest value: from dark blue, no evidence, to yellow, the most of "
    "that image. A map without any evidence is dark blue everywhere."
)
NUMBERS = (
    "Mean: of a map that is scaled to [0, 1]. Half: percent of the pixels that have at least half of the largest evidence. Agreement: "
    "correlation of a map with that of the last epoch."
)


@dataclass(frozen=True)
class Seen:
    """pixels (k, h, w, 3) in [0, 1] of classes `labels` (k,), maps (E, k, h, w) in [0, 1] at `epochs`, and the metadata of the analysis."""

    pixels: ndarray
    labels: tuple[int, ...]
    maps: ndarray
    epochs: tuple[int, ...]
    meta: Mapping[str, Any]

    @property
    def wanted(self) -> tuple[int, ...]:
        """The classes that were asked for."""
        return tuple(self.meta["wanted"])

    def name(self, one: int) -> str:
        """Return the name of a class."""
        return str(self.meta["classes"][one])

    def numbers(self, epoch: int, one: int) -> tuple[float, float, float | None]:
        """Return (mean, half, agreement) of the map of a class at an epoch, see NUMBERS; no agreement of maps that are constant."""
        import numpy as np

        place = self.labels.index(one)
        mine, last = (self.maps[at, place].astype(float) for at in (self.epochs.index(epoch), -1))
        known = epoch != self.epochs[-1] and mine.std() > 0 and last.std() > 0
        agreement = float(np.corrcoef(mine.ravel(), last.ravel())[0, 1]) if known else None
        return float(mine.mean()), 100 * float((mine >= HALF).mean()), agreement


@dataclass(frozen=True)
class Row:
    """One row: what it is called, and, by its columns, the analyses and classes; epoch None stands for the images themselves.

    titles: what stands above its images, by columns, where that is not the same in all rows.
    """

    group: str
    epoch: int | None
    seen: Mapping[str, tuple[Seen | None, int]]
    titles: Mapping[str, str]


def misfits(artifact: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an artifact."""
    if artifact.get("fields"):
        yield "fields: kind cams has none; labels and image stand under analysis"
    if any("/cams-" not in str(cell.get("analysis")) for cell in artifact["cells"]):
        yield "kind cams needs analysis: {kind: cams, epochs: [0, 20], ...}"


def cams(drawn: Drawn) -> Figure:
    """Return images and, below them, their maps: one row of maps for each epoch of the network; classes across, or with `x` its values.

    Rows of one image (or, with classes across, of one point) belong together. What was not run leaves its place empty and says why.

    Raises:
        ConfigError: two points stand in one place.
        ArtifactError: a file is damaged, or of another analysis.
    """
    rows, columns = _rows(drawn)
    tiles, sides, breaks = {}, [], set()
    for number, row in enumerate(rows):
        if row.epoch is None and number:
            breaks.add(number)
        sides.append(row.group if row.epoch is None else _trained(row.epoch))
        for across, column in enumerate(columns):
            if column in row.seen or columns[column]:  # else one row has more columns than another
                title = row.titles.get(column, "") if row.epoch is None else ""
                tiles[number, across] = replace(_tile(row, column), title=title)
    below = gates.notes([point.below for point in drawn.points])
    note = "\n".join(part for part in (str(drawn.get("note") or ""), *_said(drawn), *below, mark(drawn)) if part)
    return mosaic(drawn, [columns[column] for column in columns], sides, tiles, breaks=breaks, note=note)


def cams_sheet(drawn: Drawn) -> Sheet:
    """Return one row a point, class and epoch: how far the evidence spreads, and whether the networks agree."""
    names = [name for name in varying(drawn) if not name.startswith("eval_")]
    lines = []
    for _, point, found, one, epoch in _maps(drawn):
        side = [text(point.at.get(name)) for name in names]
        if found is None or epoch is None:
            lines.append([*side, "" if found is None else found.name(one), NOT_RUN if found is None else "no image", "", "", ""])
            continue
        mean, half, agreement = found.numbers(epoch, one)
        lines.append([*side, found.name(one), str(epoch), f"{mean:.2f}", f"{half:.1f} %", "" if agreement is None else f"{agreement:.2f}"])
    said = [note for note in notes(drawn, names) if not note.startswith(("Test accuracy", "Reported numbers", "elsewhere", "✕"))]
    return Sheet([*map(word, names), "class", "epochs of the network", "mean", "half", "agreement"], lines, [*said, *_said(drawn), NUMBERS])


def cams_csv(drawn: Drawn) -> str:
    """Return one line a point, class and epoch; one without numbers where there is no map."""
    names = [name for name in all_columns(drawn.points) if not name.startswith("eval_")]
    lines = []
    for _, point, found, one, epoch in _maps(drawn):
        side, end = [text(point.at.get(name)) for name in names], ["; ".join(point.scaled), point.id]
        if found is None:
            lines.append([*side, *("" for _ in range(7)), *end])
            continue
        about = [str(one), found.name(one), text(found.meta["image"]), text(epoch)]
        numbers = found.numbers(epoch, one) if epoch is not None else (None, None, None)
        lines.append([*side, *about, *("" if item is None else f"{item:.4f}" for item in numbers), *end])
    return to_csv([*names, *COLUMNS], lines)


def read(path: str | None) -> Seen | None:
    """Return what an analysis of kind `cams` found, or None where it was not run.

    Raises:
        ArtifactError: the file is damaged, or of another analysis.
    """
    if path is None or not Path(path).exists():
        return None
    tensors, meta = load_tensors(path)
    if not {"images", "labels", "maps"} <= set(tensors):
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not `images`, `labels` and `maps` of an analysis of kind cams")
    labels = tuple(tensors["labels"].tolist())
    pixels = in_unit(tensors["images"].numpy(), meta["range"]) if labels else tensors["images"].numpy()
    return Seen(pixels, labels, tensors["maps"].numpy(), tuple(meta["epochs"]), meta)


def _maps(drawn: Drawn) -> Iterator[tuple[Mapping[str, Any], Point, Seen | None, int, int | None]]:
    """Yield every map: its cell, point, analysis, class and epoch; epoch None where there is no image of the class."""
    for cell, point in _once(drawn):
        found = read(cell.get("analysis"))
        if found is None:
            yield cell, point, None, 0, None
            continue
        for one in found.wanted:
            for epoch in found.epochs if one in found.labels else (None,):
                yield cell, point, found, one, epoch


def _once(drawn: Drawn) -> list[tuple[Mapping[str, Any], Point]]:
    """Return the cells and points of an artifact, each analysis once: one set may be evaluated in several ways."""
    found: dict[tuple[str, ...], tuple[Mapping[str, Any], Point]] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        own = [f"{name} {text(item)}" for name, item in point.at.items() if not name.startswith("eval_")]
        found.setdefault((str(cell.get("analysis")), *own), (cell, point))
    return list(found.values())


def _rows(drawn: Drawn) -> tuple[list[Row], dict[str, str]]:
    """Return the rows, and what stands above each column."""
    where, x = f"artifact {drawn.artifact['name']}", drawn.get("x")
    down = list(drawn.get("rows") or [name for name in varying(drawn) if name != x and not name.startswith("eval_")])
    groups: dict[tuple[str, ...], dict[str, Seen | None]] = {}
    names: dict[tuple[str, ...], str] = {}
    for cell, point in _once(drawn):
        key, column = tuple(text(point.at.get(name)) for name in down), text(point.at.get(x)) if x else ""
        if column in groups.setdefault(key, {}):
            place = f"{label(drawn, point, down)}{', column ' if x else ''}{column}"
            raise ConfigError(f"{where}: two points stand in row {place}; name what differs in rows")
        groups[key][column] = read(cell.get("analysis"))
        names[key] = label(drawn, point, down) + ("†" if point.scaled else "") + (gates.MARK if point.below else "")
    some = [found for group in groups.values() for found in group.values() if found]
    classes = list(dict.fromkeys(one for found in some for one in found.wanted)) or [0]
    epochs = list(dict.fromkeys(epoch for found in some for epoch in found.epochs))
    rows = []
    if x is None:
        called = {key: {str(one): _called(group, one) for one in classes} for key, group in groups.items()}
        alike = len({tuple(found.values()) for key, found in called.items() if groups[key][""]}) <= 1  # else they are of other datasets
        for key, group in groups.items():
            seen = {str(one): (group[""], one) for one in classes}
            rows += [Row(names[key], epoch, seen, {} if alike else called[key]) for epoch in (None, *epochs)]
        heads = next((called[key] for key, group in groups.items() if group[""]), {str(one): f"class {one}" for one in classes})
        return rows, heads if alike else dict.fromkeys(heads, "")
    own = [ordered(group) for group in groups.values()]
    columns, shared = places(own)
    for one in classes:
        for (key, group), values in zip(groups.items(), own, strict=True):
            title = ": ".join(part for part in (_called(group, one), names[key]) if part)
            at = {column: column for column in group} if shared else dict(zip(columns, values, strict=False))
            seen = {column: (group[value], one) for column, value in at.items()}
            titles = {} if shared else {column: f"{word(str(x))} {value}" for column, value in at.items()}
            rows += [Row(title, epoch, seen, titles) for epoch in (None, *epochs)]
    return rows, {column: f"{word(str(x))} {column}" if shared else "" for column in columns}


def _called(group: Mapping[str, Seen | None], one: int) -> str:
    """Return the name of a class in a row."""
    return next((found.name(one) for found in group.values() if found and one in found.wanted), f"class {one}")


def _tile(row: Row, column: str) -> Tile:
    if column not in row.seen:
        return Tile(None, "no such point")
    found, one = row.seen[column]
    if found is None:
        return Tile(None, NOT_RUN)
    if one not in found.labels:
        return Tile(None, f"no image of {found.name(one)}" if one in found.wanted else "not asked for")
    pixels = found.pixels[found.labels.index(one)]
    if row.epoch is None:
        return Tile(pixels)
    if row.epoch not in found.epochs:
        return Tile(None, "not asked for")
    return Tile(_over(pixels, found.maps[found.epochs.index(row.epoch), found.labels.index(one)]))


def _over(pixels: ndarray, evidence: ndarray) -> ndarray:
    """Return an image (h, w, 3) in grey with its map (h, w) in colour over it."""
    import numpy as np
    from matplotlib import colormaps

    colour = np.asarray(colormaps["plasma"](evidence.astype(float)))[..., :3]
    hidden = (LEAST + (MOST - LEAST) * evidence.astype(float))[..., None]
    shown: ndarray = (1 - hidden) * pixels.mean(2, keepdims=True) + hidden * colour
    return shown.clip(0, 1)


def _trained(epoch: int) -> str:
    return "evidence, network not trained" if epoch == 0 else f"evidence, network of {epoch} epochs"


def _said(drawn: Drawn) -> list[str]:
    """Return which network it is, and how maps are scaled."""
    some = [found for cell, _ in _once(drawn) if (found := read(cell.get("analysis")))]
    networks = dict.fromkeys(str(found.meta["config"]["network"]) for found in some)
    return [f"Network: {', '.join(networks)}, seed 0.", SAID] if some else []
