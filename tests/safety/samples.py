"""One small sample of every kind of file that the project reads, and the call that reads it.

A reader that is added to the project and has no sample here fails `test_no_pickle.py`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_files import (
    cifar_members,
    encoded,
    some_images,
    tiny_members,
    write_folder,
    write_idx,
    write_mat,
    write_npz,
    write_parquet,
    write_tar,
    write_zip,
)  # fmt: skip
from sound_files import ZIP, members, wav, write_tones, zipped

from dd.artifacts import load_tensors, read_json, read_meta, save_tensors, write_json
from dd.config import load_yaml
from dd.data import clips, imagenet, npz, official, readers, tiny
from dd.data.download import checksum_of
from dd.data.load import load, manifest, normalisation
from dd.data.noted import noted, verified, whole
from dd.data.registry import DATASETS
from dd.train.functional import Flat

WORDS = {"no": 300.0, "yes": 500.0}
WNIDS = ["n04067472", "n01443537"]
FRUIT = replace(DATASETS["imagefruit"], size=(4, 4), train=10**6, smallest_class=1, counted=False, test=10)


@dataclass(frozen=True)
class Sample:
    """make(folder) writes the files; read(folder) reads them all. serves: layouts and kinds of source of which it is a sample.

    refused: it reads all of the file, and then says that it is not the one that is wanted.
    """

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    serves: tuple[str, ...] = ()
    refused: bool = False

    def files(self, folder: Path) -> list[Path]:
        """Return the files of a sample that was made, by name."""
        return sorted(path for path in folder.rglob("*") if path.is_file() and ".resume" not in path.parts)


def _colour(classes: int = 2, size: tuple[int, int] = (8, 6), channels: int = 3):
    return some_images(classes, channels, size)


def _shards(root: Path) -> None:
    for name in (*npz.SHARDS, npz.VAL):
        np.savez_compressed(root / name, data=np.zeros((1, 3072), np.uint8), labels=np.array([1]))


def _imagenet(root: Path) -> None:
    image = encoded(np.zeros((3, 5, 6), np.uint8), "JPEG")
    for split in ("train", "val"):
        for wnid in FRUIT.wnids:
            (root / split / wnid).mkdir(parents=True)
            (root / split / wnid / "a.JPEG").write_bytes(image)


def _unpacked(root: Path) -> None:
    for name, content in tiny_members(WNIDS, 1, 1)[1].items():
        file = root / name.removeprefix(tiny.ROOT)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _prepared(root: Path) -> None:
    """Write a prepared dataset by hand: 2 classes of 2 images of 1x2x2."""
    facts = {"name": "x", "classes": ["a", "b"], "channels": 1, "size": [2, 2], "counts": {"train": [2, 2], "test": [2, 2]},
             "smallest_class": 2, "fingerprint": "f", "flip": True, "lineages": {"dc": {"mean": [0.5], "std": [0.5]}}}  # fmt: skip
    write_json(root / "manifest.json", facts)
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1])
    for split in ("train", "test"):
        save_tensors(root / f"{split}.safetensors", {"images": images, "labels": labels}, {"fingerprint": "f", "split": split})
    save_tensors(root / "holdout.safetensors", {"indices": torch.tensor([0])}, {"fingerprint": "f", "split": "holdout"})
    zca = {"mean": torch.zeros(4), "transform": torch.eye(4), "inverse": torch.eye(4)}
    save_tensors(root / "zca.safetensors", zca, {"fingerprint": "f", "eps": 0.1})


def _read_prepared(root: Path) -> None:
    manifest(root)
    for split in ("train", "test", "holdout", "fit"):
        load(root, split)
    normalisation(root, "zca")


def _distilled(root: Path) -> None:
    from dd.evaluation.io import write_distilled, write_scores
    from dd.types import DistilledSet, Score

    made = DistilledSet(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), torch.zeros(1), torch.ones(1), None, None, {"method": "dm"})
    write_distilled(root / "distilled.safetensors", made)
    write_scores(root / "scores.json", {}, [Score("net", "dc", 0, 0, 0.5, 0.5, [])])
    write_json(root / "config.json", {"stage": "distill"})


def _read_distilled(root: Path) -> None:
    from dd.choose import choose
    from dd.config import digest
    from dd.evaluation.io import check_identity, read_distilled, read_scores

    read_distilled(root / "distilled.safetensors")
    read_scores(root / "scores.json")
    choose({"files": {"1": [str(root / "scores.json")]}, "criterion": "c", "split": "s"}, root / ".resume" / "choice.json")
    check_identity(root / "distilled.safetensors", digest({"stage": "distill"}))


def _network(root: Path) -> None:
    from dd import networks

    net = networks.build("mlp", 1, (2, 2), 2, 0)
    meta = {"config": {"network": "mlp"}, "channels": 1, "size": [2, 2], "classes": 2, "seed": 0}
    save_tensors(root / "seed0.safetensors", {f"model.{key}": value for key, value in net.state_dict().items()}, meta)


def _read_network(root: Path) -> Any:
    from dd.train.pretrain import check_trained, load_network

    check_trained(root / "seed0.safetensors", {"network": "mlp"})
    return load_network(root / "seed0.safetensors")


def _read_generator(root: Path) -> Any:
    from dd.train.gan import load_generator

    return load_generator(root / "seed0.safetensors")


def _rows(root: Path) -> None:
    rows = torch.arange(12.0).view(4, 3)
    sums = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in rows]
    save_tensors(root / "expert0.safetensors", {"trajectory": rows}, {"config": {}, "rows": sums})


def _read_rows(root: Path) -> Any:
    from dd.sources.trajectories import Trajectories

    return Trajectories([root / "expert0.safetensors"], 1, 1, 0, Flat(torch.nn.Linear(2, 1)), {}).draw(0)


def _foreign(root: Path) -> None:
    from safetensors.torch import save_file

    save_file({"fc.bias": torch.zeros(3)}, root / "weights.safetensors")


def _teacher(root: Path) -> Any:
    from dd.teachers import install

    return install("resnet18_tv", root / "weights.safetensors", None, root / ".resume" / "out.safetensors")


def _generator_file(root: Path) -> Any:
    from dd.generators.files import install

    return install("stylegan_xl_128", root / "weights.safetensors", None, root / ".resume" / "out.safetensors")


def _grid(root: Path) -> None:
    from matplotlib.figure import Figure

    Figure().subplots()  # keeps its list of fonts in a folder of the user, once
    (root / "grid.png").write_bytes(encoded(np.zeros((3, 4, 4), np.uint8)))


def _picture(root: Path) -> Any:
    from matplotlib.figure import Figure

    from dd.figures.pictures import _image

    return _image(Figure().subplots(), root / "grid.png")


def _packed(root: Path) -> None:
    from dd.plan.pack import pack

    (root / "from" / "results" / "scores").mkdir(parents=True)
    (root / "from" / "results" / "scores" / "a.json").write_text("{}")
    pack(root / "from", root / "results.tar.gz", (), ())
    (root / "from" / "results" / "scores" / "a.json").unlink()


def _unpack(root: Path) -> Any:
    from dd.plan.pack import unpack

    assert unpack(root / "results.tar.gz", root / ".resume") == 1


def _read_json(root: Path) -> Any:
    return read_json(root / "any.json")


def _digits(root: Path) -> Any:
    from dd.data.digits import digits

    return digits()


def _mini(root: Path) -> None:
    """Put the archive of spoken words beside its note."""
    content = zipped(members(write_tones(root / ".resume", WORDS, 2)))
    (root / ZIP).write_bytes(content)
    (root / f"{ZIP}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {ZIP}\n")


def _read_mini(root: Path) -> Any:
    verified(root / ZIP)
    assert whole(root / ZIP) and noted(root / ZIP) == checksum_of(root / ZIP, "sha256:")
    return clips.speech_zip(root / ZIP, tuple(WORDS))


SAMPLES: dict[str, Sample] = {
    "digits": Sample(lambda root: None, _digits, ("digits",)),
    "idx.gz": Sample(lambda root: write_idx(root, _colour(channels=1)), readers.idx, ("idx", "download")),
    "idx": Sample(lambda root: write_idx(root, _colour(channels=1), packed=False), readers.idx),
    "cifar10": Sample(
        lambda root: write_tar(root / "x.tar.gz", cifar_members(some_images(10, 3, (32, 32), 1, 1), 10)),
        lambda root: official.cifar_binary(root / "x.tar.gz", 10), ("cifar",),
    ),
    "cifar100": Sample(
        lambda root: write_tar(root / "x.tar.gz", cifar_members(some_images(2, 3, (32, 32), 1, 1), 100)),
        lambda root: official.cifar_binary(root / "x.tar.gz", 100),
    ),
    "svhn": Sample(lambda root: write_mat(root, some_images(10, 3, (32, 32), 1, 1)), official.svhn_mat, ("svhn",)),
    "pathmnist": Sample(lambda root: write_npz(root / "pathmnist.npz", some_images(2, 3, (28, 28))), npz.pathmnist, ("pathmnist", "npz")),
    "imagenet32": Sample(_shards, npz.imagenet32, ("imagenet32",)),
    "parquet": Sample(lambda root: write_parquet(root, _colour(), ["a", "b"]), readers.parquet, ("parquet",)),
    "folder": Sample(lambda root: write_folder(root, _colour(), ["a", "b"]), readers.folder, ("folder",)),
    "wav": Sample(lambda root: write_tones(root / "w", WORDS, 2), lambda root: clips.wav_folder(root / "w"), ("wav",)),
    "speech": Sample(_mini, _read_mini, ("speech",)),
    "tiny.zip": Sample(
        lambda root: write_zip(root / "t.zip", tiny_members(WNIDS, 1, 1)[1]), lambda root: tiny.archive(root / "t.zip", 2), ("tiny_imagenet",)
    ),
    "tiny": Sample(_unpacked, lambda root: tiny.folder(root, 2)),
    "imagenet": Sample(_imagenet, lambda root: imagenet.read(root, FRUIT, root / ".resume", "x"), ("imagenet",)),
    "prepared": Sample(_prepared, _read_prepared),
    "distilled": Sample(_distilled, _read_distilled),
    "network": Sample(_network, _read_network),
    "generator": Sample(_network, _read_generator, refused=True),
    "expert": Sample(_rows, _read_rows),
    "teacher": Sample(_foreign, _teacher, refused=True),
    "generator_file": Sample(_foreign, _generator_file, refused=True),
    "tensors": Sample(
        lambda root: save_tensors(root / "a.safetensors", {"x": torch.zeros(2)}, {"k": 1}),
        lambda root: (load_tensors(root / "a.safetensors"), read_meta(root / "a.safetensors")),
    ),
    "picture": Sample(_grid, _picture),
    "json": Sample(lambda root: (root / "any.json").write_text(json.dumps({"a": [1]})), _read_json),
    "yaml": Sample(lambda root: (root / "config.yaml").write_text("scale: demo\n"), lambda root: load_yaml(root / "config.yaml")),
    "packed": Sample(_packed, _unpack),
}  # fmt: skip


def functions_called(run: Callable[[], Any], root: Path) -> set[tuple[str, str]]:
    """Return (file, function) of all code below `root` that a call runs; the file relative to it."""
    seen: set[tuple[str, str]] = set()
    prefix = f"{root}/"

    def profile(frame: Any, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            seen.add((frame.f_code.co_filename[len(prefix) :], frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return seen


def a_wav() -> bytes:
    """Return a short sound."""
    return wav(np.zeros(100))
