"""How figures look, and how they are written: equal content gives equal bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import atomic

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe and Ito's colours (told apart by colour-blind readers), darker yellow for white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A5ACD", "#8C564B", "#7F7F7F", "#B5A900")
INK, GREY, RED = "#222222", "#777777", "#C0392B"
DPI = 144
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a dollar sign in a name starts no formula
    "font.family": "DejaVu Sans",  # comes with matplotlib: no figure depends on the fonts of a machine
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def styled() -> Iterator[None]:
    """Set the style, whatever the machine's own matplotlibrc says, and set it back at the end."""
    import matplotlib as mpl

    own: Any = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith(("backend", "savefig.directory"))}
    style: Any = STYLE
    with mpl.rc_context():
        mpl.rcParams.update(own)
        mpl.rcParams.update(style)
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure on the Agg canvas; `heading` adds to its height (inches)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf without dates or versions.

    Raises:
        ArtifactError: a file cannot be written.
    """
    about: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    for suffix, metadata in about.items():
        drawn = io.BytesIO()  # first: on a full disk, matplotlib's PDF writer hides the error behind one of its own
        made.savefig(drawn, format=suffix, dpi=DPI, metadata=metadata)
        with atomic(stem.with_name(f"{stem.name}.{suffix}")) as temporary:
            temporary.write_bytes(drawn.getvalue())


def heading(made: Figure, title: str, note: str = "", legend: Mapping[str, Any] | None = None) -> None:
    """Put a title and a legend (label -> artist) above a figure and a small note below it; the figure grows by what they need."""
    width, height = made.get_size_inches()
    titles = textwrap.wrap(title, int(width * 12)) or [""]
    notes = [line for part in note.split("\n") for line in textwrap.wrap(part, int(width * 17))]
    columns, rows = 1, 0
    if legend:
        columns = max(1, min(len(legend), int(width * 12.5 / (max(map(len, legend)) + 7))))
        rows = -(-len(legend) // columns)
    top = 0.12 + 0.19 * len(titles) + 0.2 * rows
    bottom = 0.1 + 0.14 * len(notes)
    total = height + top + bottom
    made.set_size_inches(width, total)
    made.set_layout_engine("constrained", rect=(0, bottom / total, 1, height / total))
    made.text(0.1 / width, 1 - 0.08 / total, "\n".join(titles), va="top", fontsize=10, fontweight="bold", color=INK)
    made.text(0.1 / width, 0.06 / total, "\n".join(notes), va="bottom", fontsize=6.8, color=GREY)
    if legend:
        anchor = (0.02 / width, 1 - (0.1 + 0.19 * len(titles)) / total)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": anchor, "borderaxespad": 0}
        made.legend(legend.values(), legend.keys(), ncols=columns, labelspacing=0.35, **place)


def shades() -> Colormap:
    """Return the colours of a grid of numbers: from white, the smallest, to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blue", ["#FFFFFF", COLOURS[0]])


def dark(value: float, limits: tuple[float, float]) -> bool:
    """Tell whether a number's shade between these limits is so dark that text on it must be white."""
    return value > limits[0] + 0.6 * (limits[1] - limits[0])
