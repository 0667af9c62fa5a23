"""Convert a published StyleGAN-XL generator (a pickle) to a file that Distillery reads. See docs/generators.md.

Run it in an environment in which the authors' code works; it imports torch, numpy and that code, and nothing of Distillery:

    python convert_stylegan_xl.py imagenet128.pkl imagenet128.safetensors --code PATH/TO/stylegan-xl

Unpickling runs whatever code the pickle holds: convert only files that you trust. Python 3.8 and newer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

KIND = "stylegan_xl"
LAYER = (
    "in_channels", "out_channels", "in_size", "out_size", "conv_kernel", "up_factor", "down_factor", "up_taps", "down_taps", "padding",
    "is_torgb", "conv_clamp", "affine", "weight", "bias", "up_filter", "down_filter", "magnitude_ema",
)  # fmt: skip
INPUT = ("size", "sampling_rate", "bandwidth", "affine", "weight", "freqs", "phases")
MAPPING = ("embed", "embed_proj", "fc0", "w_avg")
LINEAR = ("weight", "bias", "weight_gain", "bias_gain", "activation")


class Unexpected(Exception):
    """The generator is not what this script knows; the message says where."""


def unpickle(path: str, code: str) -> Any:
    """Return G_ema of the pickle, by the authors' own loader."""
    sys.path.insert(0, code)
    try:
        import legacy  # of the authors' code
    except ImportError as error:
        raise Unexpected(f"--code {code}: cannot import the authors' legacy.py ({error}); give the folder of their code") from error
    with open(path, "rb") as file:
        content = legacy.load_network_pkl(file)
    if "G_ema" not in content:
        raise Unexpected(f"{path}: has no G_ema; it has {', '.join(sorted(map(str, content)))}")
    return content["G_ema"]


def convert(generator: Any, sha256: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, metadata) of the authors' generator; it is run once, so that stages are known by the order of their calls."""
    generator = generator.cpu().float().eval().requires_grad_(False)
    mapping, source, layers, (z, y, ws, features, images) = traced(generator)
    faults: list[str] = []
    tensors: dict[str, Tensor] = {}

    demand(mapping, MAPPING, "the mapping network", faults)
    demand(source, INPUT, "the input", faults)
    for name, layer in layers:
        demand(layer, LAYER, f"layer {name}", faults)
    report(faults)

    classes, w_dim = mapping.w_avg.shape
    embedding = mapping.embed.weight
    if len(embedding) < classes:
        faults.append(f"the mapping network: embed has {len(embedding)} rows for {classes} classes")
    tensors["mapping.embedding"], tensors["mapping.w_avg"] = embedding[:classes], mapping.w_avg
    fold(tensors, "mapping.project", mapping.embed_proj, "lrelu", faults)
    count = 0
    while hasattr(mapping, f"fc{count}"):
        fold(tensors, f"mapping.layers.{count}", getattr(mapping, f"fc{count}"), "lrelu", faults)
        count += 1

    channels = len(source.phases)
    fold(tensors, "input.affine", source.affine, "linear", faults)
    tensors["input.mix"] = source.weight / math.sqrt(channels)
    tensors["input.frequencies"], tensors["input.phases"] = source.freqs, source.phases
    tensors["input.transform"] = getattr(source, "transform", torch.eye(3))

    facts = []
    for k, (name, layer) in enumerate(layers):
        place = f"stages.{k}"
        fold(tensors, f"{place}.affine", layer.affine, "linear", faults)
        tensors[f"{place}.weight"], tensors[f"{place}.bias"] = layer.weight, layer.bias
        tensors[f"{place}.magnitude"] = layer.magnitude_ema.reshape(())
        for which in ("up", "down"):
            taps = getattr(layer, f"{which}_filter")
            taps = torch.ones(1) if taps is None else taps
            if taps.ndim != 1:
                faults.append(f"layer {name}: {which}_filter has {taps.ndim} dimensions; radial filters (config R) are not supported")
            tensors[f"{place}.{which}_filter"] = taps
        padding = [int(value) for value in layer.padding]
        if len(padding) != 4 or padding[:2] != padding[2:]:
            faults.append(f"layer {name}: padding {padding}; expected the same for both axes")
        facts.append({
            "name": name, "inputs": int(layer.in_channels), "outputs": int(layer.out_channels),
            "in_size": square(layer.in_size, f"layer {name}: in_size", faults),
            "out_size": square(layer.out_size, f"layer {name}: out_size", faults),
            "kernel": int(layer.conv_kernel), "up": int(layer.up_factor), "down": int(layer.down_factor),
            "up_taps": len(tensors[f"{place}.up_filter"]), "down_taps": len(tensors[f"{place}.down_filter"]),
            "padding": padding[:2], "colours": bool(layer.is_torgb),
            "clamp": None if layer.conv_clamp is None else float(layer.conv_clamp),
        })  # fmt: skip
        if tuple(features[k + 1].shape[1:]) != (facts[-1]["outputs"], facts[-1]["out_size"], facts[-1]["out_size"]):
            faults.append(f"layer {name}: made features {tuple(features[k + 1].shape[1:])}, unlike its out_channels and out_size")

    scales = {float(module.output_scale) for module in generator.modules() if hasattr(module, "output_scale")}
    if len(scales) != 1:
        faults.append(f"output_scale: found {sorted(scales) or 'nowhere'}; expected one value")
    elif not torch.allclose(images, features[-1] * min(scales), rtol=1e-4, atol=1e-4):
        faults.append("the images are not output_scale times what the last layer made")
    faults += [f"{name}: not all numbers are finite" for name, value in tensors.items() if not torch.isfinite(value).all()]
    report(faults)

    tensors = {f"generator.{name}": value.float() for name, value in tensors.items()}
    rms = torch.stack([f.float().square().mean().sqrt() for f in features])
    tensors.update({"check.z": z, "check.y": y, "check.ws": ws.float(), "check.rms": rms, "check.images": images.float()})
    whole = {
        "z_dim": len(mapping.embed_proj.weight), "w_dim": int(w_dim), "classes": int(classes), "embedding": int(embedding.shape[1]),
        "mapping_layers": count, "output_scale": min(scales),
        "input": {
            "channels": channels, "size": square(source.size, "the input: size", faults),
            "sampling_rate": float(source.sampling_rate), "bandwidth": float(source.bandwidth),
        },
        "layers": facts,
    }  # fmt: skip
    report(faults)
    meta: dict[str, Any] = {
        "config": {"stage": "generator", "version": 1, "generator": KIND}, "seed": 0, "channels": facts[-1]["outputs"],
        "size": [facts[-1]["out_size"]] * 2, "classes": int(classes), "source_sha256": sha256, KIND: whole,
    }  # fmt: skip
    return tensors, meta


