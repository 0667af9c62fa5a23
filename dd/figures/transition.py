"""Images of a set at several of its published steps, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.artifacts import read_json, set_file
from dd.config import Frozen, parse
from dd.errors import ConfigError
from dd.figures import gates
from dd.figures.mosaic import Tile, mosaic, places, read_images
from dd.figures.plots import label, ordered
from dd.figures.results import Point, text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word
from dd.figures.steps import own_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("column", "updates", "label", "class", "image", "brightness", "contrast", "change", "reason", "scaled", "id")
SPACES = "spaces"  # how a recipe says that the end of each of its spaces is published
NOT_CHOSEN = "not chosen yet"
CHANGE = "Change: root of the mean squared difference of pixels, in percent of black to white, from the image to the left."
Place = tuple[Path | None, int | None, str]  # a file, after how many updates, and what stands above it


class Fields(Frozen):
    """What `fields` of the artifact may say.

    labels: the classes that are shown. image: which of a class's images. steps: `published` makes all published steps of a point, and its
    last, a row; without it each point is one place, in the column of its x.
    """

    labels: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    image: int = Field(default=0, ge=0)
    steps: Literal["published"] | None = None


@dataclass(frozen=True)
class Stop:
    """A set at one step: its point, after how many updates (None where that is not known), what stands above its images, and these.

    tiles: by class. names: of the dataset's classes, () where they are not known. diverged: whether the distillation did.
    """

    point: Point
    file: Path | None
    updates: int | None
    title: str
    tiles: Mapping[int, Tile]
    names: tuple[str, ...]
    diverged: bool


@dataclass
class Row:
    """One row: its name, and its stops by their columns."""

    name: str
    stops: dict[str, Stop] = field(default_factory=dict)

    @property
    def marked(self) -> str:
        """The name with its marks: † changed by the scale, ✕ diverged, ‡ of a generator below its gate."""
        stops = self.stops.values()
        marks = {"†": any(stop.point.scaled for stop in stops), "✕": any(stop.diverged for stop in stops),
                 gates.MARK: any(stop.point.below for stop in stops)}  # fmt: skip
        return self.name + "".join(mark for mark, there in marks.items() if there)

    def called(self, one: int) -> str:
        """Return the name of a class."""
        return next((stop.names[one] for stop in self.stops.values() if one < len(stop.names)), f"class {one}")


def misfits(artifact: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an artifact's fields."""
    try:
        fields = _fields(artifact)
    except ConfigError as error:
        yield str(error)
        return
    if (fields.steps is None) == (not artifact.get("x")):
        yield "kind transition needs x, the coordinate of its columns, or fields: {steps: published}, and not both"


def transition(drawn: Drawn) -> Figure:
    """Return the images, one row a class and row, one column a step; with a single column, the classes stand side by side.

    The images are stored ones of the first set of each point, as they are: neither normalised nor whitened. What was not run, or has no
    such image, leaves its place empty and says why.

    Raises:
        ConfigError: `fields` is wrong, or two points stand in one place.
        ArtifactError: a file is damaged.
    """
    fields, (rows, columns) = _fields(drawn.artifact), _rows(drawn)
    heads, marks = _heads(drawn, rows, columns), "\n".join(_said(drawn, rows))
    tiles: dict[tuple[int, int], Tile] = {}
    if len(columns) == 1:
        alike = [len({row.called(one) for row in rows}) == 1 for one in fields.labels]  # else they are of other datasets
        for down, row in enumerate(rows):
            for across, one in enumerate(fields.labels):
                tile = row.stops[columns[0]].tiles[one]
                tiles[down, across] = tile if all(alike) else replace(tile, title=row.called(one))
        sides = [", ".join(part for part in (row.marked, heads[0] or row.stops[columns[0]].title) if part) for row in rows]
        return mosaic(drawn, [rows[0].called(one) if all(alike) else "" for one in fields.labels], sides, tiles, note=marks)
    sides = []
    for one in fields.labels:
        for row in rows:
            for across, column in enumerate(columns):
                stop = row.stops.get(column)
                if stop is not None:
                    tile = stop.tiles[one]
                    tiles[len(sides), across] = tile if heads[across] else replace(tile, title=stop.title)
                elif any(heads):  # else one row has more steps than another
                    tiles[len(sides), across] = Tile(None, "no such point")
            sides.append(": ".join(part for part in (row.called(one), row.marked) if part))
    breaks = range(len(rows), len(sides), len(rows)) if len(rows) > 1 else ()
    return mosaic(drawn, heads, sides, tiles, breaks=breaks, note=marks)


