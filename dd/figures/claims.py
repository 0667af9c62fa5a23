"""Claims as data: what workflow/reported/claims.yaml may say, checked strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from dd.config import Frozen, load_yaml, parse
from dd.errors import ConfigError, nearest
from dd.figures.reported import COLUMNS

Scalar = str | int | float
# Coordinates that no reported file has, but that papers claim something of.
SWEPT = (
    "step", "factor", "lambda1", "lambda2", "form", "alpha", "choice", "class", "lr", "front", "rear", "zca", "base", "space", "selection",
    "generator_epochs",
)  # fmt: skip
Measure = Literal[
    "accuracy", "spread_ratio", "loss_variation", "feature_distance", "class_accuracy", "distance_correlation", "correlation_gap",
    "seconds_ratio",
]  # fmt: skip


def _column(name: str) -> str:
    if name not in (*COLUMNS, *SWEPT):
        raise ValueError(f"unknown column {name!r}{nearest(name, (*COLUMNS, *SWEPT))}")
    return name


def _listed(value: Any) -> Any:
    """Take one mapping for a list of one, and one value for a list of one."""
    maps = [value] if isinstance(value, dict) else value
    if not isinstance(maps, (list, tuple)) or not maps:
        raise ValueError("must be a mapping of columns to values, or a list of such mappings")
    return tuple(
        {name: tuple(item) if isinstance(item, (list, tuple)) else (item,) for name, item in one.items()} if isinstance(one, dict) else one
        for one in maps
    )


Column = Annotated[str, AfterValidator(_column)]
Selector = Annotated[
    tuple[dict[Column, Annotated[tuple[Scalar, ...], Field(min_length=1)]], ...], BeforeValidator(_listed)
]  # a union of products of values


class Leaf(Frozen):
    """What all checks have. over: columns; the check must hold for each combination. chosen: why a number of ours is what it is."""

    over: tuple[Column, ...] = ()
    chosen: str | None = None
    left: Selector

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors, in the order in which its decision takes their cells."""
        return (self.left,)


class Greater(Leaf):
    """greater: the largest of left exceeds the largest of right by more than margin; all_greater: each of left, each of right.

    A margin below 0 says by how much left may be lower.
    """

    kind: Literal["greater", "all_greater"]
    right: Selector
    margin: float = 0.0

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors."""
        return (self.left, self.right)


class SomeGreater(Leaf):
    """Of the cells of left, at least one exceeds the cell of right that agrees with it in `pair`, by more than margin."""

    kind: Literal["some_greater"]
    right: Selector
    pair: Annotated[tuple[Column, ...], Field(min_length=1)]
    margin: float = Field(default=0.0, ge=0)

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors."""
        return (self.left, self.right)


class Gain(Frozen):
    """Another gain to compare with: mean of left minus mean of right."""

    left: Selector
    right: Selector


class MeanGain(Leaf):
    """The mean of left minus the mean of right is more than margin, or than the gain `exceeds` plus margin; a margin may be below 0."""

    kind: Literal["mean_gain"]
    right: Selector
    margin: float = 0.0
    exceeds: Gain | None = None

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors."""
        return (self.left, self.right, *((self.exceeds.left, self.exceeds.right) if self.exceeds else ()))


class LargestGain(Leaf):
    """Of all gains of a cell of left over the cell of right that agrees with it in `pair`, the largest is that of the cell `value`."""

    kind: Literal["largest_gain"]
    right: Selector
    pair: Annotated[tuple[Column, ...], Field(min_length=1)]
    value: Annotated[dict[Column, Scalar], Field(min_length=1)]

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors."""
        return (self.left, self.right)


class Increasing(Leaf):
    """Left rises with every step of `along`; with p, the rank correlation is positive at that level instead."""

    kind: Literal["increasing"]
    along: Column
    p: float | None = Field(default=None, gt=0, lt=1)


class Uncorrelated(Leaf):
    """The rank correlation of left with `along` is not significant at level p."""

    kind: Literal["uncorrelated"]
    along: Column
    p: float = Field(gt=0, lt=1)


class Within(Leaf):
    """Left differ from each other, or from right, by at most max(margin, sigmas * pooled standard deviation)."""

    kind: Literal["within"]
    right: Selector | None = None
    margin: float = Field(default=0.0, ge=0)
    sigmas: float = Field(default=0.0, ge=0)

    def sides(self) -> tuple[Selector, ...]:
        """Return its selectors."""
        return (self.left,) if self.right is None else (self.left, self.right)

    @model_validator(mode="after")
    def _some(self) -> Within:
        if not self.margin and not self.sigmas:
            raise ValueError("within needs a margin or sigmas above 0")
        return self


