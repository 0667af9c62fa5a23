r"""Pre-trained models as supervision signals, added to the objective of any method (Lu et al., 2023).

.. math:: S^* = \arg\min_S L(S, T) + \alpha L_{guide}(S)

(equations 5 and 8.) One model is drawn for every update of the images; it looks at all synthetic images, without augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dd.errors import ConfigError
from dd.objectives.distribution import CHUNK, embed_in_chunks
from dd.sources.guides import Guidance, Guides
from dd.train.pretrain import load_network
from dd.types import Inputs, Run

if TYPE_CHECKING:
    from dd.types import Batches


def clom(batches: Batches, model: nn.Module) -> Tensor:
    r"""Return the mean classification loss of all synthetic images under a pre-trained model, a scalar.

    .. math:: L_{CLoM} = \frac{1}{|S|} \sum_i \ell(f(\theta^*; s_i), y_i)

    In pieces of at most 2,560 images, of which the backward pass forwards each again: 5,000 images through a ResNet-18 would not fit.

    Differs from the released code: models are in eval mode, which matters for those with batch normalisation only.
    """
    batch = batches.synthetic()

    def piece(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="sum")

    pieces = list(zip(batch.x.split(CHUNK), batch.y.split(CHUNK), strict=True))
    if len(pieces) == 1:
        return F.cross_entropy(model(batch.x), batch.y)
    losses = [checkpoint(piece, x, y, use_reentrant=False, preserve_rng_state=False) for x, y in pieces]
    return torch.stack(losses).sum() / len(batch.y)


def cclom(batches: Batches, model: nn.Module, size: int) -> Tensor:
    r"""Return the contrastive loss of all synthetic images against `size` real ones under a model of other data, a scalar in [0, 1].

    .. math:: L_{CCLoM} = \frac{\sum_{ij} M_{ij} D_{ij}}{\sum_{ij} D_{ij}}, \qquad
              D_{ij} = 1 - \frac{F(s_i) \cdot F(x_j)}{\|F(s_i)\| \|F(x_j)\|}

    M_ij is 1 where synthetic image i and real image j are of one class (for soft labels: the probability of that class), else 0. The
    gradient goes through the denominator too, which pushes images of different classes apart. Real images are drawn from all classes,
    with replacement; both sides are normalised with the statistics of the set's own dataset.

    Differs from the paper: its equation 7 has another sum over batches, which its algorithm 1 and its code do not; models are in eval
    mode. Norms are at least 1e-12, so that a dead feature vector gives a distance of 1 instead of NaN.
    """
    real = batches.real(size)
    synthetic = batches.synthetic()
    with torch.no_grad():
        target = F.normalize(embed_in_chunks(model, real.x))
    distance = 1 - F.normalize(embed_in_chunks(model, synthetic.x)) @ target.T
    same = synthetic.y[:, real.y] if synthetic.y.ndim == 2 else synthetic.y[:, None] == real.y[None, :]
    return (same * distance).sum() / distance.sum()


class Guided:
    """A method's term plus alpha times its guidance.

    `step` must be set before each call: which model is drawn is a function of it. facts: those of the term, and `guidance`, the loss of
    the guidance before it is weighted.
    """

    def __init__(self, term: Any, guidance: Callable[[Batches, nn.Module], Tensor], guides: Guides) -> None:
        self._term = term
        self._guidance = guidance
        self._guides = guides
        self.step = 0
        self.facts: dict[str, Tensor] = {}

    def __call__(self, batches: Batches, net: Any) -> Tensor:
        """Return the loss of one step, a scalar."""
        loss: Tensor = self._term(batches, net)
        model, alpha = self._guides.draw(self.step)
        guidance = self._guidance(batches, model)
        self.facts = {**getattr(self._term, "facts", {}), "guidance": guidance.detach()}
        return loss + alpha * guidance

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the method's own term remembers: the guidance is a function of (seed, step)."""
        state: dict[str, Tensor] = self._term.state_dict() if hasattr(self._term, "state_dict") else {}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        if hasattr(self._term, "load_state_dict"):
            self._term.load_state_dict(state)


def guided(run: Run, guidance: Guidance, paths: Sequence[Sequence[Path]], inputs: Inputs) -> Run:
    """Return a run whose term has the guidance added; `paths` are the models' files, architecture by architecture.

    Raises:
        ConfigError: the method only selects, or a model takes other images, or (clom) knows other classes.
    """
    if run.term is None or run.batches is None:
        raise ConfigError("guidance: this method selects real images: there is nothing to guide; leave it out")
    make = run.batches
    guides = Guides(paths, lambda path: _fitting(path, guidance, inputs), guidance.alphas, inputs.seed)
    term = Guided(run.term, clom if guidance.kind == "clom" else lambda batches, model: cclom(batches, model, guidance.batch), guides)

    def batches(step: int) -> Batches:
        term.step = step
        return make(step)

    return replace(run, term=term, batches=batches)


def _fitting(path: Path, guidance: Guidance, inputs: Inputs) -> nn.Module:
    """Load a model, and check on an image that it fits."""
    model = load_network(path, inputs.device).eval()
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise ConfigError(f"{path}: this guide diverged in its training; guidance.training.lr: choose a smaller one, or another network")
    try:
        with torch.no_grad():
            classes = model(torch.zeros(1, *inputs.shape, device=inputs.device)).shape[1]
    except RuntimeError as error:
        raise ConfigError(f"{path}: this guide does not take images of {inputs.shape}: {error}") from None
    if guidance.kind == "clom" and classes != inputs.classes:
        raise ConfigError(f"{path}: this guide knows {classes} classes, the set has {inputs.classes}; guidance.kind cclom takes it")
    return model
