"""The results of a run as one file that can travel, and back."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from dd.artifacts import atomic
from dd.errors import ArtifactError

ARCHIVE = "results.tar.gz"  # thousands of small JSON files become a tenth
HEAVY = ("pretrained", "experts", "generators")  # folders of results/ whose weights are made to make other results
STAGING = ".unpack"


def pack(root: Path, archive: Path, needed: Collection[str], keep: Collection[str]) -> dict[str, int]:
    """Write the files of `root`/results to `archive`, atomically; return the bytes of each kind, which is a folder of results.

    Left out are the weights in the folders of `HEAVY`, but for those in `keep`, files that are `needed`, and states of interrupted jobs.

    Raises:
        ArtifactError: the archive cannot be written; an older one stays as it was.
    """
    sizes: dict[str, int] = {}
    with (
        atomic(archive) as temporary,
        open(temporary, "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in _files(root):
            kind = PurePosixPath(name).parts[1]
            weights = kind in HEAVY and name.endswith(".safetensors") and "/.resume/" not in name
            if weights and kind not in keep and name not in needed:
                continue
            with open(path, "rb") as source:
                member = tarfile.TarInfo(name)
                facts = os.fstat(source.fileno())
                member.size, member.mtime = facts.st_size, int(facts.st_mtime)
                tar.addfile(member, source)
            sizes[kind] = sizes.get(kind, 0) + member.size
    return sizes


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name below root, path) of every file in root/results that is a result, or the state of a job; sorted."""
    for folder, below, files in os.walk(root / "results"):
        below[:] = sorted(name for name in below if name != STAGING)
        for name in sorted(files):
            path = Path(folder, name)
            if path.parent != root / "results" and not (name.startswith(".") and name.endswith(".tmp")) and path.is_file():
                yield path.relative_to(root).as_posix(), path


def unpack(archive: Path, root: Path) -> int:
    """Bring what `pack` wrote back into `root`; return how many files were new. A file that is there already stays, unless it is older.

    Nothing is changed before the whole archive has been read and found sound.

    Raises:
        ArtifactError: it is damaged, or holds what is no plain file under results/; or the files cannot be written.
    """
    if not archive.exists():
        return 0
    staging = root / "results" / STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed in here
        staging.mkdir(parents=True)
        return _install(list(_extract(archive, staging)), root)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArtifactError(f"{archive}: is damaged ({error}); fetch it again, or delete it to begin anew; nothing was unpacked") from error
    except OSError as error:
        raise ArtifactError(f"{archive}: cannot be unpacked to {root / 'results'}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(archive: Path, staging: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name below root, where it lies for now) of every member."""
    with gzip.open(archive, "rb") as raw:
        with tarfile.open(fileobj=raw, mode="r|") as tar:
            for number, member in enumerate(tar):
                _check(archive, member)
                source, path = tar.extractfile(member), staging / str(number)
                assert source is not None, "it is a plain file"
                with source, open(path, "xb") as file:
                    _copy(source, file, member)
                os.utime(path, (member.mtime, member.mtime))
                yield member.name, path
        while raw.read(1 << 20):  # to the end, where the checksum stands
            pass


def _check(archive: Path, member: tarfile.TarInfo) -> None:
    """Refuse what `pack` would not write: links, devices, and names that lead elsewhere."""
    path = PurePosixPath(member.name)
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
    inside = len(path.parts) > 2 and path.parts[0] == "results" and path.parts[1] != STAGING and ".." not in path.parts
    if not plain or not inside or path.as_posix() != member.name or "\\" in member.name or "\0" in member.name:
        raise ArtifactError(f"{archive}: member {member.name!r}: allowed are plain files under results/; nothing was unpacked")


def _copy(source: IO[bytes], target: IO[bytes], member: tarfile.TarInfo) -> None:
    shutil.copyfileobj(source, target, 1 << 20)
    if target.tell() != member.size:
        raise tarfile.ReadError(f"{member.name}: {target.tell()} of {member.size} bytes")


def _install(staged: list[tuple[str, Path]], root: Path) -> int:
    """Move files to their places; return how many."""
    os.sync()  # a file must not have its name before its bytes, whatever happens to the machine
    moved = 0
    for name, path in staged:
        target = root / name
        if target.exists() and target.stat().st_mtime >= path.stat().st_mtime:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        moved += 1
    return moved
