"""What paper files, scale files and config.yaml may say, checked strictly and all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dd.config import Frozen, load_yaml, parse
from dd.errors import ConfigError, nearest

# Key columns of reported/*.csv, and the configuration key that each one sets. A paper file may add its own.
AXES = {
    "dataset": "dataset",
    "ipc": "ipc",
    "method": "method",
    "extractor": "recipe.extractor.network",
    "extractor_mode": "recipe.extractor.mode",
    "extractor_epochs": "recipe.extractor.epochs",
    "eval_network": "network",
    "eval_protocol": "protocol.name",
}
WHOLE = ("dataset", "ipc", "method", "network", "protocol.name", "sets", "nets", "step")  # keys outside of the parts
PARTS = ("recipe", "protocol", "guidance")

Scalar = str | int | float | bool | None
REPEATS = 1000  # sets, networks or seeds of one thing: more would be a slip, and a plan that no memory holds
NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # of a paper, a scale, a table or a figure: it becomes a file, and a rule of the workflow


class Override(Frozen):
    """Values for the points whose `at` contains `when`. set: configuration key -> value."""

    when: dict[str, Scalar | tuple[Scalar, ...]]
    set: dict[str, Any]


class Artifact(Frozen):
    """One table or figure: its points, and how it is drawn.

    matrix: axis -> values; every combination is a point. include: extra matrices, each of which replaces axes of the first.
    exclude: points that contain all of these are left out. overrides: after the paper's own. use: take the points of these other
    artifacts instead. pending: axis -> value -> reason: points that cannot be made yet; they keep their places in the table, with
    what is printed for them. A value that stands in the matrix too has its place there, else it comes last on its axis.
    reported: artifacts of reported/*.csv whose rows stand beside the cells, the first before the others; none is that of the
    artifact's own name. One that is named here may hold what other papers print. ratio: show n * classes / |train| in a table.
    axis: places of x in a line: even, or by its numbers; of the loss in `losses`, if it is logarithmic.
    baseline: which points the others are measured against, by coordinates; null: those without one. A point's baseline is the one all of
    whose coordinates it has. A line draws it as a dotted line. gain: a table says how much each point is above its baseline. mean_gain:
    coordinates over which the mean of that goes. reading: of what accuracies by class are in kind `classes`: of networks trained on the
    set, or of the distilled images under pre-trained networks (`analysis` of kind accuracy).
    means: coordinate -> its value -> the values that it is the mean of: cells that differ in nothing else stand once more, as one.
    Everything else is for the drawing (see `dd.figures`).
    """

    title: str
    kind: str
    matrix: dict[str, tuple[Scalar, ...]] = {}
    include: tuple[dict[str, tuple[Scalar, ...]], ...] = ()
    exclude: tuple[dict[str, Scalar | tuple[Scalar, ...]], ...] = ()
    overrides: tuple[Override, ...] = ()
    every_method: bool = False
    use: tuple[str, ...] = ()
    pending: dict[str, dict[str, str]] = {}
    analysis: dict[str, Any] | None = None
    chosen: dict[str, str] = {}
    absent: str | None = None
    note: str = ""
    x: str | None = None
    hue: tuple[str, ...] = ()
    panel: tuple[str, ...] = ()
    label: str | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    ratio: bool = False
    axis: Literal["even", "linear", "log"] = "even"
    baseline: dict[str, Scalar] = {}
    gain: bool = False
    mean_gain: tuple[str, ...] = ()
    reading: Literal["trained", "pretrained"] = "trained"
    fields: dict[str, Any] = {}
    groups: dict[str, str] = {}
    means: dict[str, dict[str, tuple[Scalar, ...]]] = {}


class Defaults(Frozen):
    """Settings of a whole paper. recipe, protocol, guidance: name (of guidance: its kind) -> fields."""

    sets: int = Field(default=5, ge=1, le=REPEATS)
    nets: int = Field(default=5, ge=1, le=REPEATS)
    recipe: dict[str, dict[str, Any]] = {}
    protocol: dict[str, dict[str, Any]] = {}
    guidance: dict[str, dict[str, Any]] = {}


class Paper(Frozen):
    """A file of workflow/papers. chosen: what the paper does not state, with the reason for our value.

    axes: axis -> the configuration key that it sets; null is a name only, for overrides to give it a meaning.
    at: constant coordinates of every point. copy: coordinates that equal another. implied: coordinates that follow from others,
    unless the matrix gives them; their values may name other coordinates in braces. printed: coordinate -> its value -> how
    reported/*.csv writes it. spread: which spread the paper prints (over all networks, over sets, or over the networks of one set).
    milestones: epochs at which pre-training is published. quality: how generators are measured where it is not the usual way (fields of
    `dd.analysis.gan_config.Quality`); two papers that share a generator must agree.
    claims: whether reported/claims.yaml has claims of this paper. caveats: what a reader of its record must know.
    """

    paper: str
    title: str
    authors: str = ""
    spread: str = "all"
    milestones: tuple[int, ...] = ()
    quality: dict[str, Any] = {}
    defaults: Defaults = Defaults()
    axes: dict[str, str | None] = {}
    translate: dict[str, dict[str, Scalar]] = {}
    at: dict[str, Scalar] = {}
    copy_: dict[str, str] = Field(default={}, alias="copy")
    implied: tuple[Override, ...] = ()
    printed: dict[str, dict[str, Scalar]] = {}
    overrides: tuple[Override, ...] = ()
    chosen: dict[str, str] = {}
    claims: bool = True
    caveats: str = ""
    artifacts: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Artifact]


class Keep(Frozen):
    """A subset of axes, for the artifacts of one paper. points: axis -> values that stay."""

    paper: str
    artifacts: tuple[str, ...] = ()
    points: dict[str, tuple[Scalar, ...]] = {}


class Block(Frozen):
    """How many seeds one job makes."""

    seeds: int = Field(default=5, ge=1, le=REPEATS)
    nets: int = Field(default=5, ge=1, le=REPEATS)


class Scale(Frozen):
    """A file of workflow/scales.

    map: axis kind -> value -> value. cap: configuration key -> largest value, also of a list's values. leave_out: paper -> artifacts that
    are not made, since nothing of them is cheap enough.
    """

    scale: str
    title: str
    notes: str = ""
    keep: tuple[Keep, ...] = ()
    map: dict[str, dict[str, Scalar]] = {}
    cap: dict[str, float | int] = {}
    leave_out: dict[str, tuple[str, ...]] = {}
    block: Block = Block()


class WeightsFile(Frozen):
    """A file that the user got and converted (see docs/teachers.md and docs/generators.md). sha256: of that file; absent: not checked."""

    path: Annotated[str, Field(pattern=r"^[^{}\x00-\x1f]+$")]  # braces would be wildcards to the workflow
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class Settings(Frozen):
    """config.yaml: all that a user edits. leave_out: paper -> artifacts that are not made, for want of data or weights.

    teachers, generators: name -> file. strict: no set is distilled through a generator that is below a gate (see `dd.analysis.gates`);
    otherwise its results have a warning. track_code: a changed line of code runs what it concerns again; while false, it reruns nothing.
    Neither is part of any id.
    """

    scale: str
    papers: tuple[str, ...]
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    sets: int | None = Field(default=None, ge=1, le=REPEATS)
    nets: int | None = Field(default=None, ge=1, le=REPEATS)
    datasets: dict[str, Any] = {}
    teachers: dict[str, WeightsFile] = {}
    generators: dict[str, WeightsFile] = {}
    strict: bool = False
    track_code: bool = True
    leave_out: dict[str, tuple[str, ...]] = {}


def load_settings(path: Path) -> Settings:
    """Read config.yaml.

    Raises:
        ConfigError: see `dd.config.parse`.
    """
    return parse(Settings, load_yaml(path), str(path))


def load_scale(folder: Path, name: str, where: str) -> Scale:
    """Read workflow/scales/{name}.yaml, or say which scales there are.

    Raises:
        ConfigError: no such scale, or the file is wrong.
    """
    path = _named(folder / "scales", name, f"{where}: scale")
    scale = parse(Scale, load_yaml(path), str(path))
    if scale.scale != name:
        raise ConfigError(f"{path}: scale: value {scale.scale!r} is not the file's name; allowed: {name!r}")
    allowed = {"dataset", "network", "ipc", "protocol"}
    for kind in scale.map:
        if kind not in allowed:
            raise ConfigError(f"{path}: map: unknown kind {kind!r}{nearest(kind, allowed)}")
    return scale


def load_paper(folder: Path, name: str, where: str) -> Paper:
    """Read workflow/papers/{name}.yaml, or say which papers there are.

    Raises:
        ConfigError: no such paper, or the file is wrong.
    """
    path = _named(folder / "papers", name, f"{where}: papers")
    paper = parse(Paper, load_yaml(path), str(path))
    if paper.paper != name:
        raise ConfigError(f"{path}: paper: value {paper.paper!r} is not the file's name; allowed: {name!r}")
    return paper


def paper_names(folder: Path) -> list[str]:
    """Return the names of all paper files."""
    return sorted(path.stem for path in (folder / "papers").glob("*.yaml"))


def _named(folder: Path, name: str, where: str) -> Path:
    path = folder / f"{name}.yaml"
    names = [file.stem for file in folder.glob("*.yaml")]
    if name not in names:
        raise ConfigError(f"{where}: value {name!r}: no such file {path}{nearest(name, names)}")
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{path}: must be called by letters, digits, _ and -, at most 64 of them: results are called so too")
    return path


def without(paper: Paper, left_out: Iterable[str], where: str, reason: str = "left out in config.yaml") -> Paper:
    """Return a paper some of whose artifacts are not made: they keep their places, empty but for the reason.

    Raises:
        ConfigError: an artifact that the paper does not have.
    """
    names = tuple(left_out)
    for name in names:
        if name not in paper.artifacts:
            raise ConfigError(f"{where}: leave_out.{paper.paper}: no artifact {name!r}{nearest(name, paper.artifacts)}")
    lists = dict.fromkeys(("include", "exclude", "overrides", "use"), ())
    empty: dict[str, Any] = {**lists, "matrix": {}, "pending": {}, "analysis": None, "every_method": False}
    artifacts = {}
    for name, artifact in paper.artifacts.items():
        change: dict[str, Any] = {"use": tuple(other for other in artifact.use if other not in names)}
        if name in names or (artifact.use and not change["use"]):
            change = {**empty, "absent": reason}
        artifacts[name] = artifact.model_copy(update=change)
    return paper.model_copy(update={"artifacts": artifacts})
