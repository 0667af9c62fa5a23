r"""DSDM: diversified semantic distribution matching for dataset distillation (Li et al., ACM MM 2024).

Ten networks are trained on the real data for 20 epochs. In each of 10,000 rounds one of them is drawn, and for each class mean
(prototype) and covariance of the features of the decoded synthetic images are pulled to those of a batch of real images under the
same augmentation, and the mean also to an average h over the rounds before:

.. math:: L = \sum_c \| \mu_{T,c} - \mu_{S,c} \|^2 + \frac{\lambda_1}{d} \| Cov_{T,c} - Cov_{S,c} \|_F^2
          + \lambda_2 \| \mu_{S,c} - h_c \|^2, \qquad h_c \leftarrow \alpha h_c + (1 - \alpha) \mu_{S,c}

(equations 4 to 9). h moves after the update, to the prototypes of the updated images. Images are stored and stepped as IDC does:
four training images in each stored one, pixels in [0, 1], one step a class with shared momentum.

The paper's text and the released code disagree; the field `variant` chooses, and decides all of the following and nothing else:

======================================  =====================  ==========================================================
what                                    `variant: paper`       `variant: code` (default)
======================================  =====================  ==========================================================
covariance of n features divided by     n                      n - 1
L_h, the part with h                    as above               divided by d as well (2,048 for ConvNet-3 on 32x32 images)
L_h acts                                from the second round  after round `history_start`, counted from 0 (2,000)
h after the first round                 0                      the prototypes
image lr, where `lr_img` is null        0.1                    0.1 * ipc/10 * (size/base)^2; base 28 for MNIST, 64 for
                                                               speech, 16 for digits, 32 for all else
======================================  =====================  ==========================================================

At the first round (t = 1) equation 6 asks for h^(0), which the paper does not define: there is no L_h in it, in either variant.
Equation 8 then sets h^(1) = 0, so that `paper` pulls the prototypes of the second round to zero, and for some hundred rounds to a
vector that is too short (there is no correction of the average's start); this is what is printed. In `code`, dividing by d makes L_h
2,048 times weaker than printed (a weight of 1e-4). `code` is the default because the published numbers came from a program, and
the released one is the only complete account of it.

Differs from the paper, in both variants, as the released code does: pixels in [0, 1] with IDC's augmentation (colour, crop and
cutout), steps class by class, and IDC's way of storing four images, where the text says that DM's configuration is followed and
refers to IDM; the first images of each class at the start (`init: random` for the text's random ones). The text wants a memory bank
"for each pre-trained model", equations 6 to 8 and the code have one h a class for all of them, and so has this. The text's
"covariance of only one distilled instance cannot be estimated" is an error here, not NaN: with factor 2 there are four.

Differs from the code: real images are independent draws for each round, where the code sweeps each class before it repeats; digits,
which the authors do not have, are their own base. The pool is the same for all sets.

The paper's ablation: `extractor.epochs: 0` is a random network in every round instead of the pool (no switch in the released code),
`covariance: false` and `history: false` drop the second and the third part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dd.errors import ConfigError
from dd.recipes._idc import Factored, assemble, decoded, images, special
from dd.sources import extractor as extractors
from dd.sources.extractor import Extractor
from dd.train.config import Policy, Share, Training

if TYPE_CHECKING:
    from dd.types import Inputs, Need, Run

LINEAGE = "idc"
BASE = {"mnist": 28, "mini_speech_commands": 64, "digits": 16}  # sides at which the code's rule leaves the rate alone; else 32


class Pretraining(Training):
    """Training of the pool: IDC's augmentation without cutout, in whose place there is CutMix."""

    augment: Policy = "stack"
    cutmix: Share = 0.5


class Pool(Extractor):
    """The pre-trained networks; fields are those of `Extractor`. epochs: 0 is a random network in every round."""

    epochs: int = Field(default=20, ge=0)
    pool: int = Field(default=10, ge=1)
    training: Pretraining = Pretraining()


