"""How figures look, and how they are written: equal content gives equal bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.artifacts import atomic

if TYPE_CHECKING:
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
    """Return an empty figure (inches) on the Agg canvas."""
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
        with atomic(stem.with_name(f"{stem.name}.{suffix}")) as temporary:
            made.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)


def heading(made: Figure, title: str, note: str) -> None:
    """Put a title above and a small note below a figure, both broken to its width."""
    width = made.get_figwidth()
    made.suptitle(textwrap.fill(title, int(width * 13)), x=0.01, ha="left", fontsize=10, fontweight="bold", color=INK)
    if note:
        wrapped = "\n".join(textwrap.fill(line, int(width * 19)) for line in note.split("\n"))
        made.supxlabel(wrapped, x=0.01, ha="left", fontsize=6.8, color=GREY)
