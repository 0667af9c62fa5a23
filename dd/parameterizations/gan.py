"""Images that a generator makes from features between two of its stages, and from the styles of all: GLaD's latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dd.generators import Generator, from_gan

BOUND = 10.0  # features begin within, as the released code has it


class GanLatent:
    """Features f of a generator at a cut and styles w of every stage are stored; images are what its remaining stages make of them.

    generator: frozen, in eval mode. f: (n, *feature_shape(cut)). ws: (n, num_ws, w_dim). labels: (n,) int64. normalise: from raw units to
    the networks' input space. lr_f, lr_w: rates of the two groups; relative: see `dd.optim.RelativeSGD`. chunk: images decoded at once, a
    memory knob only: each chunk is decoded again when gradients go back through it.

    Differs from the released code: GAN images are normalised with the dataset's own mean and std, where GLaD has another dataset's for
    ImageNet and H-PD none; latents are float32 throughout; one pass with gradients through checkpoints instead of two passes.
    """

    def __init__(
        self, generator: Generator, f: Tensor, ws: Tensor, labels: Tensor, cut: int, normalise: Callable[[Tensor], Tensor],
        *, lr_f: float, lr_w: float, relative: bool, chunk: int,
    ) -> None:  # fmt: skip
        self.generator, self.cut = generator, cut
        self._labels, self._normalise, self._chunk = labels, normalise, chunk
        self._rates, self._relative = (lr_f, lr_w), relative
        self.f = f.detach().clone().requires_grad_(True)
        self.ws = ws.detach().clone().requires_grad_(True)

    def at(self, f: Tensor, ws: Tensor, cut: int) -> GanLatent:
        """Return latents like these with other features and styles, at another cut."""
        rates = {"lr_f": self._rates[0], "lr_w": self._rates[1]}
        return GanLatent(self.generator, f, ws, self._labels, cut, self._normalise, relative=self._relative, chunk=self._chunk, **rates)

    def parameters(self) -> list[dict[str, Any]]:
        """Return a group for f and one for the styles. Styles of stages before the cut have no gradient: nothing of them is seen."""
        both = zip((self.f, self.ws), self._rates, strict=True)
        return [{"params": [latent], "lr": rate, "relative": self._relative} for latent, rate in both]

    def decode(self, index: Tensor) -> Tensor:
        """Return the images at `index`, (m, c, h, w), normalised, differentiable."""
        parts = [self._decode(self.f[part], self.ws[part]) for part in index.split(self._chunk)]
        return self._normalise(from_gan(torch.cat(parts)))

    def _decode(self, f: Tensor, ws: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.generator.decode(f, ws, self.cut)
        made: Tensor = checkpoint(self.generator.decode, f, ws, self.cut, use_reentrant=False)
        return made

    def labels(self, index: Tensor) -> Tensor:
        """Return the labels at `index`, (m,)."""
        return self._labels[index]

    def project_(self) -> None:
        """Do nothing: latents are free."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the latents."""
        return {"f": self.f.detach().clone(), "ws": self.ws.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the latents back, in place, so that the optimizer keeps its hold of them."""
        with torch.no_grad():
            self.f.copy_(state["f"])
            self.ws.copy_(state["ws"])


def bounded(f: Tensor) -> Tensor:
    """Return a copy of features without NaN (0) and infinities (5 in size), clamped to [-10, 10]."""
    return f.detach().nan_to_num(0.0, 5.0, -5.0).clamp(-BOUND, BOUND)


def first_styles(generator: Generator, labels: Tensor, average: int, numbers: torch.Generator) -> Tensor:
    """Return ws (n, num_ws, w_dim) to start from: for each image the mean over `average` draws of w, or with 0 one draw of its own."""
    if average:
        return generator.mean_w(labels, average, numbers)
    with torch.no_grad():
        return generator.map(torch.randn(len(labels), generator.z_dim, generator=numbers).to(labels.device), labels)


def at_cut(generator: Generator, ws: Tensor, cut: int) -> Tensor:
    """Return the features at a cut that styles lead to, bounded."""
    with torch.no_grad():
        return bounded(generator.advance(generator.start(ws), ws, 0, cut))
