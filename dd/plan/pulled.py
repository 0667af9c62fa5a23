"""What dvc.lock records and is not here: a partial pull must neither compute it again unasked, nor record it as empty."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dd.config import load_yaml
from dd.errors import ArtifactError, ConfigError
from dd.plan.job import Job
from dd.plan.recorded import INCOMPLETE, METADATA, records

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


def demand(wanted: Iterable[str], outputs: Iterable[str] = (), root: Path = Path(".")) -> None:
    """Check that nothing is made again only because it was not pulled, and that Snakemake can see what the results here were made from.

    What was never made here or anywhere is no concern of this, nor is what was deleted file by file: it is about files that dvc.lock
    and Snakemake's records know, and whose whole folder is not here. DD_RECOMPUTE=1 in the environment allows to make them, and to go on
    with results of unknown origin. Without dvc.lock nothing is looked at.

    wanted: files that are about to be made, relative to `root`, the checkout. outputs: all files of the plan.

    Raises:
        ArtifactError: such files, named by the folder of dvc.lock that they belong to; or results without the records of how they
            were made, which would be kept whatever has changed. ConfigError: DD_RECOMPUTE is neither 0 nor 1.
    """
    if _recompute():
        return
    folders = locked(root)
    if not folders:
        return
    known = records(root / METADATA)
    ours = known.keys() | records(root / INCOMPLETE).keys()  # the latter: of a run that was killed; Snakemake makes them again by itself
    if str(METADATA) in folders:
        if not ours and any(_any_file(root / path) for path in folders):
            raise ArtifactError(
                f"{METADATA}: {LOCK} records it, but it is not here, so what the results here were made from is unknown, and a change of "
                f"code would not be noticed. Get it: dvc pull {METADATA}. Or go on without it: {SWITCH}=1"
            )
        if unknown := _unknown((path for path in outputs if _folder(path, folders)), ours, root):
            raise ArtifactError(f"{_of_unknown_origin(unknown)}. Or go on without knowing: {SWITCH}=1")
    if lacking := _lacking(wanted, known, folders, root):
        raise _not_here({path: f"it is not here; {count} of its files would be made again" for path, count in lacking.items()})


def whole(jobs: Iterable[Job], root: Path = Path(".")) -> None:
    """Check, before DVC records anything, that it may record what is here: nothing recorded is absent, nothing is of unknown origin.

    Absent is a folder of dvc.lock without any file, and a folder inside of one of which Snakemake's records know files, and that has none.
    (`dd prune` deletes the records with the files.)

    jobs: all that the papers need. DD_RECOMPUTE=1 in the environment allows for what is absent, but for no file of unknown origin.

    Raises:
        ArtifactError: a folder of dvc.lock that is not here; or results that Snakemake has no record of, so that it could not see what
            they lack. ConfigError: DD_RECOMPUTE is neither 0 nor 1.
    """
    outputs = [path for job in jobs if job.stage != "download" for path in job.outputs]
    known = records(root / METADATA)
    if not _recompute():
        if found := absent(root):
            raise _not_here(dict.fromkeys(found, "it is not here"))
        demand((), root=root)
        if lacking := _lacking([*known], known, locked(root), root):
            raise _not_here({path: f"{count} of its files are not here" for path, count in lacking.items()})
    if unknown := _unknown(outputs, known.keys() | records(root / INCOMPLETE).keys(), root):
        raise ArtifactError(_of_unknown_origin(unknown))


def _lacking(paths: Iterable[str], known: Container[str], folders: Sequence[str], root: Path) -> dict[str, int]:
    """Return, for folders of dvc.lock, how many of these files are recorded by Snakemake and stand in folders that are not here."""
    here: dict[Path, bool] = {}
    lacking: dict[str, int] = {}
    for path in paths:
        folder = _folder(path, folders) if path in known else None
        if folder is None:
            continue
        home = (root / path).parent
        if home not in here:
            here[home] = _any_file(home)
        if not here[home]:
            lacking[folder] = lacking.get(folder, 0) + 1
    return lacking


def _unknown(paths: Iterable[str], known: Container[str], root: Path) -> list[str]:
    """Return which of these files are here without a record. Each folder is listed once: there may be 100,000 files."""
    names: dict[str, set[str]] = {}
    found = []
    for path in paths:
        if path in known:
            continue
        folder, _, name = path.rpartition("/")
        if folder not in names:
            try:
                names[folder] = set(os.listdir(root / folder))
            except OSError:
                names[folder] = set()
        if name in names[folder]:
            found.append(path)
    return found


def _of_unknown_origin(unknown: Sequence[str]) -> str:
    """Return what is wrong with files that Snakemake has no record of, and what to do."""
    return (
        f"{unknown[0]}: Snakemake has no record of how it was made ({len(unknown)} such files), so it would be kept whatever it was "
        f"made from. If it came by `dvc pull`: dvc pull {METADATA}. If it is good, made by this very code and configuration: "
        "snakemake --touch --forceall everything. Else delete it"
    )


def _recompute() -> bool:
    value = os.environ.get(SWITCH, "0")
    if value not in ("", "0", "1"):
        raise ConfigError(f"environment variable {SWITCH}: value {value!r}; allowed: 1 (make again what was not pulled), 0")
    return value == "1"


def _not_here(folders: Mapping[str, str]) -> ArtifactError:
    """Return the error that names folders of dvc.lock, each with what of it is missing."""
    lines = [f"{path}: {LOCK} records it, but {what}" for path, what in folders.items()]
    get = f"dvc pull {' '.join(folders)}"
    again = f"Or make again what the papers ask for: {SWITCH}=1"
    return ArtifactError("\n".join([*lines, f"Get it: {get} (dvc checkout, if it was made on this machine). {again}"]))


def _folder(path: str, folders: Iterable[str]) -> str | None:
    return next((folder for folder in folders if path.startswith(f"{folder}/")), None)


def _any_file(folder: Path) -> bool:
    """Return whether there is a file in a folder, at any depth."""
    return any(files for _, _, files in os.walk(folder))
