"""The `datasets` section of config.yaml. Read by the workflow: imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dd.config import Frozen, parse
from dd.data.registry import DATASETS
from dd.errors import ConfigError, nearest


class FromDownload(Frozen):
    """The official files."""

    kind: Literal["download"] = "download"


class FromDigits(Frozen):
    """The handwritten digits inside scikit-learn."""

    kind: Literal["digits"] = "digits"


class FromParquet(Frozen):
    """A folder of train*.parquet and test*.parquet in the Hugging Face layout (`img` or `image`, `label` or `fine_label`)."""

    kind: Literal["parquet"]
    path: str


class FromFolder(Frozen):
    """A folder with train/CLASS/* and test/CLASS/*."""

    kind: Literal["folder"]
    path: str


class FromIdx(Frozen):
    """A folder of idx files under MNIST's names, plain or .gz."""

    kind: Literal["idx"]
    path: str


Source = Annotated[FromDownload | FromDigits | FromParquet | FromFolder | FromIdx, Field(discriminator="kind")]


class DatasetConfig(Frozen):
    """Where a dataset comes from, and what a registered one knows by itself.

    mean, std: for images in [0, 1]; computed from train where absent. flip: whether a mirrored image is still of its class.
    fingerprint: pins the prepared set; `prepare` refuses any other.
    """

    source: Source
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    flip: bool = True
    fingerprint: str | None = None


def default(name: str) -> DatasetConfig:
    """Return where a registered dataset comes from if nobody says otherwise."""
    return DatasetConfig(source=FromDigits() if name == "digits" else FromDownload(), flip=DATASETS[name].flip)


def load_datasets(section: Mapping[str, Any], where: str) -> dict[str, DatasetConfig]:
    """Return the configuration of every registered dataset and of those in `section`.

    Raises:
        ConfigError: an unknown key or kind; a dataset that is not registered and has no path of its own.
    """
    configs = {name: default(name) for name in DATASETS}
    for name, data in section.items():
        config = parse(DatasetConfig, data, f"{where}.{name}")
        if name in DATASETS:
            if config.mean is not None or config.std is not None:
                raise ConfigError(f"{where}.{name}: mean and std of a registered dataset are fixed; leave them out, or use another name")
            config = config.model_copy(update={"flip": DATASETS[name].flip})
            if config.source.kind == "digits" and name != "digits":
                raise ConfigError(f"{where}.{name}: source.kind: value 'digits' is for the dataset digits only")
        elif config.source.kind in ("download", "digits"):
            raise ConfigError(
                f"{where}.{name}: is not a registered dataset{nearest(name, DATASETS)}; others need source.kind parquet, folder or idx"
            )
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"{where}.{name}: a dataset's name is letters, digits, _ and - (it becomes a folder)")
        configs[name] = config
    return configs


def check_paths(configs: Mapping[str, DatasetConfig], where: str) -> None:
    """Check that every path exists.

    Raises:
        ConfigError: one that does not.
    """
    for name, config in configs.items():
        path = getattr(config.source, "path", None)
        if path is not None and not Path(path).is_dir():
            raise ConfigError(f"{where}.{name}: source.path: value {path!r}: no such folder")