class ArgMax(Leaf):
    """Left is largest where `along` equals value, and second largest where it equals `second`."""

    kind: Literal["argmax"]
    along: Column
    value: Scalar
    second: Scalar | None = None


class BestDiffers(Leaf):
    """Which value of `along` left is largest at is not the same for every value of `across`."""

    kind: Literal["best_differs"]
    along: Column
    across: Column


class Limit(Leaf):
    """Each of left is at most (at least) value, in percent."""

    kind: Literal["at_most", "at_least"]
    value: float


class Diverges(Leaf):
    """Every run of left diverged, or is not above value (chance, in percent)."""

    kind: Literal["diverges"]
    value: float | None = None


AnyLeaf = Annotated[
    Greater | SomeGreater | MeanGain | LargestGain | Increasing | Uncorrelated | Within | ArgMax | BestDiffers | Limit | Diverges,
    Field(discriminator="kind"),
]


def _outside(leaves: tuple[AnyLeaf, ...], name: str) -> None:
    if any(leaf.over for leaf in leaves):
        raise ValueError(f"over belongs beside {name}, not inside it")


class Joint(Frozen):
    """All of these hold, for each combination of `over`: together they are one comparison."""

    over: tuple[Column, ...] = ()
    all: tuple[AnyLeaf, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _checked(self) -> Joint:
        _outside(self.all, "all")
        return self


class Each(Frozen):
    """Each of these holds, for each combination of `over` that it has cells of: every one is a comparison of its own."""

    over: tuple[Column, ...] = ()
    each: tuple[AnyLeaf, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _checked(self) -> Each:
        _outside(self.each, "each")
        return self


def _form(value: Any) -> str:
    for name, form in (("all", Joint), ("each", Each)):
        if isinstance(value, form) or (isinstance(value, dict) and name in value):
            return name
    return "leaf"


class Claim(Frozen):
    """A claim of a paper. artifact: where the paper makes it; cells: artifacts whose cells it is judged on, if those are others.

    measure: which number of a cell: its accuracy, or one of its analysis (see `dd.figures.measures`).
    """

    id: str
    paper: str
    artifact: str
    claim: str
    reported_numbers: str
    cells: tuple[str, ...] = ()
    measure: Measure = "accuracy"
    note: str = ""
    check: Annotated[Annotated[AnyLeaf, Tag("leaf")] | Annotated[Joint, Tag("all")] | Annotated[Each, Tag("each")], Discriminator(_form)]

    def groups(self) -> tuple[tuple[AnyLeaf, ...], ...]:
        """Return the checks that it consists of, those together that must hold together."""
        if isinstance(self.check, Each):
            return tuple((leaf,) for leaf in self.check.each)
        return (self.check.all,) if isinstance(self.check, Joint) else ((self.check,),)

    def leaves(self) -> tuple[AnyLeaf, ...]:
        """Return the checks that it consists of."""
        return tuple(leaf for group in self.groups() for leaf in group)

    def artifacts(self) -> tuple[str, ...]:
        """Return the artifacts whose cells it is judged on."""
        return self.cells or (self.artifact,)


class Listed(Frozen):
    """A table or figure of a paper. absent: why nothing is drawn for it, where nothing is."""

    paper: str
    name: str
    title: str
    absent: str | None = None


class Claims(Frozen):
    """The whole file."""

    artifacts: tuple[Listed, ...]
    claims: tuple[Claim, ...]

    def of(self, paper: str) -> tuple[list[Listed], list[Claim]]:
        """Return the artifacts and the claims of one paper."""
        return [one for one in self.artifacts if one.paper == paper], [one for one in self.claims if one.paper == paper]


def load_claims(path: Path) -> Claims:
    """Read claims.yaml.

    Raises:
        ConfigError: missing, an unknown key, kind or column, a wrong type, an id used twice, or an artifact that is not listed.
    """
    claims = parse(Claims, load_yaml(path), str(path))
    names = {(one.paper, one.name) for one in claims.artifacts}
    seen: set[str] = set()
    for claim in claims.claims:
        if claim.id in seen:
            raise ConfigError(f"{path}: claims: id {claim.id!r} is used twice")
        seen.add(claim.id)
        for name in (claim.artifact, *claim.artifacts()):
            if (claim.paper, name) not in names:
                known = [other for paper, other in names if paper == claim.paper]
                raise ConfigError(f"{path}: claims: {claim.id}: unknown artifact {name!r}{nearest(name, known)}")
    return claims
