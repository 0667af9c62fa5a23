"""One distilled class under several pre-trained networks: where it lies, and its matching loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import load_tensors
from dd.errors import ArtifactError
from dd.figures.plots import label
from dd.figures.results import text
from dd.figures.sheets import Drawn, Sheet, all_columns, mark, notes, to_csv, varying, word
from dd.figures.spaces import embed, star
from dd.figures.style import COLOURS, GREY, INK, figure, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy import ndarray

PALE = "#C8C8C8"
COLUMNS = ("model", "loss", "loss_std_draws", "loss_all_classes", "loss_std_classes")


@dataclass(frozen=True)
class Seen:
    """real (M, n, d), syn (M, m, d): embeddings of a class. loss (M, C, draws): matching losses. meta: of the analysis. All float64."""

    real: ndarray
    syn: ndarray
    loss: ndarray
    meta: Mapping[str, Any]

    @property
    def rows(self) -> list[tuple[float, float, float, float]]:
        """For each model (loss of the class, its std over draws, mean over classes, std over classes of their means); ddof 0."""
        own, every = self.loss[:, self.meta["config"]["label"]], self.loss.mean(2)
        return [(float(a.mean()), float(a.std()), float(b.mean()), float(b.std())) for a, b in zip(own, every, strict=True)]

    @property
    def variation(self) -> tuple[float, float]:
        """Coefficients of variation over the models, in percent: of the class's loss, and of the mean over classes."""
        import numpy as np

        numbers = np.array(self.rows)[:, [0, 2]]
        with np.errstate(invalid="ignore", divide="ignore"):
            own, every = 100 * numbers.std(0) / numbers.mean(0)
        return float(own), float(every)

    @property
    def images(self) -> str:
        """How many distilled images of the class are embedded, and how many stored ones they were decoded from."""
        embedded, stored = self.meta["embedded"], self.meta["stored"]
        return f"{embedded}" if embedded == stored else f"{embedded} decoded from {stored}"

    @property
    def said(self) -> str:
        """What the bars are, in words."""
        _, classes, draws = self.loss.shape
        return (
            f"Matching loss: squared distance between mean features of the distilled images and of a batch of {self.meta['batch']} real "
            f"images. Class {self.meta['class']}: mean and standard deviation over {draws} batches; all classes: mean and standard "
            f"deviation over {classes} classes. Not augmented; the same batches for all models."
        )


def models(drawn: Drawn) -> Figure:
    """Return, for each cell, a joint t-SNE of a class under all models (a), and its matching loss under each of them (b)."""
    found = [read(cell.get("analysis")) for cell in drawn.artifact["cells"]]
    made = figure(9.6, 3.5 * len(found))
    grid = made.subplots(len(found), 2, squeeze=False, width_ratios=(1, 1.25))
    legend: dict[str, Any] = {}
    several = len(found) > 1
    for (left, right), point, seen in zip(grid, drawn.points, found, strict=True):
        name = f", {label(drawn, point, varying(drawn))}" if several else ""
        about = f"class {seen.meta['class']}" if seen else "a class"
        count = f"\ndistilled images: {seen.images}" if seen else ""
        left.set(xticks=[], yticks=[])
        left.grid(False)
        left.set_title(f"(a) features of {about}{name}{count}", loc="left")
        right.set_title(f"(b) matching loss{name}", loc="left")
        if seen is None:
            for axis in (left, right):
                axis.set(xticks=[], yticks=[])
                axis.text(0.5, 0.5, "not run", ha="center", va="center", color=GREY, transform=axis.transAxes)
            continue
        _scatter(left, seen, legend)
        _bars(right, seen)
    parts = [str(drawn.get("note") or ""), *_notes(found), mark(drawn)]
    heading(made, drawn.title, "\n".join(part for part in parts if part), legend)
    return made


def models_sheet(drawn: Drawn) -> Sheet:
    """Return one row a cell and model: the losses and their spreads."""
    names = varying(drawn)
    rows = []
    found = [read(cell.get("analysis")) for cell in drawn.artifact["cells"]]
    for point, seen in zip(drawn.points, found, strict=True):
        side = [text(point.at.get(name)) for name in names]
        if seen is None:
            rows.append([*side, "", "not run", "not run", ""])
            continue
        for number, (own, std, every, among) in enumerate(seen.rows, start=1):
            rows.append([*side, str(number), f"{own:.4g} ± {std:.2g}", f"{every:.4g} ± {among:.2g}", seen.images])
        rows.append([*side, "variation over models", *(f"{item:.1f} %" for item in seen.variation), ""])
    columns = [*map(word, names), "model", "matching loss of the class", "of all classes", "distilled images embedded"]
    accuracy = ("Test accuracy", "✕", "Reported numbers", "elsewhere")  # nothing of it is shown here
    said = [note for note in notes(drawn, names) if not note.startswith(accuracy)]
    return Sheet(columns, rows, [*said, *_notes(found), *_variation(found)])