def transition_sheet(drawn: Drawn) -> Sheet:
    """Return one row a class and row: how much the image changed from step to step."""
    fields, (rows, columns) = _fields(drawn.artifact), _rows(drawn)
    heads = [head or f"stop {number}" for number, head in enumerate(_heads(drawn, rows, columns), start=1)]
    lines = []
    for one in fields.labels:
        for row in rows:
            shown = {column: _shown(stop.tiles[one], change) for column, stop, change in _changes(row, columns, one)}
            lines.append([row.called(one), row.marked, *(shown.get(column, "") for column in columns)])
    said = [note for note in notes(drawn, varying(drawn)) if not note.startswith(("Test accuracy", "Reported numbers", "elsewhere", "✕"))]
    return Sheet(["class", "", *heads], lines, [*said, CHANGE, *_diverged(rows)])


def transition_csv(drawn: Drawn) -> str:
    """Return one line a place: brightness, contrast and change of its image, in percent of black to white, or why there is none."""
    fields, (rows, columns) = _fields(drawn.artifact), _rows(drawn)
    names = [name for name in all_columns(drawn.points) if not name.startswith("eval_")]
    lines = []
    for one in fields.labels:
        for row in rows:
            for column, stop, change in _changes(row, columns, one):
                tile, point = stop.tiles[one], stop.point
                pixels = (None, None) if tile.pixels is None else (100 * float(tile.pixels.mean()), 100 * float(tile.pixels.std()))
                exact = ["" if item is None else f"{item:.4f}" for item in (*pixels, change)]
                about = [column, text(stop.updates), str(one), row.called(one), str(fields.image)]
                side, end = [text(point.at.get(name)) for name in names], [tile.reason, "; ".join(point.scaled), point.id]
                lines.append([*side, *about, *exact, *end])
    return to_csv([*names, *COLUMNS], lines)


def _fields(artifact: Mapping[str, Any]) -> Fields:
    return parse(Fields, artifact.get("fields") or {}, "fields")


def _rows(drawn: Drawn) -> tuple[list[Row], list[str]]:
    """Return the rows, and their columns in order: values of x, or the numbers of the published steps."""
    where = f"artifact {drawn.artifact['name']}"
    for said in misfits(drawn.artifact):
        raise ConfigError(f"{where}: {said}")
    x, fields = str(drawn.get("x")), _fields(drawn.artifact)
    down = list(drawn.get("rows") or [name for name in varying(drawn) if name != x and not name.startswith("eval_")])
    rows: dict[tuple[str, ...], Row] = {}
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        row = rows.setdefault(tuple(text(point.at.get(name)) for name in down), Row(label(drawn, point, down)))
        for column, (file, updates, title) in _published(cell) if fields.steps else [(text(point.at.get(x)), _own(cell))]:
            if column not in row.stops:
                row.stops[column] = _stop(cell, point, file, updates, title, fields)
            elif row.stops[column].file != file:
                raise ConfigError(f"{where}: two points stand in row {row.name}, column {column}; name what differs in rows")
    return _placed(drawn, list(rows.values()))


