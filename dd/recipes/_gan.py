"""What GLaD and H-PD share: the objective of another method, whose images a generator makes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd import recipes
from dd.config import Frozen, hashed, merged, parse
from dd.train.gan_config import GanTraining
from dd.types import Need

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dd.generators import Generator as Network
    from dd.types import Inputs, Parameterization, Run


class Generator(Frozen):
    """The generator: its name, how many epochs of its training it has behind it, and that training."""

    name: str = "mini"
    epochs: int = Field(default=40, ge=0)
    training: GanTraining = GanTraining()


class Latents(Frozen):
    """Fields of both methods.

    iterations: updates. base: the method whose objective is descended. settings: its own fields; those that are not given are its
    defaults for the dataset and the images per class (`complete`). What it says of pixels (lr_img, init, momentum) means nothing here.
    lr_w, lr_f: of styles and of features. rates: `relative`, the part of its norm that each moves by in the first update (see
    `dd.optim.RelativeSGD`), or `absolute`, as published for StyleGAN-XL. average: draws of w that every image's first styles are the
    mean of; 0 is one draw for each image. chunk: images that the generator makes at once. steps: numbers of updates after which the
    set is published as well.
    """

    iterations: int = Field(default=1000, ge=0)
    base: Literal["dm", "dc", "dsa", "mtt", "tesla"] = "dm"
    settings: dict[str, Any] = Field(default={}, validate_default=True)
    generator: Generator = Generator()
    lr_w: float = Field(default=0.005, gt=0)
    lr_f: float = Field(default=0.02, gt=0)
    rates: Literal["relative", "absolute"] = "relative"
    momentum: float = Field(default=0.5, ge=0, lt=1)
    average: int = Field(default=1000, ge=0)
    chunk: int = Field(default=10, ge=1)
    steps: tuple[int, ...] = ()

    @field_validator("settings")
    @classmethod
    def _are_the_bases(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        base, iterations = info.data.get("base"), info.data.get("iterations")
        if base is None or iterations is None:
            return value  # what is wrong is said of them
        return hashed(parse(recipes.load(base).Config, {**value, "iterations": iterations, "steps": []}, base))


def complete(fields: dict[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """Return a recipe's fields with the defaults that the base method has for a dataset and a number of images per class."""
    base = recipes.load(fields.get("base", "dm"))
    known = {key: value for key, value in getattr(base, "defaults", lambda dataset, ipc: {})(dataset, ipc).items() if key != "iterations"}
    return {**fields, "settings": merged(known, fields.get("settings", {}))}


def lineage(config: Latents) -> str:
    """Return how images are normalised: as the base method has it."""
    base, settings = _base(config)
    return recipes.lineage_of(base, settings)


def needs(config: Latents, dataset: str) -> list[Need]:
    """Return what the base method needs, and the generator."""
    base, settings = _base(config)
    one = config.generator
    return [*base.needs(settings, dataset), Need("generator", dataset, one.name, hashed(one.training), (0,), (one.epochs,))]


def work(config: Latents, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes of networks the run costs; those of the generator are not counted."""
    base, settings = _base(config)
    counted: dict[str, float] = base.work(settings, classes, train, ipc)
    return counted


def assembled(config: Latents, inputs: Inputs, parameterize: Callable[[Network, Tensor], Parameterization]) -> Run:
    """Return the base method's run on what `parameterize` makes of the generator and the labels of the stored images."""
    from dd.artifacts import read_meta
    from dd.errors import ArtifactError
    from dd.optim import RelativeSGD
    from dd.train.gan import load_generator

    base, settings = _base(config)
    count = len(base.needs(settings, inputs.manifest["name"]))
    own, (file,) = inputs.paths[:count], inputs.paths[count]
    found = read_meta(file).get("fingerprint")
    if found != inputs.manifest["fingerprint"]:
        raise ArtifactError(f"{file}: was trained on other images (fingerprint {found!r}); train the generator again")
    generator = load_generator(file, inputs.device)
    run: Run = base.build(settings, replace(inputs, paths=own, parameterize=lambda labels: parameterize(generator, labels)))
    assert run.parameterization is not None
    renew = lambda: RelativeSGD(run.parameterization.parameters(), config.momentum)  # noqa: E731
    return replace(run, optimizer=renew(), renew=renew, steps=config.steps)


def _base(config: Latents) -> tuple[Any, Any]:
    base = recipes.load(config.base)
    return base, parse(base.Config, config.settings, config.base)
