"""The results of a run as one file that can travel, and back."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from dd.artifacts import atomic
from dd.errors import ArtifactError

ARCHIVE = "results.tar.gz"  # thousands of small JSON files become a tenth
HEAVY = ("pretrained", "experts", "generators")  # folders of results/ whose weights are made to make other results
STAGING = ".unpack"
RESUME = ".resume"  # beside results: where long jobs keep their states
LATEST = 2.0**34  # seconds from 1970 to a time that no file is of
DENSE = (".safetensors", ".png")  # compressing these takes long and saves little: they are stored as they are


def pack(root: Path, archive: Path, needed: Collection[str], keep: Collection[str]) -> dict[str, int]:
    """Write the files of `root`/results to `archive`, atomically; return the bytes of each kind, which is a folder of results.

    Left out are the weights in the folders of `HEAVY`, but for those in `keep`, files that are `needed`, and states of interrupted jobs.

    Raises:
        ArtifactError: the archive cannot be written, or a file not be read; an older archive stays as it was.
    """
    sizes: dict[str, int] = {}
    files = sorted(_taken(root, needed, keep), key=lambda one: one[0].endswith(DENSE))
    with (
        atomic(archive) as temporary,
        open(temporary, "wb") as file,
        _Parts(lambda level: gzip.GzipFile("", "wb", compresslevel=level, fileobj=file, mtime=0)) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,  # type: ignore[call-overload]  # it only writes
    ):
        for name, path in files:
            packed.level(0 if name.endswith(DENSE) else 1)
            with _Source(path) as source:
                member = tarfile.TarInfo(name)
                member.size, member.mtime = source.size, source.mtime
                tar.addfile(member, source)  # type: ignore[arg-type]  # it is only read from
            kind = PurePosixPath(name).parts[1]
            sizes[kind] = sizes.get(kind, 0) + member.size
    return sizes


def load(root: Path, needed: Collection[str], keep: Collection[str]) -> int:
    """Return how many bytes `pack` would take now.

    Raises:
        ArtifactError: there is what it would refuse.
    """
    return sum(path.stat().st_size for _, path in _taken(root, needed, keep))


def _taken(root: Path, needed: Collection[str], keep: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Yield (name below root, path) of every file that is to be packed; sorted."""
    for name, path in _files(root):
        kind = PurePosixPath(name).parts[1]
        if not is_weights(name) or kind in keep or name in needed:
            yield name, path


def is_weights(name: str) -> bool:
    """Tell whether a file below root holds weights that are only made to make other results, and is no state of a job."""
    parts = PurePosixPath(name).parts
    return parts[0] == "results" and parts[1] in HEAVY and name.endswith(".safetensors") and RESUME not in parts


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name below root, path) of every file in root/results that is a result, or the state of a job; sorted.

    Raises:
        ArtifactError: a folder in there is a link.
    """
    for folder, below, files in os.walk(root / "results"):
        below[:] = sorted(name for name in below if name != STAGING)
        for name in below:
            if Path(folder, name).is_symlink():
                raise ArtifactError(
                    f"{Path(folder, name)}: is a link to a folder, which would not be packed; put the folder itself there, or make "
                    f"{root / 'results'} as a whole the link"
                )
        for name in sorted(files):
            path = Path(folder, name)
            if path.parent != root / "results" and not (name.startswith(".") and name.endswith(".tmp")) and path.is_file():
                yield path.relative_to(root).as_posix(), path


class _Parts:
    """A gzip file that is only written to, and whose strength may change on the way: several of them one after the other are one.

    begin: begin one of a level.
    """

    def __init__(self, begin: Callable[[int], gzip.GzipFile]) -> None:
        self._begin, self._level = begin, 1
        self._part = begin(self._level)

    def level(self, level: int) -> None:
        """Compress what follows that strongly; 0: not at all."""
        if level != self._level:
            self._part.close()
            self._level = level
            self._part = self._begin(level)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        return self._part.write(data)

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *error: object) -> None:
        self._part.close()


class _Source:
    """A file that is read to be packed; mistakes in reading it name it, and not the archive. size: bytes. mtime: seconds since 1970."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "rb")  # noqa: SIM115  # closed at the end of the block
            facts = os.fstat(self._file.fileno())
        except OSError as error:
            raise self._wrong(error) from error
        self.size, self.mtime = facts.st_size, int(facts.st_mtime)

    def read(self, size: int) -> bytes:
        """Return so many bytes."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._wrong(error) from error
        if len(data) < size:
            raise ArtifactError(f"{self._path}: became shorter while it was packed: is another program at work here? Nothing was packed")
        return data

    def _wrong(self, error: OSError) -> ArtifactError:
        return ArtifactError(f"{self._path}: cannot be read: {error.strerror or error}; nothing was packed")

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def unpack(archive: Path, root: Path, names: set[str] | None = None) -> int:
    """Bring what `pack` wrote back into `root`; return how many files were new.

    A result that is there already stays. Of the states of interrupted jobs, in a folder `.resume`, those are taken that were written
    last, here or there, all of that folder: a note beside them says which code they are of. Nothing is changed before the whole archive
    has been read and found sound.

    names: a set, to which the names of all that the archive holds are added.

    Raises:
        ArtifactError: it is damaged, or holds what is no plain file under results/; or the files cannot be written.
    """
    if not archive.exists():
        return 0
    staging = root / "results" / STAGING
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed in here
        staging.mkdir(parents=True)
        staged = list(_extract(archive, staging))
        if names is not None:
            names.update(name for name, _ in staged)
        return _install(staged, root)
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
    if not abs(member.mtime) < LATEST:  # so that nan is refused too
        raise ArtifactError(f"{archive}: member {member.name!r}: {member.mtime!r} is no time; delete it to begin anew")


def _copy(source: IO[bytes], target: IO[bytes], member: tarfile.TarInfo) -> None:
    shutil.copyfileobj(source, target, 1 << 20)
    if target.tell() != member.size:
        raise tarfile.ReadError(f"{member.name}: {target.tell()} of {member.size} bytes")


def _install(staged: list[tuple[str, Path]], root: Path) -> int:
    """Move files to their places; return how many."""
    os.sync()  # a file must not have its name before its bytes, whatever happens to the machine
    newest: dict[str, float] = {}
    for name, path in staged:
        if folder := _states(name):
            newest[folder] = max(newest.get(folder, -LATEST), path.stat().st_mtime)
    taken = {folder for folder, when in newest.items() if when > _last(root / folder)}
    for folder in taken:
        shutil.rmtree(root / folder, ignore_errors=True)
    moved = 0
    for name, path in staged:
        target, folder = root / name, _states(name)
        if folder not in taken if folder else target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        moved += 1
    return moved


def _states(name: str) -> str | None:
    """Return the folder of states that a file stands in, below root; None for a result."""
    parts = PurePosixPath(name).parts
    return "/".join(parts[: parts.index(RESUME) + 1]) if RESUME in parts[:-1] else None


def _last(folder: Path) -> float:
    """Return when the newest file in a folder was written."""
    times = [Path(at, name).lstat().st_mtime for at, _, names in os.walk(folder) for name in names]
    return max(times, default=-LATEST)
