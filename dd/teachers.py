"""Frozen networks from files that others trained: which there are, and how their weights become a checkpoint of ours.

Importing this imports no torch: plans are checked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd.errors import ConfigError, DataError, nearest
from dd.weights import WeightsOf

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 3
COUNTER = "num_batches_tracked"  # of a batch norm; older files lack it, and evaluation does not look at it
SHOWN = 4  # tensors that a message names


@dataclass(frozen=True)
class Teacher:
    """A published network.

    network: its name in `dd.networks`. size: (height, width) of the images that it was trained on, in pixels; 3 channels.
    classes: of its head; 0 where it was not trained to classify: its head is then one logit that is always 0.
    file: where to get the weights, for messages. modules: names of modules in the file -> in our network; the last part of a tensor's
    name is the same in both. prefix: only tensors of the file whose name starts with it belong to the network.
    """

    network: str
    size: tuple[int, int]
    classes: int
    file: str
    modules: Mapping[str, str]
    prefix: str = ""


def _resnet18() -> dict[str, str]:
    """Names of torchvision, and ours in `dd.networks.resnet18_torchvision`."""
    names = {"conv1": "blocks.0.0", "bn1": "blocks.0.1", "fc": "head"}
    for block in range(8):
        theirs, ours = f"layer{block // 2 + 1}.{block % 2}", f"blocks.{block + 1}"
        names |= {f"{theirs}.conv{n}": f"{ours}.conv{n}" for n in (1, 2)} | {f"{theirs}.bn{n}": f"{ours}.norm{n}" for n in (1, 2)}
        if block in (2, 4, 6):
            names |= {f"{theirs}.downsample.{n}": f"{ours}.shortcut.{n}" for n in (0, 1)}
    return names


def _clip_rn50() -> dict[str, str]:
    """Names of CLIP, and ours in `dd.networks.clip_rn50`."""
    names = {f"visual.conv{n}": f"blocks.0.{3 * n - 3}" for n in (1, 2, 3)} | {f"visual.bn{n}": f"blocks.0.{3 * n - 2}" for n in (1, 2, 3)}
    block = 0
    for group, count in enumerate((3, 4, 6, 3), start=1):
        for number in range(count):
            block += 1
            theirs, ours = f"visual.layer{group}.{number}", f"blocks.{block}"
            names |= {f"{theirs}.conv{n}": f"{ours}.conv{n}" for n in (1, 2, 3)} | {f"{theirs}.bn{n}": f"{ours}.norm{n}" for n in (1, 2, 3)}
            if number == 0:
                names |= {f"{theirs}.downsample.{n}": f"{ours}.shortcut.{n}" for n in (0, 1)}
    block += 1
    names["visual.attnpool"] = f"blocks.{block}"  # its positional_embedding
    return names | {f"visual.attnpool.{part}_proj": f"blocks.{block}.{part}_proj" for part in "qkvc"}


TEACHERS: dict[str, Teacher] = {
    "resnet18_tv": Teacher(
        network="resnet18_tv_bn",
        size=(224, 224),
        classes=1000,
        file="torchvision's ResNet-18, IMAGENET1K_V1: https://download.pytorch.org/models/resnet18-f37072fd.pth",
        modules=_resnet18(),
    ),
    "clip_rn50": Teacher(
        network="clip_rn50_bn",
        size=(224, 224),
        classes=0,
        file="OpenAI's CLIP, RN50.pt: https://openaipublic.azureedge.net/clip/models/"
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt, "
        "or a safetensors copy of it with the same names of tensors",
        modules=_clip_rn50(),
        prefix="visual.",
    ),
}


def install(name: str, source: Path | None, sha256: str | None, out: Path) -> None:
    """Write the teacher `name` as a checkpoint that `dd.train.pretrain.load_network` reads.

    Weights become float32 (CLIP's are published in half precision). `load_network` returns networks in training mode; call `eval()`,
    so that batch norms use the statistics of the data that the teacher was trained on.

    Args:
        source: a .safetensors file with the tensors' original names; null where there is none.
        sha256: of that file, as 64 hex digits; None accepts any.
        out: where the checkpoint goes. Its metadata have the source's sha256.

    Raises:
        ConfigError: an unknown teacher, no file, one that is not there or would have to be unpickled, or a malformed sha256.
        DataError: damaged, of another sha256, or tensors that are missing, unknown, of another shape or type, or not finite.
        ArtifactError: `out` cannot be written.
    """
    if name not in TEACHERS:
        raise ConfigError(f"teachers: no teacher {name!r}{nearest(name, TEACHERS)}")
    path, found = WeightsOf("teachers", "teacher", name, TEACHERS[name].file, "docs/teachers.md").checked(source, sha256)

    from dd.artifacts import save_tensors

    teacher = TEACHERS[name]
    tensors = _converted(_read(path, teacher.prefix), teacher, path)
    meta: dict[str, Any] = {
        "config": {"stage": "teacher", "version": 1, "teacher": name, "network": teacher.network},
        "seed": 0, "channels": CHANNELS, "size": list(teacher.size), "classes": max(1, teacher.classes), "source_sha256": found,
    }  # fmt: skip
    save_tensors(out, {f"model.{key}": value for key, value in tensors.items()}, meta)


def _read(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name starts with `prefix`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged or not a safetensors file ({error}); get or convert it again") from error


def _converted(given: dict[str, Tensor], teacher: Teacher, path: Path) -> dict[str, Tensor]:
    """Return the weights under our names, every one of them and nothing else."""
    import torch

    from dd import networks

    with torch.device("meta"):  # only names, shapes and types are wanted
        expected = networks.build(teacher.network, CHANNELS, teacher.size, max(1, teacher.classes)).state_dict()
    theirs = {ours: module for module, ours in teacher.modules.items()}
    weights: dict[str, Tensor] = {}
    wrong: dict[str, list[str]] = {"missing": [], "of another shape": [], "not of floating-point numbers": [], "not finite": []}
    for key, wanted in expected.items():
        module, _, leaf = key.rpartition(".")
        if module == "head" and not teacher.classes:
            weights[key] = torch.zeros(wanted.shape)
            continue
        name = f"{theirs[module]}.{leaf}"
        value = given.pop(name, None)
        if leaf == COUNTER:
            weights[key] = torch.zeros((), dtype=torch.int64)  # whatever the file has: one file with it, one without are one teacher
        elif value is None:
            wrong["missing"].append(name)
        elif value.shape != wanted.shape:
            wrong["of another shape"].append(f"{name} {tuple(value.shape)} instead of {tuple(wanted.shape)}")
        elif not value.is_floating_point():
            wrong["not of floating-point numbers"].append(f"{name} ({value.dtype})")
        elif not weights.setdefault(key, value.float()).isfinite().all():
            wrong["not finite"].append(name)
    wrong["unknown"] = sorted(given)
    if complaints := [f"{what}: {_some(names)}" for what, names in wrong.items() if names]:
        raise DataError(f"{path}: is not the file of {teacher.network}; tensors {'; tensors '.join(complaints)}. Expected {teacher.file}")
    return weights


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
