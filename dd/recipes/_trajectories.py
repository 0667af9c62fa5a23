"""What MTT and TESLA share: experts, students that start where an expert was, and a step size that is learned beside the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd.config import Frozen
from dd.train.config import Experts, Positive, expert_need

if TYPE_CHECKING:
    from dd.objectives.unroll import Unroll
    from dd.types import Inputs, Need, Run

KEYS = ("syn_steps", "expert_span", "max_start", "lr_img", "lr_lr", "step_size", "batch_syn", "zca")
Row = tuple[int, int, int, float, float, float, int | None, bool]


class Matching(Frozen):
    """Fields of both methods; the defaults are MTT's for CIFAR-10 at 10 images per class, but without whitening.

    iterations: updates of the images. syn_steps: the student's steps in each (N). expert_span: epochs of the expert that they should be
    worth (M). max_start: the student starts at one of the first so many epochs of an expert (T+). lr_img: in normalised (or whitened)
    units. step_size, lr_lr: the student's step size alpha at the start, and the rate at which it is learned; 0 leaves it as it is.
    batch_syn: images of a student's step; null is all. momentum: of images and step size. init: random real images, or N(0, 1) noise.
    strategy: operations of the augmentation; null is the dataset's own (without flip for digits). zca: whitened images instead of
    normalised ones. experts: how they are trained; their `network` is the student's too. steps: numbers of updates after which the set
    is published as well.
    """

    iterations: int = Field(default=5000, ge=0)
    syn_steps: Positive = 30
    expert_span: Positive = 2
    max_start: Positive = 20
    lr_img: float = Field(default=100.0, gt=0)
    lr_lr: float = Field(default=1e-5, ge=0)
    step_size: float = Field(default=0.001, ge=1e-6)
    batch_syn: int | None = Field(default=None, ge=1)
    momentum: float = Field(default=0.5, ge=0, lt=1)
    init: Literal["real", "noise"] = "real"
    augment: Literal["oneof", "none"] = "oneof"
    strategy: str | None = None
    zca: bool = False
    experts: Experts = Field(default=Experts(), validate_default=True)
    steps: tuple[int, ...] = ()

    @field_validator("experts")
    @classmethod
    def _are_trained_for_long_enough(cls, value: Experts, info: ValidationInfo) -> Experts:
        start, span = info.data.get("max_start", 1), info.data.get("expert_span", 1)
        if value.epochs < start - 1 + span:
            raise ValueError(
                f"experts.epochs is {value.epochs}: with max_start {start} and expert_span {span}, experts must be trained for "
                f"{start - 1 + span} epochs or more"
            )
        return value


def nearest_row(table: dict[str, dict[int, Row]], dataset: str, ipc: int) -> dict[str, Any]:
    """Return a table's settings: of the dataset's nearest number of images per class, the smaller of two; see the recipes for others.

    Datasets that no row is about take CIFAR-10's rows, without whitening.
    """
    rows = table.get(dataset, table["cifar10"])
    given = dict(zip(KEYS, rows[min(sorted(rows), key=lambda known: abs(known - ipc))], strict=True))
    if dataset not in table:
        given["zca"] = False
    if dataset == "mini_speech_commands":
        return {**given, "augment": "none", "experts": {"network": "convnet4_in"}}
    return {**given, "experts": {"network": "convnet4_in"}} if dataset in ("tiny_imagenet", "imagenet64") else given


def lineage(config: Matching) -> str:
    """Return how images are normalised."""
    return "zca" if config.zca else "dc"


def needs(config: Matching, dataset: str) -> list[Need]:
    """Return the experts."""
    return [expert_need(config.experts, dataset, lineage(config))]


def work(config: Matching, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two, a second one for four.

    Every student step is taken forward, made again, and differentiated twice; `unroll: full` does not make it again.
    """
    images = classes * ipc if config.batch_syn is None else min(config.batch_syn, classes * ipc)
    each = 7.0 if getattr(config, "unroll", "") == "full" else 10.0
    labelled = float(classes * ipc) if getattr(config, "soft_labels", False) else 0.0
    return {config.experts.network: config.iterations * (config.syn_steps * each * images + labelled)}


def build(config: Matching, inputs: Inputs, unroll: Unroll, *, soft_labels: bool = False) -> Run:
    """Return the run: pixels and a step size, stretches of experts, students that are unrolled, SGD with momentum.

    soft_labels: at every update, all images are labelled by the expert at the end of the stretch.

    Raises:
        ConfigError: soft labels of a network that needs more than a trajectory holds (batch normalisation).
    """
    import torch

    from dd import networks, select
    from dd.augment.policies import make
    from dd.augment.strategies import default_strategy
    from dd.batches import UnrolledBatches
    from dd.errors import ConfigError
    from dd.objectives.trajectory import TrajectoryMatch, target_labels
    from dd.parameterizations.pixels import stored
    from dd.parameterizations.soft_labels import SoftLabels
    from dd.parameterizations.step_size import StepSize
    from dd.rng import stream
    from dd.sources.trajectories import Segment, Trajectories
    from dd.train.functional import Flat
    from dd.types import DistilledSet, Parameterization, Run

    pool, seed, name = inputs.pool(), inputs.seed, config.experts.network
    channels, height, width = inputs.shape
    labels = torch.arange(inputs.classes, device=pool.device).repeat_interleave(inputs.ipc)
    if config.init == "real":
        images = pool.x(select.random(pool.labels.cpu(), inputs.classes, inputs.ipc, stream(seed, "init")).to(pool.device))
    else:
        images = torch.randn(len(labels), *inputs.shape, generator=stream(seed, "noise")).to(pool.device)
    network = Flat(networks.build(name, channels, (height, width), inputs.classes, seed, "student", name).to(pool.device))
    pixels = stored(inputs, images, labels, config.lr_img)
    labelled = SoftLabels(pixels, labels, inputs.classes)
    optimised: Parameterization = labelled if soft_labels else pixels
    learned = StepSize(optimised, config.step_size, config.lr_lr, pool.device)

    def relabel(segment: Segment, shown: torch.Tensor) -> torch.Tensor:
        found = target_labels(segment, shown)
        labelled.assign(found)
        return found

    if soft_labels and network.remembers:
        raise ConfigError(
            f"soft_labels: value true: {name} has running statistics, which trajectories do not hold, so that it cannot label images; "
            "allowed: false, or experts.network without batch normalisation"
        )
    strategy = config.strategy or default_strategy(bool(inputs.manifest["flip"]), "dc", "match", cutmix=False)
    augment = make(inputs.policy(config.augment), strategy, align_corners=True)
    about = {"fingerprint": inputs.manifest["fingerprint"], "network": name, "lineage": lineage(config)}
    source = Trajectories(inputs.paths[0], config.expert_span, config.max_start, seed, network, about, pool.device)
    batches: Any = lambda step: UnrolledBatches(pool, learned, len(labels), augment, config.batch_syn, seed, step)  # noqa: E731
    every = torch.arange(len(labels), device=pool.device)
    return Run(
        parameterization=learned,
        term=TrajectoryMatch(unroll, config.syn_steps, learned.alpha, relabel if soft_labels else None),
        source=source,
        batches=batches,  # without pairs: real images are not looked at
        optimizer=torch.optim.SGD(learned.parameters(), momentum=config.momentum),
        iterations=config.iterations,
        steps=config.steps,
        finish=lambda: DistilledSet(
            pool.normalisation.invert(pixels.decode(every).detach()).cpu(), learned.labels(every).cpu(), *pool.statistics,
            step_size=learned.value, zca=config.zca,
        ),
    )  # fmt: skip