def traced(generator: Any) -> tuple[Any, Any, list[tuple[str, Any]], tuple[Any, ...]]:
    """Run two samples; return the mapping network, the input, the layers [(name, layer)] as called, and (z, y, ws, features, images)."""
    seen: dict[str, list[Any]] = {"w_avg": [], "freqs": [], "magnitude_ema": []}
    hooks: list[Any] = []
    names: dict[nn.Module, str] = {}

    def remember(kind: str) -> Any:
        return lambda module, given, made: seen[kind].append((module, given, made))

    for name, module in generator.named_modules():
        names[module] = name.split(".")[-1]
        for kind in seen:
            if kind in module._buffers:  # a mapping network, an input, a layer
                hooks.append(module.register_forward_hook(remember(kind)))
    try:
        z_dim, classes = sample_shape(generator)
        z = torch.randn(2, z_dim, generator=torch.Generator().manual_seed(0))
        y = torch.tensor([0, classes - 1])
        with torch.no_grad():
            images = generator(z, torch.nn.functional.one_hot(y, classes).float())
    finally:
        for hook in hooks:
            hook.remove()
    for kind, what in (("w_avg", "mapping networks"), ("freqs", "inputs of Fourier features")):
        if len(seen[kind]) != 1:
            raise Unexpected(f"expected one of its {what} (modules with a buffer {kind}) to be called, found {len(seen[kind])}")
    if not seen["magnitude_ema"]:
        raise Unexpected("no layer (module with a buffer magnitude_ema) was called")
    (mapping, _, ws), (source, first, f0) = seen["w_avg"][0], seen["freqs"][0]
    layers = seen["magnitude_ema"]
    if ws.ndim != 3 or ws.shape[1] != len(layers) + 1:
        raise Unexpected(f"the mapping network makes styles {tuple(ws.shape)} for {len(layers)} layers and the input")
    for k, given in enumerate([first] + [given[1:] for _, given, _ in layers]):
        if not given or not torch.equal(given[0].float(), ws[:, k].float()):
            reader = f"the layer called as number {k - 1}" if k else "the input"
            raise Unexpected(f"{reader} does not read style {k}")
    chain = [f0] + [made for _, _, made in layers]
    for k, (_, given, _) in enumerate(layers):
        if not torch.equal(given[0].float(), chain[k].float()):
            raise Unexpected(f"the layer called as number {k} does not read what the one before it made")
    return mapping, source, [(names[layer], layer) for layer, _, _ in layers], (z, y, ws, chain, images)


