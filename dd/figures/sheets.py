"""Tables: one cell a line for machines, and as people read them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dd.figures.gates import MARK
from dd.figures.reported import COLUMNS, ELSEWHERE, Reported, compare
from dd.figures.results import Point, text

SPREAD_WORDS = {"all": "all sets and networks", "sets": "the means of sets", "nets": "the networks of a set"}
WORDS = {
    "extractor_epochs": "pre-training epochs", "extractor_mode": "extractor is", "eval_network": "evaluated on",
    "eval_protocol": "protocol", "distill_network": "distilled with", "source_domain": "pre-trained on",
    "lr_img": "learning rate of images", "n_m": "pre-trained models", "lambda1": "λ1", "lambda2": "λ2",
    "n_a": "architectures", "alpha": "α", "choice": "chosen on", "lr": "learning rate", "front": "λ front", "rear": "λ rear",
}  # fmt: skip

CHOSEN = "chosen"  # the column of what was picked from results
NUMBERS = ("mean", "std_all", "std_sets", "std_nets", "n", "best_on_test_mean", "diverged", "missing")


@dataclass
class Sheet:
    """A table for people: every entry is text. notes: what must be said below it. rules: rows above which a picture of it has a line."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    rules: list[int] = field(default_factory=list)

    def markdown(self, title: str, chosen: Mapping[str, str]) -> str:
        """Return it as a section of Markdown. chosen: what the paper does not state -> our value and why, listed below the notes."""
        lines = [f"## {title}", ""]
        if self.columns:
            lines += [_line(self.columns), "|" + "---|" * len(self.columns), *map(_line, self.rows), ""]
        lines += [f"- {note}" for note in self.notes]
        if chosen:
            lines += ["", "Chosen, since the paper does not state it:", "", *(f"- {key}: {reason}" for key, reason in chosen.items())]
        return "\n".join(lines).rstrip() + "\n"


@dataclass
class Waiting:
    """A cell that cannot be made yet. place: how many cells stand before it."""

    at: dict[str, Any]
    reason: str
    place: int
    printed: Reported | None


@dataclass
class Drawn:
    """An artifact with the numbers of its cells and what is printed for them (None for nothing), and the cells that wait.

    gains: differences of accuracies that the paper prints in this artifact.
    """

    artifact: Mapping[str, Any]
    scale: str
    spread: str
    points: list[Point]
    reported: list[Reported | None]
    waiting: list[Waiting] = field(default_factory=list)
    gains: Sequence[Reported] = ()

    @property
    def title(self) -> str:
        """Title."""
        return str(self.artifact["title"])

    def get(self, key: str) -> Any:
        """Return a key of the artifact that may be absent."""
        return self.artifact.get(key)


def word(column: str) -> str:
    """Return how people call a column."""
    return WORDS.get(column, column.replace("_", " "))


def value(point: Point, spread: str) -> str:
    """Return "49.5 ± 0.4" with its marks: † changed by the scale, ✕ diverged, ‡ of a generator below its gate."""
    if point.mean is None:
        return "not run"
    std = point.spread(spread)
    marks = ("†" if point.scaled else "") + ("✕" if point.diverged else "") + (MARK if point.below else "")
    return f"{point.mean:.1f}" + (f" ± {std:.1f}" if std is not None else "") + marks


def varying(drawn: Drawn) -> list[str]:
    """Return the coordinates that tell the cells apart, or that the artifact names, in reading order.

    Left out: one that equals another, and a constant of the cells that have it at all, where the others tell which these are.
    """
    named = list(dict.fromkeys([name for key in ("panel", "rows", "columns", "hue") for name in drawn.get(key) or ()]))
    named += [drawn.get("x")] if drawn.get("x") and drawn.get("x") not in named else []
    seen = {_column(drawn, name) for name in named}
    found = list(named)
    for name in all_columns(drawn.points):
        column = _column(drawn, name)
        if name not in named and len(set(column)) > 1 and column not in seen and not _follows(drawn, name, found):
            seen.add(column)
            found.append(name)
    return found


