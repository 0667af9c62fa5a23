"""The nouns that everything else is written in. Imports no torch: the workflow reads this file too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dd.data.pool import RealPool

N = TypeVar("N")
Seen = TypeVar("Seen", contravariant=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and labels.

    x: (n, c, h, w) in the networks' input space; y: (n,) int64 class ids, or (n, k) probabilities.
    """

    x: Tensor
    y: Tensor


class Network(Protocol):
    """What every module in `dd.networks` offers."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage, in order; the last one, flattened, is what the head sees."""

    def embed(self, x: Tensor) -> Tensor:
        """Return (n, d), the input of the last layer."""

    def rear(self, h: Tensor, after: int) -> Tensor:
        """Return (n, k) logits from the output `h` of stage `after` on: `rear(stages(x)[i], i) == forward(x)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, k) logits."""


class Parameterization(Protocol):
    """Turns stored numbers into images."""

    def parameters(self) -> list[dict[str, Any]]:
        """Return optimizer groups, each with its own lr."""

    def decode(self, index: Tensor) -> Tensor:
        """Return images, differentiably; m >= 1 per stored index, index-major."""

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels that line up with `decode(index)`."""

    def project_(self) -> None:
        """Put the numbers back into the feasible set; called at the start of a step."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""


class Source(Protocol[N]):
    """Hands out the networks (or stretches of an expert's training) that a term looks through."""

    def draw(self, step: int) -> N:
        """Return the network of this step."""

    def advance(self, net: N, batches: Batches) -> None:
        """Train, age or retire networks after an update, or do nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that a resumed run needs beyond (seed, step)."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""


class Augment(Protocol):
    """A random transformation whose randomness is drawn apart from being applied."""

    def draw(self, generator: torch.Generator, groups: int, shape: tuple[int, int, int], *, shared: bool) -> Any:
        """Return parameters for `groups` groups (one per class, or one for a mini-batch) of (c, h, w) images."""

    def apply(self, x: Tensor, params: Any, group: Tensor) -> Tensor:
        """Return (n, c, h, w) images transformed with the parameters of their groups; draws nothing."""


class Batches(Protocol):
    """All that one update may look at."""

    def pair(self, net: Any = None) -> tuple[Batch, Batch]:
        """Return class-aligned (synthetic, real) batches under one augmentation."""

    def synthetic(self, n: int | None = None) -> Batch:
        """Return n synthetic images, or all, un-augmented."""

    def real(self, n: int) -> Batch:
        """Return n real images drawn uniformly, un-augmented."""


class Term(Protocol[Seen]):
    """Looks at one update's batches through one network and returns a scalar."""

    def __call__(self, batches: Batches, net: Seen) -> Tensor:
        """Return the scalar whose `.backward()` is the method's gradient."""


@dataclass(frozen=True)
class Need:
    """Something that must exist before a stage can run; the plan turns it into ids and paths.

    kind: pretrained | experts | teacher | generator | distilled.
    dataset: which images; of a teacher, where it was trained, in words.
    config: the hashed configuration of what is needed (for `pretrained`: the training).
    seeds: which seeds of it; None means "the seed of the set that asks", one apiece.
    epochs: which epoch milestones.
    lineage: whose mean and std the images are normalised with ("dc" or "idc"; they differ for CIFAR-100), or "zca" for whitened ones.
    split: "train", or "fit" without the held-out tenth.
    """

    kind: str
    dataset: str
    network: str
    config: dict[str, Any]
    seeds: tuple[int, ...] | None
    epochs: tuple[int, ...]
    lineage: str = "dc"
    split: str = "train"


@dataclass
class DistilledSet:
    """What distillation hands to evaluation, and all that it hands over.

    images: (n, c, h, w) float32; [0, 1] is black to white, values outside are allowed where a method does not clamp.
    labels: (n,) int64, or (n, k) probabilities. mean, std: (c,), the normalisation that networks expect.
    indices: for methods that select, the positions in the prepared train split.
    step_size: a learned rate for the student's training, or None.
    stored: (m, c, h, w) what is counted and kept where m stored images are decoded to n > m; None where they are the images.
    zca: networks expect whitened images instead of normalised ones (see `dd.data.whiten`); mean and std are then 0 and 1.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    indices: Tensor | None = None
    step_size: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    stored: Tensor | None = None
    zca: bool = False


@dataclass
class Score:
    """One evaluation network trained on one set.

    Accuracies are fractions in [0, 1] on the test split. `accuracy_last` is the result; `accuracy_best_on_test` is the
    largest of the test readings that the protocol makes, which is what some papers print. status: ok | diverged.
    """

    network: str
    protocol: str
    set: int
    net: int
    accuracy_last: float
    accuracy_best_on_test: float
    per_class: list[float]
    status: str = "ok"
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """A distillation ready to be descended: what a recipe's `build` returns.

    finish: returns the set as it stands. All else is None for methods that only select.
    batches: makes the batches of a step. optimizer: made from the parameterization's groups. steps: numbers of updates after
    which the set is published beside the final one. after: called after every update with its batches and network, before the
    source advances: for terms that remember. done: tells, before a step, that the method is finished before `iterations`.
    spaces: numbers of updates after which the parameterization goes to another space, by `hand_over`; `renew` makes the optimizer of
    its groups as they then are, and after a resume.
    """

    finish: Callable[[], DistilledSet]
    parameterization: Parameterization | None = None
    term: Term[Any] | None = None
    source: Source[Any] | None = None
    batches: Callable[[int], Batches] | None = None
    optimizer: torch.optim.Optimizer | None = None
    iterations: int = 0
    steps: tuple[int, ...] = ()
    after: Callable[[Batches, Any], None] | None = None
    done: Callable[[], bool] | None = None
    spaces: tuple[int, ...] = ()
    hand_over: Callable[[], None] | None = None
    renew: Callable[[], torch.optim.Optimizer] | None = None


@dataclass(frozen=True)
class Inputs:
    """What a recipe's `build` is given: the prepared dataset, the files of its needs, and the seed of this set.

    manifest: the dataset's manifest (classes, channels, size, lineages, flip, ...). paths: one list of files for each Need, in order.
    parameterize: makes what is optimised, from the labels (n,) of the stored images; None is pixels (`dd.parameterizations.pixels.stored`).
    pool: returns the real train split, normalised for the recipe's lineage, on the device; made on first use.
    """

    dataset: Path
    manifest: dict[str, Any]
    ipc: int
    seed: int
    device: str
    paths: list[list[Path]]
    pool: Callable[[], RealPool]
    parameterize: Callable[[Tensor], Parameterization] | None = None

    def policy(self, wanted: str) -> str:
        """Return the augmentation policy: `wanted`, or none where the dataset says that its images must not be augmented (sounds)."""
        return wanted if self.manifest.get("augment", True) else "none"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.manifest["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return (self.manifest["channels"], *self.manifest["size"])
