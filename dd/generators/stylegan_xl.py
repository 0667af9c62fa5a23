"""StyleGAN-XL (Sauer et al., SIGGRAPH 2022) behind the interface of `dd.generators.Generator`, from a file that its user converted.

The published generators are pickles of the authors' classes. This project unpickles nothing and has none of their code: a script
(docs/convert_stylegan_xl.py) that the user runs once, beside the authors' code, writes tensors and the facts of the architecture
as a file of ours, and the network is built from that file alone. So the generator of ImageNet at 128 pixels (K = 26 stages), that of
CIFAR-10, and a tiny one in a test are the same code.

w = M(z, y) by two linear layers; stage k is layer L_k with the style w_{k+1}, counted by position; the input of stage 0 are Fourier
features that w_0 turns and moves. There are no skip connections and no noise, so that one tensor f is all that stands at a cut. At cut
K, f is the image before `output_scale`, which only `decode` applies.

It is no family of `dd.generators` (it has no NAME): such are built untrained by name, and trained by `dd.train.gan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dd.artifacts import load_tensors
from dd.config import parse
from dd.errors import ArtifactError, ConfigError
from dd.generators._alias_free import Facts, Input, Layer, Mapping
from dd.generators._layers import Staged

KIND = "stylegan_xl"  # of a file: metadata config.generator, and the key of the facts
PREFIX = "generator."
CLOSE = 1e-3  # of images in about [-1, 1]: far above float32's rounding, far below what any mistake makes
SHOWN = 4  # tensors that a message names


class StyleGANXL(Staged):
    """The generator; a `dd.generators.Generator`, where the methods' shapes stand. Its weights are zeros until they are loaded."""

    mapping: Mapping

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts = facts
        self.z_dim, self.w_dim, self.classes = facts.z_dim, facts.w_dim, facts.classes
        self.channels, self.size = facts.layers[-1].outputs, (facts.layers[-1].out_size,) * 2
        self.mapping = Mapping(facts)
        self.input = Input(facts)
        self.stages = nn.ModuleList(Layer(layer, facts.w_dim) for layer in facts.layers)
        first = (facts.input.channels, facts.input.size, facts.input.size)
        self.shapes = [first, *((layer.outputs, layer.out_size, layer.out_size) for layer in facts.layers)]
        self.num_stages, self.num_ws = len(self.stages), len(self.stages) + 1

    @torch.no_grad()
    def stored_mean_w(self, y: Tensor) -> Tensor:
        """Return ws (n, num_ws, w_dim) from the average w of each class that the training kept: what `mean_w` estimates, for nothing."""
        return self._everywhere(self.mapping.w_avg[y])

    def start(self, ws: Tensor) -> Tensor:
        """Return f0 (n, channels, size, size): the Fourier features of w_0."""
        f: Tensor = self.input(ws[:, 0])
        return f

    def decode(self, f: Tensor, ws: Tensor, cut: int) -> Tensor:
        """Return images of f at `cut`, not clamped; of f at cut K, output_scale f."""
        return super().decode(f, ws, cut) * self.facts.output_scale


def load(path: Path | str, device: str = "cpu", classes: Sequence[int] | None = None) -> StyleGANXL:
    """Return the generator of a converted file, float32, in eval mode, without gradients of its weights.

    Args:
        classes: the generator's class that each label of a dataset means: its label i becomes classes[i], such as the ImageNet number
            of a subset's class i. None: the labels are the generator's own.

    Raises:
        ArtifactError: missing, damaged, or not a converted StyleGAN-XL.
        ConfigError: `classes` is empty, or has a number that the generator does not know, or one twice.
    """
    return from_tensors(*load_tensors(path), path, classes).to(device).eval()