def _follows(drawn: Drawn, name: str, others: Sequence[str]) -> bool:
    """Tell whether a coordinate has one value where it has any, and other coordinates tell where that is."""
    column = _column(drawn, name)
    known = list(zip(*(_column(drawn, other) for other in others), strict=True)) or [()] * len(column)
    return len(set(column) - {""}) == 1 and len(set(zip(known, column, strict=True))) == len(set(known))


def _column(drawn: Drawn, name: str) -> tuple[str, ...]:
    return tuple(text(point.at.get(name)) for point in drawn.points)


def all_columns(points: Iterable[Point]) -> list[str]:
    """Return all coordinates of cells: those of the reported files first, in their order."""
    found = dict.fromkeys(name for point in points for name in point.at)
    return [name for name in COLUMNS if name in found] + [name for name in found if name not in COLUMNS]


def long_csv(
    drawn: Drawn,
    more: Sequence[str] = (),
    values: Sequence[Sequence[str]] = (),
    below: Sequence[tuple[Mapping[str, Any], str, Sequence[str]]] = (),
) -> str:
    """Return one line a cell: all coordinates, all numbers, what is printed for it, what a scale changed, the ids.

    Cells that cannot be made yet come last, with the reason in a column `pending`. more, values: columns of the caller's own. below: lines
    of the caller's own: coordinates, what a scale changed, and those columns.
    """
    names = list(dict.fromkeys([*all_columns(drawn.points), *(name for one in drawn.waiting for name in one.at)]))
    pending = ["pending"] if drawn.waiting else []
    picked = ["chosen"] if has_choices(drawn) else []
    own = ["reported", "reported_std", "reported_certainty", "difference", "scaled", "id", "score_id", *picked]
    header = [*names, *NUMBERS, *own, *more, *pending]
    rows = []
    for number, (point, row) in enumerate(zip(drawn.points, drawn.reported, strict=True)):
        compared = compare(point, row, drawn.spread)
        numbers = [_number(item) for item in (point.mean, point.std_all, point.std_sets, point.std_nets)]
        rows.append([
            *(text(point.at.get(name)) for name in names), *numbers, str(point.n), _number(point.best), str(point.diverged),
            str(point.missing), *_cells_of(row), _number(compared[0]) if compared else "", "; ".join(point.scaled), point.id,
            point.score_id, *(point.chosen for _ in picked), *(values[number] if values else ()), *("" for _ in pending),
        ])  # fmt: skip
    for at, scaled, entries in below:
        blank = ["" for _ in NUMBERS]
        shown = [scaled if column == "scaled" else "" for column in own]
        rows.append([*(text(at.get(name)) for name in names), *blank, *shown, *entries, *("" for _ in pending)])
    for one in drawn.waiting:
        blank, rest = ["", "", "", "", "0", "", "0", "0"], [""] * (len(own) - 3 + len(more))
        rows.append([*(text(one.at.get(name)) for name in names), *blank, *_cells_of(one.printed), *rest, one.reason])
    return to_csv(header, rows)


def _cells_of(row: Reported | None) -> list[str]:
    return ["", "", ""] if row is None else [f"{row.sign}{row.mean:g}", _number(row.std), row.certainty]


def to_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return CSV with Unix line ends."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def cells(drawn: Drawn) -> Sheet:
    """Return one row a cell: reproduced, best on test, runs, reported, difference."""
    names = varying(drawn)
    known = any(drawn.reported)
    picked = [CHOSEN] if has_choices(drawn) else []
    columns = [*map(word, names), *picked, "reproduced (%)", "best on test (%)", "runs", *(["reported (%)", "difference"] if known else [])]
    rows = []
    for point, row in zip(drawn.points, drawn.reported, strict=True):
        best = "" if point.best is None else f"{point.best:.1f}"
        count = f"{point.n}" + (f", {point.diverged} diverged" if point.diverged else "")
        count += f", {point.missing} files missing" if point.missing else ""
        line = [*(text(point.at.get(name)) for name in names), *(point.chosen for _ in picked), value(point, drawn.spread), best, count]
        rows.append(line + ([printed(row), _difference(point, row, drawn)] if known else []))
    return Sheet(columns, rows, notes(drawn, names))