def models_csv(drawn: Drawn) -> str:
    """Return one line a cell and model; a cell that was not run has one line without numbers."""
    names = all_columns(drawn.points)
    rows = []
    for cell, point in zip(drawn.artifact["cells"], drawn.points, strict=True):
        seen = read(cell.get("analysis"))
        side = [text(point.at.get(name)) for name in names]
        more = ["; ".join(point.scaled), point.id]
        if seen is None:
            rows.append([*side, *("" for _ in COLUMNS), "", "", *more])
            continue
        images = [str(seen.meta["embedded"]), str(seen.meta["stored"])]
        rows += [[*side, str(k), *(f"{item:.6g}" for item in row), *images, *more] for k, row in enumerate(seen.rows, start=1)]
    return to_csv([*names, *COLUMNS, "embedded", "stored", "scaled", "id"], rows)


def _notes(found: list[Seen | None]) -> list[str]:
    """Return what must be said of the analyses, each thing once."""
    some = [seen for seen in found if seen]
    joint = ["One t-SNE of all models' embeddings; stars: distilled images, dots: real ones."] if some else []
    return [*dict.fromkeys(seen.said for seen in some), *joint]


def _variation(found: list[Seen | None]) -> list[str]:
    return ["Variation over models: standard deviation of the models' losses, in percent of their mean."] if any(found) else []


def _scatter(axis: Axes, seen: Seen, legend: dict[str, Any]) -> None:
    count = len(seen.loss)
    parts = embed([*seen.real, *seen.syn])
    if parts is None:
        axis.text(0.5, 0.5, "too few finite points", ha="center", va="center", color=GREY, transform=axis.transAxes)
        return
    for number, (real, syn) in enumerate(zip(parts[:count], parts[count:], strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axis.scatter(real[:, 0], real[:, 1], s=7, color=colour, alpha=0.35, linewidths=0)
        drawn = axis.scatter(syn[:, 0], syn[:, 1], color=colour, **{**star(count * len(syn)), "edgecolors": INK, "linewidths": 0.4})
        legend.setdefault(f"model {number + 1}", drawn)


def _bars(axis: Axes, seen: Seen) -> None:
    width = 0.38
    _, classes, draws = seen.loss.shape
    names = (f"class {seen.meta['class']} (± over {draws} batches)", f"all {classes} classes (± over classes)")
    for number, (own, std, every, among) in enumerate(seen.rows):
        for side, height, error, colour in ((-1, own, std, COLOURS[number % len(COLOURS)]), (1, every, among, PALE)):
            x = number + side * width / 2
            if height != height:  # NaN: a model that diverged
                axis.annotate("not finite", (x, 0), xytext=(0, 3), textcoords="offset points", rotation=90, ha="center", fontsize=6.5)
                continue
            axis.bar(x, height, width, color=colour)
            axis.errorbar(x, height, error, color=INK, elinewidth=0.9, capsize=2, capthick=0.9)
    from matplotlib.patches import Patch

    axis.set_xticks(range(len(seen.rows)), [str(number + 1) for number in range(len(seen.rows))])
    axis.set(xlabel="pre-trained model", ylabel="matching loss")
    axis.set_ylim(bottom=0)
    axis.legend([Patch(facecolor=COLOURS[0]), Patch(facecolor=PALE)], names, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def read(path: str | None) -> Seen | None:
    """Return what an analysis of kind `models` found, or None where it was not run."""
    if path is None or not Path(path).exists():
        return None
    tensors, meta = load_tensors(path)
    if not {"real", "syn", "loss"} <= set(tensors):
        raise ArtifactError(f"{path}: holds {', '.join(tensors)}, not `real`, `syn` and `loss` of several networks")
    real, syn, loss = (tensors[name].double().numpy() for name in ("real", "syn", "loss"))
    return Seen(real, syn, loss, meta)