def sample_shape(generator: Any) -> tuple[int, int]:
    """Return (z_dim, number of classes), from the shapes of a mapping network's tensors."""
    found = {m for m in generator.modules() if "w_avg" in m._buffers}
    if not found:
        raise Unexpected("no module has a buffer w_avg: this is no generator with a mapping network")
    shapes: set[tuple[int, int]] = set()
    for mapping in found:
        faults: list[str] = []
        demand(mapping, MAPPING, "the mapping network", faults)
        report(faults)
        if mapping.w_avg.ndim != 2:
            raise Unexpected(f"w_avg has shape {tuple(mapping.w_avg.shape)}; StyleGAN-XL keeps one row for each class")
        shapes.add((mapping.embed_proj.weight.shape[0], mapping.w_avg.shape[0]))
    if len(shapes) != 1:
        raise Unexpected(f"it has several mapping networks, of (z, classes) {sorted(shapes)}")
    return shapes.pop()


def demand(module: Any, names: tuple[str, ...], what: str, faults: list[str]) -> None:
    """Note the attributes that are not there."""
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        faults.append(f"{what} ({type(module).__name__}) lacks {', '.join(missing)}; it has {', '.join(own(module))}")


def own(module: Any) -> list[str]:
    """Return the names of a module's attributes, buffers, parameters and modules, for messages."""
    groups = (module._buffers, module._parameters, module._modules)
    return sorted({name for name in vars(module) if not name.startswith("_")} | {name for group in groups for name in group})


def fold(tensors: dict[str, Tensor], place: str, linear: Any, activation: str, faults: list[str]) -> None:
    """Put a linear layer's weights and bias at `place`, with the gains of its equalised learning rate applied."""
    before = len(faults)
    demand(linear, LINEAR, place, faults)
    if len(faults) > before:
        return
    if linear.activation != activation:
        faults.append(f"{place}: activation {linear.activation!r}; expected {activation!r}")
    tensors[f"{place}.weight"] = linear.weight * float(linear.weight_gain)
    zeros = torch.zeros(len(linear.weight))
    tensors[f"{place}.bias"] = zeros if linear.bias is None else linear.bias * float(linear.bias_gain)


def square(size: Any, what: str, faults: list[str]) -> int:
    """Return the side of a square given as one number or two."""
    sides = {int(side) for side in np.asarray(size).reshape(-1)}
    if len(sides) != 1:
        faults.append(f"{what}: value {size}; only squares are supported")
    return min(sides)


def report(faults: list[str]) -> None:
    """Raise what was found, if anything."""
    if faults:
        raise Unexpected("\n".join(faults))


def write(path: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a safetensors file whose metadata have the facts and a digest of the content, as dd.artifacts reads it."""
    arrays = {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in tensors.items()}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}  # numpy makes (1,) of ()
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}:{tensors[name].dtype}:{shapes[name]}\n".encode())
        digest.update(arrays[name].tobytes())
    text = json.dumps({"meta": meta, "sha256": digest.hexdigest()}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    header: dict[str, Any]
    header, end = {"__metadata__": {"dd": text}}, 0
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in order:
        start, end = end, end + arrays[name].nbytes
        kind = {"float32": "F32", "int64": "I64"}[arrays[name].dtype.name]
        header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    temporary = f"{path}.part"
    with open(temporary, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            file.write(arrays[name].tobytes())
    os.replace(temporary, path)


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pickle", help="the published file, such as imagenet128.pkl")
    parser.add_argument("out", help="the .safetensors file to write")
    parser.add_argument("--code", required=True, help="folder of the authors' code (the one with legacy.py)")
    options = parser.parse_args()
    try:
        digest = hashlib.sha256()
        with open(options.pickle, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        tensors, meta = convert(unpickle(options.pickle, options.code), digest.hexdigest())
        write(options.out, tensors, meta)
    except (Unexpected, OSError) as error:
        sys.exit(f"{options.pickle}: {error}\nNothing was written.")
    for k, layer in enumerate(meta[KIND]["layers"]):
        print(f"stage {k:2d}  {layer['name']:16s} {layer['outputs']:5d} x {layer['out_size']} x {layer['out_size']}")
    print(f"{options.out}: {len(meta[KIND]['layers'])} stages, {meta['classes']} classes, source sha256 {meta['source_sha256']}")


if __name__ == "__main__":
    main()