def has_choices(drawn: Drawn) -> bool:
    """Tell whether a setting of any cell was picked from results of other cells."""
    return any(point.chosen for point in drawn.points)


def notes(drawn: Drawn, shown: Sequence[str]) -> list[str]:
    """Return what must be said below an artifact: its note, constants, marks, what the scale changed."""
    found = [str(drawn.get("note"))] if drawn.get("note") else []
    same_everywhere = [name for name in all_columns(drawn.points) if name not in shown and len(set(_column(drawn, name))) == 1]
    constants = [f"{word(name)} {_column(drawn, name)[0]}" for name in same_everywhere if _column(drawn, name)[0]]
    if constants:
        found.append("All cells: " + ", ".join(constants) + ".")
    others = [name for name in all_columns(drawn.points) if name not in shown and name not in same_everywhere]
    some = [name for name in others if _follows(drawn, name, shown)]
    if some:
        settings = ", ".join(f"{word(name)} {max(_column(drawn, name))}" for name in some)
        found.append(f"Cells to which it applies: {settings}.")
    if any(point.n for point in drawn.points):
        found.append(f"Test accuracy in percent, last epoch, mean ± standard deviation over {SPREAD_WORDS[drawn.spread]}.")
    if mark(drawn):
        found.append(mark(drawn))
    if any(point.diverged for point in drawn.points):
        found.append("✕ has runs that diverged; they count at the accuracy they had.")
    rows = [row for row in [*drawn.reported, *(one.printed for one in drawn.waiting)] if row]
    unsure = sorted({row.certainty for row in rows if row.certainty != "exact" and not row.elsewhere})
    if unsure:
        found.append(f"Reported numbers in brackets are not exact readings: {', '.join(unsure)} (see reported/README.md).")
    found += doubts(rows)
    found += [f"Chosen: by the {by}." for by in dict.fromkeys(point.chosen_by for point in drawn.points if point.chosen_by)]
    if any(row.elsewhere for row in rows):
        found.append(f"elsewhere: not printed by this paper, as far as we know; other papers print it of the same baseline ({ELSEWHERE}).")
    reasons = dict.fromkeys(one.reason for one in drawn.waiting)
    if reasons:
        found.append(f"-: not available yet: {'; '.join(reasons)}.")
    return found


def doubts(rows: Iterable[Reported]) -> list[str]:
    """Return what is odd about printed numbers, where their rows say it."""
    return list(dict.fromkeys(f"{printed(row)}: {row.note}." for row in rows if row.certainty == "doubtful" and row.note))


def mark(drawn: Drawn) -> str:
    """Return what the scale changed in the cells, or nothing."""
    said = changes(point.scaled for point in drawn.points)
    return f"† {drawn.scale}: {said}. Not the paper's setting, so not compared with its numbers." if said else ""


def changes(scaled: Iterable[Sequence[str]]) -> str:
    """Return what a scale changed, each key once: "extractor mlp_w64 or vit_w48_d2, iterations 60"."""
    found: dict[str, dict[str, None]] = {}
    for one in scaled:
        for part in one:
            key, _, item = part.rpartition(" ")
            found.setdefault(key, {})[item] = None
    first = ["dataset", "iterations"]
    order = sorted(found, key=lambda key: first.index(key) if key in first else len(first))
    return ", ".join(f"{key} {' or '.join(found[key])}".strip() for key in order)


def printed(row: Reported | None) -> str:
    """Return a printed number as tables show it: in brackets where it is no exact reading."""
    if row is None:
        return ""
    found = str(row) if row.certainty == "exact" else f"[{row}]"
    return f"elsewhere {row}" if row.elsewhere else found


def _difference(point: Point, row: Reported | None, drawn: Drawn) -> str:
    if row is None or point.mean is None:
        return ""
    if point.scaled:
        return f"not compared ({drawn.scale})"
    compared = compare(point, row, drawn.spread)
    assert compared is not None
    difference, near = compared
    if row.sign and not difference:
        return "as stated"
    return f"{difference:+.1f}" + ("" if near else " (outside)")


def _number(item: float | None) -> str:
    return "" if item is None else f"{item:.4f}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