def from_tensors(tensors: dict[str, Tensor], meta: dict[str, Any], path: Path | str, classes: Sequence[int] | None = None) -> StyleGANXL:
    """Return the generator that `load_tensors` read from `path`, with frozen weights; `classes` as of `load`.

    Raises:
        ArtifactError: other metadata than the conversion writes, facts that contradict each other, or tensors that do not fit them.
        ConfigError: as `load`.
    """
    config = meta.get("config")
    kind = config.get("generator") if isinstance(config, dict) else None
    if kind != KIND or KIND not in meta:
        raise ArtifactError(
            f"{path}: is not a converted StyleGAN-XL (config.generator is {kind!r}, expected {KIND!r}); see docs/generators.md"
        )
    try:
        facts = parse(Facts, meta[KIND], f"{path}: {KIND}")
    except ConfigError as error:
        raise ArtifactError(f"{error}; convert it again, as docs/generators.md shows") from None
    if faults := facts.faults():
        raise ArtifactError("\n".join(f"{path}: {KIND}: {fault}" for fault in faults) + "; convert it again, as docs/generators.md shows")
    with torch.device("meta"):
        net = StyleGANXL(facts)
    given = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    expected = net.state_dict()
    shapes = {
        name: f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}" for name, value in expected.items() if name in given
    }
    wrong = {
        "missing": sorted(set(expected) - set(given)),
        "unknown": sorted(set(given) - set(expected)),
        "of another shape": [text for name, text in shapes.items() if given[name].shape != expected[name].shape],
        "not of float32": [f"{name} ({given[name].dtype})" for name in shapes if given[name].dtype != torch.float32],
    }
    if not any(wrong.values()):
        wrong["not finite"] = [name for name in shapes if not given[name].isfinite().all()]
    if complaints := [f"{what}: {_some(names)}" for what, names in wrong.items() if names]:
        raise ArtifactError(f"{path}: does not fit its own facts; tensors {'; tensors '.join(complaints)}; convert it again")
    net.load_state_dict(given, assign=True)
    if classes is not None:
        wrong_ids = [c for at, c in enumerate(classes) if not 0 <= c < net.classes or c in classes[:at]]
        if wrong_ids or not classes:
            raise ConfigError(f"{path}: classes: value {wrong_ids}; allowed: 0 to {net.classes - 1}, each once, at least one")
        rows, own = torch.tensor(list(classes)), net.mapping
        own.embedding, own.w_avg = nn.Parameter(own.embedding.detach()[rows]), own.w_avg[rows]
        net.classes = len(classes)
    return net.requires_grad_(False)


@torch.no_grad()
def check(path: Path | str, device: str = "cpu") -> dict[str, float]:
    """Compare our generator with what the authors' code made when the file was converted, and return the largest differences.

    The file has z, labels, ws, the root mean square of f at every cut and images of two samples, from the authors' code in float32.

    Returns:
        ws, rms, images: largest absolute differences; those of ws and rms are relative to the largest value and to each value.

    Raises:
        ArtifactError: as `load`, no samples in the file, or a difference above 1e-3: the message has the first cut that differs.
    """
    tensors, meta = load_tensors(path)
    net = from_tensors(tensors, meta, path).to(device).eval()
    if missing := [name for name in ("z", "y", "ws", "rms", "images") if f"check.{name}" not in tensors]:
        raise ArtifactError(f"{path}: has no samples to compare with (check.{missing[0]} is missing); convert it again")
    z, y, ws, rms, images = (tensors[f"check.{name}"].to(device) for name in ("z", "y", "ws", "rms", "images"))
    f, seen = net.start(ws), []
    for cut in range(net.num_ws):
        f = net.advance(f, ws, cut - 1, 1) if cut else f
        seen.append(f.square().mean().sqrt())
    apart = (torch.stack(seen) - rms).abs() / rms.clamp(min=1e-8)
    ws_apart = (net.map(z, y) - ws).abs().max() / ws.abs().max()
    result = {"ws": float(ws_apart), "rms": float(apart.max()), "images": float((net.decode(f, ws, net.num_stages) - images).abs().max())}
    if not all(value <= CLOSE for value in result.values()):  # a NaN is no match either
        first = next((f"; features differ from cut {cut} on" for cut, value in enumerate(apart.tolist()) if not value <= CLOSE), "")
        numbers = ", ".join(f"{key} {value:.2g}" for key, value in result.items())
        raise ArtifactError(f"{path}: the samples of the authors' code are not reproduced: {numbers}; allowed: {CLOSE:g}{first}")
    return result


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