class Config(Factored):
    """Fields of DSDM, beyond those of `Factored`; the defaults are the authors'.

    variant: whose reading, see the table above. lr_img: in units of stored pixels, [0, 1] from black to white; null is the
    variant's rule. extractor: the pool. covariance, history: whether L_SD and L_h are there; lambda1, lambda2: their weights.
    alpha: of the average h. history_start: the round, counted from 0, after which L_h acts in the variant `code`.
    """

    variant: Literal["paper", "code"] = "code"
    lr_img: float | None = Field(default=None, gt=0)  # type: ignore[assignment]  # a number again before the run is assembled
    extractor: Pool = Pool()
    covariance: bool = True
    history: bool = True
    lambda1: float = Field(default=50.0, ge=0)
    lambda2: float = Field(default=0.2, ge=0)
    alpha: float = Field(default=0.99, ge=0, lt=1)
    history_start: int = Field(default=2000, ge=0)


def defaults(dataset: str, ipc: int) -> dict[str, Any]:
    """Return the authors' settings; for speech, for which they released none, IDC's: no augmentation and ConvNet-4."""
    if dataset == "mini_speech_commands":
        return {**special(dataset), "extractor": {"network": "convnet4_in", "training": {"augment": "none", "cutmix": 0.0}}}
    return special(dataset)


def needs(config: Config, dataset: str) -> list[Need]:
    """Return the pool."""
    return extractors.needs(config.extractor, dataset, LINEAGE)


def work(config: Config, classes: int, train: int, ipc: int) -> dict[str, float]:
    """Return how many images' forward passes the run costs, by network; a backward pass counts for two."""
    total = images(config, classes, ipc)
    if config.history:
        total += config.iterations * classes * min(decoded(config, ipc), config.batch_syn_max)
    if config.extractor.mode == "dynamic" and config.extractor.supply == "literal":
        total += config.iterations * config.extractor.epochs * train * 3.0
    return {config.extractor.network: total}


def rate(config: Config, dataset: str, ipc: int, size: tuple[int, int]) -> float:
    """Return the image lr: the configured one, or the variant's; size: (h, w) of an image."""
    if config.lr_img is not None:
        return config.lr_img
    return 0.1 if config.variant == "paper" else 0.1 * ipc / 10 * size[0] * size[1] / BASE.get(dataset, 32) ** 2


def reading(config: Config) -> dict[str, Any]:
    """Return what the variant says of the loss: arguments of `SemanticMatch`."""
    if config.variant == "paper":
        return {"unbiased": False, "per_feature": False, "start": 0, "first": "zeros"}
    return {"unbiased": True, "per_feature": True, "start": config.history_start, "first": "prototypes"}


def build(config: Config, inputs: Inputs) -> Run:
    """Return the run.

    Raises:
        ConfigError: a class has fewer than two images, so that it has no covariance.
    """
    from dd.objectives.covariance import SemanticMatch

    if config.covariance:
        _check(config, inputs)
    term = SemanticMatch(
        inputs.classes,
        lambda1=config.lambda1,
        lambda2=config.lambda2,
        alpha=config.alpha,
        covariance=config.covariance,
        history=config.history,
        **reading(config),
    )
    lr = rate(config, inputs.manifest["name"], inputs.ipc, inputs.shape[1:])
    return assemble(
        config.model_copy(update={"lr_img": lr}),
        inputs,
        term,
        extractors.source(config.extractor, inputs),
        after=term.remember if config.history else None,
    )


def _check(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError where a covariance would be of a single image."""
    for key, count, remedy in (
        ("batch_syn_max", config.batch_syn_max, "batch_syn_max to 2 or more"),
        (f"factor {config.factor} at ipc {inputs.ipc}", decoded(config, inputs.ipc), "factor (or ipc) to 2 or more"),
        ("batch_real", config.batch_real, "batch_real to 2 or more"),
        ("smallest class", inputs.pool().smallest, "a dataset with more of each class"),
    ):
        if count < 2:
            raise ConfigError(f"dsdm: {key}: {count} image a class has no covariance; set {remedy}, or covariance to false")