def _placed(drawn: Drawn, rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Return rows and columns; where rows have other values of x, a column is a place and each image says its value."""
    own = [ordered(row.stops) for row in rows]
    columns, shared = places(own)
    if shared or _fields(drawn.artifact).steps:
        return rows, columns
    x = word(str(drawn.get("x")))
    for row, values in zip(rows, own, strict=True):
        row.stops = {place: replace(row.stops[value], title=f"{x} {value}") for place, value in zip(columns, values, strict=False)}
    return rows, columns


def _stop(cell: Mapping[str, Any], point: Point, file: Path | None, updates: int | None, title: str, fields: Fields) -> Stop:
    manifest = cell.get("manifest")
    facts = read_json(manifest) if manifest and Path(manifest).exists() else {}
    low, high = facts.get("range", (0.0, 1.0))
    found, names = read_images(file, (low, high)) if file else NOT_CHOSEN, tuple(map(str, facts.get("classes", ())))
    if isinstance(found, str):
        return Stop(point, file, updates, title, {one: Tile(None, found) for one in fields.labels}, names, diverged=False)
    return Stop(point, file, updates, title, {one: found.tile(one, fields.image) for one in fields.labels}, names, found.diverged)


def _own(cell: Mapping[str, Any]) -> Place:
    """Return the place of a cell's set at the cell's own step."""
    found = own_step(cell)
    return (None, None, "") if found is None else (*found, "")


def _published(cell: Mapping[str, Any]) -> list[tuple[str, Place]]:
    """Return all published steps of a cell's set, and its last where that is not among them, numbered."""
    folder, recipe = Path(cell["sets"][0]), cell["config"]["recipe"]
    spaces, last = recipe.get("steps") == SPACES, recipe.get("iterations")
    stops = [(set_file(folder, step), int(step)) for step in cell["published"]]
    if not stops or (last is not None and last not in cell["published"]):
        stops.append((set_file(folder, None), last))
    first = 0 if stops[0][1] == 0 else 1
    titles = ["" if updates is None else f"{updates} updates" for _, updates in stops]
    if spaces:
        titles = [f"space {space}, {title}" if space else "start" for space, title in enumerate(titles, start=first)]
    return [(str(number), (*stop, title)) for number, (stop, title) in enumerate(zip(stops, titles, strict=True), start=1)]


def _heads(drawn: Drawn, rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return what stands above each column; nothing where rows differ in any, since each image says it then."""
    if drawn.get("x") and not any(stop.title for row in rows for stop in row.stops.values()):
        return [f"{word(str(drawn.get('x')))} {column}" for column in columns]
    titles = [{row.stops[column].title for row in rows if column in row.stops} for column in columns]
    alike = all(len(found) == 1 for found in titles)
    return [next(iter(found)) if alike else "" for found in titles]


def _changes(row: Row, columns: Sequence[str], one: int) -> Iterator[tuple[str, Stop, float | None]]:
    """Yield the stops of a row, each with how far its image of a class is from the last one before it; None for the first."""
    before = None
    for column in columns:
        stop = row.stops.get(column)
        if stop is None:
            continue
        pixels, change = stop.tiles[one].pixels, None
        if pixels is not None and before is not None and pixels.shape == before.shape:
            change = 100 * float(((pixels.astype(float) - before) ** 2).mean() ** 0.5)
        before = pixels if pixels is not None else before
        yield column, stop, change


def _shown(tile: Tile, change: float | None) -> str:
    return tile.reason or ("shown" if change is None else f"{change:.1f} %")


def _said(drawn: Drawn, rows: Sequence[Row]) -> list[str]:
    """Return what must be said below the images."""
    said = [str(drawn.get("note") or ""), *_diverged(rows), *gates.notes([point.below for point in drawn.points]), mark(drawn)]
    return [part for part in said if part]


def _diverged(rows: Sequence[Row]) -> list[str]:
    there = any(stop.diverged for row in rows for stop in row.stops.values())
    return ["✕ diverged: what was left of it."] if there else []
