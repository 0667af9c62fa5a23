"""The `datasets` section of config.yaml. Read by the workflow: imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dd.config import Frozen, parse
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest

# Of a folder that the user has. Control characters would be seen by nobody, braces are wildcards to the workflow.
FolderName = Annotated[str, Field(pattern=r"^[^{}\x00-\x1f]+$")]


class FromDownload(Frozen):
    """The official files."""

    kind: Literal["download"] = "download"


class FromDigits(Frozen):
    """The handwritten digits inside scikit-learn."""

    kind: Literal["digits"] = "digits"


class FromParquet(Frozen):
    """A folder with train.parquet or train-*.parquet, and the same for test, in the Hugging Face layout."""

    kind: Literal["parquet"]
    path: FolderName


class FromFolder(Frozen):
    """A folder with train/CLASS/* and test/CLASS/*; of tiny_imagenet also the unpacked archive."""

    kind: Literal["folder"]
    path: FolderName


class FromIdx(Frozen):
    """A folder of idx files under MNIST's names, plain or .gz."""

    kind: Literal["idx"]
    path: FolderName


class FromWav(Frozen):
    """A folder with CLASS/*.wav; every eighth file of a class, in the order of names, is test."""

    kind: Literal["wav"]
    path: FolderName


class FromNpz(Frozen):
    """A folder with the official .npz files: pathmnist.npz, or train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz."""

    kind: Literal["npz"]
    path: FolderName


class FromImagenet(Frozen):
    """A folder with ImageNet's train/WNID/* and val/WNID/*."""

    kind: Literal["imagenet"]
    path: FolderName


SourceConfig = Annotated[
    FromDownload | FromDigits | FromParquet | FromFolder | FromIdx | FromWav | FromNpz | FromImagenet, Field(discriminator="kind")
]
NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # of a dataset
IMAGES = ("parquet", "folder", "idx")
KINDS = ("download", "digits", *IMAGES, "wav", "npz", "imagenet")
# What a registered dataset may come from, by layout, where it is not a download or anybody's images.
_KINDS = {
    "digits": ("digits", *IMAGES),
    "speech": ("download", "wav"),
    "pathmnist": ("download", "npz", *IMAGES),
    "imagenet32": ("npz",),
    "imagenet": ("imagenet",),
    "tiny_imagenet": ("download", "parquet", "folder"),
}


class DatasetConfig(Frozen):
    """Where a dataset comes from, and what a registered one knows by itself.

    mean, std: one number a channel, in raw units ([0, 1] for images); absent: computed from train. flip: whether a mirrored image is
    still of its class; absent: yes, but for sounds no. Registered datasets have all three in the registry. fingerprint: pins the
    prepared set (64 hex digits); `prepare` refuses any other.
    """

    source: SourceConfig
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    flip: bool | None = None
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


def default(name: str) -> DatasetConfig:
    """Return where a registered dataset comes from if nobody says otherwise.

    Of one without downloads `prepare` says how to get it: papers that use it can be planned without it.
    """
    return DatasetConfig(source=FromDigits() if name == "digits" else FromDownload())


def load_datasets(section: Mapping[str, Any], where: str) -> dict[str, DatasetConfig]:
    """Return the configuration of every registered dataset and of those in `section`.

    Args:
        section: the `datasets` mapping.
        where: the file and key it came from, such as "config.yaml: datasets".

    Raises:
        ConfigError: an unknown key or kind; a dataset that is not registered and has no path of its own; a value that is fixed
            in the registry.
    """
    configs = {name: default(name) for name in DATASETS}
    for name, data in section.items():
        configs[name] = _load(str(name), data, f"{where}.{name}")
    return configs


def _load(name: str, data: Any, where: str) -> DatasetConfig:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{where}: a dataset's name is letters, digits, _ and -, at most 64 of them (it becomes a folder)")
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: value {data!r}: must be keys and values, such as {{source: {{kind: ..., path: ...}}}}")
    source = data.get("source")
    if name in DATASETS and source is None and default(name).source.kind in kinds(name):
        data = {**data, "source": default(name).source.model_dump()}
    elif not isinstance(source, Mapping):
        wrong = "is missing" if source is None else f"value {source!r}"
        kind = kinds(name)[0] if name in DATASETS and len(kinds(name)) == 1 else "..."
        raise ConfigError(f"{where}: source: {wrong}: write {{kind: {kind}, path: ...}}")
    elif source.get("kind") not in KINDS:
        raise ConfigError(f"{where}: source.kind: value {source.get('kind')!r}{nearest(source.get('kind'), KINDS)}")
    config = parse(DatasetConfig, data, where)
    kind = config.source.kind
    if name not in DATASETS:
        if kind not in (*IMAGES, "wav"):
            raise ConfigError(
                f"{where}: source.kind: value {kind!r}: {name!r} is not a registered dataset{nearest(name, DATASETS)}; others "
                "need kind parquet, folder, idx or wav"
            )
        if kind == "wav" and config.flip:
            raise ConfigError(f"{where}: flip: value True: is not for sounds, which a mirror would play backwards; leave it out")
        return config
    given = [key for key in ("mean", "std", "flip") if getattr(config, key) is not None]
    if given:
        raise ConfigError(f"{where}: {given[0]}: is fixed for a registered dataset; leave it out, or use another name")
    if kind not in kinds(name):
        raise ConfigError(f"{where}: source.kind: value {kind!r}: is not for {name}; allowed: {', '.join(kinds(name))}")
    return config


def kinds(name: str) -> tuple[str, ...]:
    """Return the kinds of source that a registered dataset may have."""
    return _KINDS.get(DATASETS[name].layout, ("download", *IMAGES))


def check_paths(configs: Mapping[str, DatasetConfig], where: str) -> None:
    """Check that every path exists.

    Raises:
        ConfigError: those that do not, all of them at once.
    """
    wrong = []
    for name, config in configs.items():
        path = getattr(config.source, "path", None)
        if path is not None and not Path(path).is_dir():
            reason = "is a file, must be a folder" if Path(path).exists() else "no such folder"
            wrong.append(f"{where}.{name}: source.path: value {path!r}: {reason}")
    if wrong:
        raise ConfigError("\n".join(wrong))
