"""What dvc.lock records and is not here: a partial pull must neither compute it again unasked, nor record it as empty."""

from __future__ import annotations

import binascii
import os
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dd.config import load_yaml
from dd.errors import ArtifactError, ConfigError
from dd.plan.job import Job
from dd.plan.recorded import INCOMPLETE, METADATA

LOCK = "dvc.lock"
SWITCH = "DD_RECOMPUTE"


def locked(root: Path = Path(".")) -> list[str]:
    """Return the folders that dvc.lock records with files in them. Single files are left out: they are made again in seconds.

    Raises:
        ArtifactError: dvc.lock cannot be read, such as after a merge with conflicts.
    """
    path = root / LOCK
    if not path.exists():
        return []
    try:
        stages = load_yaml(path).get("stages") or {}
        outs = [out for stage in stages.values() for out in stage.get("outs") or ()]
        return [str(out["path"]) for out in outs if _files(out)]
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: is not what dvc writes ({error}); after a merge, take either side (git checkout --ours {LOCK}) and run dvc repro"
        ) from None


def _files(out: dict[str, Any]) -> int:
    """Return how many files a folder has by its entry in dvc.lock; 0 for a single file."""
    hash_ = str(out.get(out.get("hash", "md5"), ""))
    return int(out.get("nfiles", 1)) if hash_.endswith(".dir") else 0


def absent(root: Path = Path(".")) -> list[str]:
    """Return the folders that dvc.lock records with files in them and that are empty here, or not here.

    Raises:
        ArtifactError: dvc.lock cannot be read.
    """
    return [path for path in locked(root) if not _any_file(root / path)]


def demand(wanted: Iterable[str], root: Path = Path(".")) -> None:
    """Check that nothing is made again only because it was not pulled.

    What was never made here or anywhere is no concern of this, nor is what was deleted file by file: it is about files that dvc.lock
    and Snakemake's records know, and whose whole folder is not here. DD_RECOMPUTE=1 in the environment allows to make them.

    wanted: files that are about to be made, relative to `root`, the checkout.

    Raises:
        ArtifactError: such files, named by the folder of dvc.lock that they belong to; or results without the records of how they
            were made. ConfigError: DD_RECOMPUTE is neither 0 nor 1.
    """
    if _recompute():
        return
    folders = locked(root)
    if not folders:
        return
    ours = _any_file(root / METADATA) or _any_file(root / INCOMPLETE)  # the latter: a run that was killed at its first jobs
    if str(METADATA) in folders and not ours and any(_any_file(root / path) for path in folders):
        raise ArtifactError(
            f"{METADATA}: {LOCK} records it, but it is not here, so what the results here were made from is unknown, and a change of code "
            f"would not be noticed. Get it: dvc pull {METADATA}. Or go on without it: {SWITCH}=1"
        )
    lacking: dict[str, int] = {}
    known = records(root / METADATA)
    for path in wanted:
        folder = _folder(path, folders)
        if folder and path in known and not _any_file((root / path).parent):
            lacking[folder] = lacking.get(folder, 0) + 1
    if lacking:
        raise _not_here(lacking)


def whole(jobs: Iterable[Job], root: Path = Path(".")) -> None:
    """Check, before DVC runs anything, that it may record what is here: nothing recorded is absent, nothing is of unknown origin.

    jobs: all that the papers need. DD_RECOMPUTE=1 in the environment allows for what is absent, but for no file of unknown origin.

    Raises:
        ArtifactError: a folder of dvc.lock that is not here; or results that Snakemake has no record of, so that it could not see what
            they lack. ConfigError: DD_RECOMPUTE is neither 0 nor 1.
    """
    outputs = [path for job in jobs if job.stage != "download" for path in job.outputs]
    if not _recompute():
        if found := absent(root):
            raise _not_here(dict.fromkeys(found, 0))
        demand(outputs, root)
    known = records(root / METADATA).keys() | records(root / INCOMPLETE).keys()  # the latter Snakemake makes again by itself
    unknown = [path for path in outputs if path not in known and (root / path).is_file()]
    if unknown:
        raise ArtifactError(
            f"{unknown[0]}: Snakemake has no record of how it was made ({len(unknown)} such files), so it would be kept whatever it was "
            f"made from. If it came by `dvc pull`: dvc pull {METADATA}. If it is good: snakemake --touch. Else delete it"
        )


def records(folder: Path) -> dict[str, Path]:
    """Return the files of which Snakemake keeps a record in a folder (`.snakemake/metadata`), and where it stands.

    A record's name is that of the file in base64, cut into folders that begin with @ where it is too long.
    """
    found = {}
    for at, _, files in os.walk(folder):
        parts = Path(at).relative_to(folder).parts
        for name in files if all(part.startswith("@") for part in parts) else ():
            try:
                text = "".join(part[1:] for part in parts) + name
                found[urlsafe_b64decode(text).decode()] = Path(at, name)
            except (binascii.Error, UnicodeDecodeError):
                continue  # no record
    return found


def _recompute() -> bool:
    value = os.environ.get(SWITCH, "0")
    if value not in ("", "0", "1"):
        raise ConfigError(f"environment variable {SWITCH}: value {value!r}; allowed: 1 (make again what was not pulled), 0")
    return value == "1"


def _not_here(folders: dict[str, int]) -> ArtifactError:
    """Return the error that names folders, and how many files of each would be made again (0: not counted)."""
    counts = {path: f"; {count} of its files would be made again" if count else "" for path, count in folders.items()}
    lines = [f"{path}: {LOCK} records it, but it is not here{count}" for path, count in counts.items()]
    get = f"dvc pull {' '.join(folders)}"
    return ArtifactError("\n".join([*lines, f"Get it: {get} (dvc checkout, if it was made on this machine). Or make it again: {SWITCH}=1"]))


def _folder(path: str, folders: Iterable[str]) -> str | None:
    return next((folder for folder in folders if path.startswith(f"{folder}/")), None)


def _any_file(folder: Path) -> bool:
    """Return whether there is a file in a folder, at any depth."""
    return any(files for _, _, files in os.walk(folder))
