"""What GLaD and H-PD share: the objective of another method, whose images a generator makes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dd import recipes
from dd.config import Frozen, hashed, merged, parse
from dd.data.registry import DATASETS
from dd.errors import ConfigError
from dd.generators import files
from dd.generators.depth import STAGES, stages
from dd.recipes import _gan_presets as presets
from dd.train.gan_config import GanTraining
from dd.types import Need

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dd.generators import Generator as Network
    from dd.parameterizations.gan import GanLatent
    from dd.types import Inputs, Parameterization, Run


class Generator(Frozen):
    """The generator: its name, how many epochs of its training it has behind it, and that training.

    One from a file (`stylegan_xl_128`, `stylegan_xl_256`) was trained elsewhere: epochs and training mean nothing to it.
    """

    name: str = "mini"
    epochs: int = Field(default=40, ge=0)
    training: GanTraining = GanTraining()


class Latents(Frozen):
    """Fields of both methods. What is not given depends on the dataset, the base and the generator: `complete` fills it.

    iterations: updates. base: the method whose objective is descended. settings: its own fields; what it says of pixels (lr_img, init,
    momentum) means nothing here. lr_w, lr_f: of styles and of features. rates: `relative`, the part of its norm that each moves by in
    the first update (see `dd.optim.RelativeSGD`), or `absolute`, as published for StyleGAN-XL. average: draws of w that every image's
    first styles are the mean of; 0 is one draw for each image. chunk: images that the generator makes at once.
    """

    iterations: int = Field(default=1000, ge=0)
    base: Literal["dm", "dc", "dsa", "mtt", "tesla", "sre2l"] = "dm"
    settings: dict[str, Any] = Field(default={}, validate_default=True)
    generator: Generator = Generator()
    lr_w: float = Field(default=0.005, gt=0)
    lr_f: float = Field(default=0.02, gt=0)
    rates: Literal["relative", "absolute"] = "relative"
    momentum: float = Field(default=0.5, ge=0, lt=1)
    average: int = Field(default=1000, ge=0)
    chunk: int = Field(default=10, ge=1)

    @field_validator("settings")
    @classmethod
    def _are_the_bases(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        base, iterations = info.data.get("base"), info.data.get("iterations")
        if base is None or iterations is None:
            return value  # what is wrong is said of them
        return hashed(parse(recipes.load(base).Config, {**value, "iterations": iterations, "steps": []}, base))


def complete(fields: dict[str, Any], dataset: str, ipc: int) -> dict[str, Any]:
    """Return a recipe's fields, with those that both methods have and nobody gave; see `dd.recipes._gan_presets`.

    fields: as given; `generator` and `settings` may be given in part. Filled are generator, rates, lr_w, lr_f, average (means over draws
    at one image per class only: images of a class would all begin alike) and settings (the base's defaults, then GLaD's).
    """
    base = str(fields.get("base", "dm"))
    method = recipes.load(base)
    given = fields.get("generator", {})
    name = str(given.get("name", presets.generator_of(dataset)))
    own = {key: value for key, value in getattr(method, "defaults", lambda dataset, ipc: {})(dataset, ipc).items() if key != "iterations"}
    return {
        **presets.rates(base, name, fields.get("rates")),
        "average": presets.AVERAGE if ipc == 1 else 0,
        **fields,
        "generator": merged(presets.generator_fields(name, dataset), given),
        "settings": merged(merged(own, presets.settings(base, dataset)), fields.get("settings", {})),
    }


def lineage(config: Latents) -> str:
    """Return how images are normalised: as the base method has it."""
    base, settings = _base(config)
    return recipes.lineage_of(base, settings)


def needs(config: Latents, dataset: str, cuts: tuple[int, ...]) -> list[Need]:
    """Return what the base method needs, and the generator.

    cuts: that it is entered at.

    Raises:
        ConfigError: the generator does not make such images, or has no such cut, as far as that is known before it is there.
    """
    base, settings = _base(config)
    one = config.generator
    _check(one.name, dataset, cuts)
    return [*base.needs(settings, dataset), Need("generator", dataset, one.name, hashed(one.training), (0,), (one.epochs,))]


def _check(name: str, dataset: str, cuts: tuple[int, ...]) -> None:
    known = DATASETS.get(dataset)
    if name in files.FILES:
        files.check(name, dataset)
    elif known is not None and (known.size[0] not in STAGES or known.size[0] != known.size[1]):
        made, own = ", ".join(f"{side}x{side}" for side in STAGES), "x".join(map(str, known.size))
        raise ConfigError(f"generator.name: value {name!r} makes images of {made} pixels, those of {dataset} are {own}")
    depth = stages(name, known.size[0]) if known is not None else None
    if depth is not None and (wrong := [cut for cut in cuts if cut > depth]):
        raise ConfigError(f"cut: value {', '.join(map(str, wrong))}: {name} has {depth} stages for {dataset}; allowed: 0 to {depth}")


def work(config: Latents, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes of the base's networks the run costs; see `generator_work` for the generator's."""
    base, settings = _base(config)
    counted: dict[str, float] = base.work(settings, classes, train, ipc)
    return counted


def generator_work(config: Latents, classes: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes of the generator the run costs: forth, again from the checkpoint, and back."""
    return {config.generator.name: 3.0 * config.iterations * classes * ipc}


def assembled(config: Latents, inputs: Inputs, parameterize: Callable[[Network, Tensor], Parameterization], steps: tuple[int, ...]) -> Run:
    """Return the base method's run on what `parameterize` makes of the generator and the labels of the stored images.

    steps: numbers of updates after which the set is published as well.

    Raises:
        ArtifactError: a generator that was trained here, but on other images.
    """
    from dd.artifacts import read_meta
    from dd.errors import ArtifactError
    from dd.optim import RelativeSGD
    from dd.train.gan import load_generator

    base, settings = _base(config)
    count = len(base.needs(settings, inputs.manifest["name"]))
    own, (file,) = inputs.paths[:count], inputs.paths[count]
    if config.generator.name not in files.FILES and (found := read_meta(file).get("fingerprint")) != inputs.manifest["fingerprint"]:
        raise ArtifactError(f"{file}: was trained on other images (fingerprint {found!r}); train the generator again")
    generator = load_generator(file, inputs.device, classes=files.classes_of(config.generator.name, inputs.manifest["name"]))
    run: Run = base.build(settings, replace(inputs, paths=own, parameterize=lambda labels: parameterize(generator, labels)))
    assert run.parameterization is not None
    renew = lambda: RelativeSGD(run.parameterization.parameters(), config.momentum)  # noqa: E731
    return replace(run, optimizer=renew(), renew=renew, steps=steps)


def entered(config: Latents, inputs: Inputs, generator: Network, labels: Tensor, cut: int) -> GanLatent:
    """Return the latents at a cut that every run of either method with these settings and this seed begins with."""
    from dd.parameterizations.gan import GanLatent, at_cut, first_styles
    from dd.rng import stream

    ws = first_styles(generator, labels, config.average, stream(inputs.seed, "latents"))
    return GanLatent(
        generator, at_cut(generator, ws, cut), ws, labels, cut, inputs.pool().normalisation.apply,
        lr_f=config.lr_f, lr_w=config.lr_w, relative=config.rates == "relative", chunk=config.chunk,
    )  # fmt: skip


def _base(config: Latents) -> tuple[Any, Any]:
    base = recipes.load(config.base)
    return base, parse(base.Config, config.settings, config.base)
