"""Results that no paper asks for any more: what they take, and how to get rid of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dd.errors import ArtifactError
from dd.plan.atwork import LOGS, locked, snakemake_at_work
from dd.plan.jobs import Plan
from dd.plan.papers import Settings
from dd.plan.pulled import LOCK
from dd.plan.recorded import METADATA, records
from dd.plan.summary import run_file

# Folders that are swept, and after how many parts of a path one result begins: nothing else is ever looked at.
DEPTHS = {
    "data/prepared": 3,  # {dataset}
    "data/teachers": 3,  # {name}.safetensors
    "results/pretrained": 5,  # {dataset}/{network}/{id}
    "results/generators": 5,
    "results/experts": 5,
    "results/distilled": 5,  # {dataset}/{method}/ipc{ipc}-{id}
    "results/scores": 4,  # {distilled}/{network}-{protocol}-{id}
    "results/analyses": 4,
    "results/choices": 3,  # {id}.json
    "results/papers": 4,  # {scale}/{paper}
}


@dataclass
class Rest:
    """What of one result nothing asks for. part: some of that result is kept."""

    name: str
    part: bool
    files: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.lstat().st_size for path in self.files)

    @property
    def seconds(self) -> float:
        """Seconds that the jobs took which made it, by those run.json that there are."""
        return sum(_seconds(path) for path in self.files if path.name.endswith("run.json"))


def prune(settings: Settings, workflow: Path, where: str, yes: bool) -> str:
    """List what stands among the results and no paper at any scale asks for, with sizes and hours; delete it, if told to.

    Kept is whatever any file of workflow/papers asks for at any of workflow/scales, with the datasets of config.yaml, for as many repeats
    as config.yaml says and for as many as the paper says. Of a result that is kept, only files go that Snakemake knows as made and no
    paper asks for (more seeds, other steps), with their run.json. With a file go its log and its record in .snakemake/metadata.
    Paths are relative to the current folder, the checkout.

    settings, where: config.yaml, and its name for messages. yes: delete.

    Returns:
        What is printed.

    Raises:
        ConfigError: anything wrong in any paper or scale, so that what they ask for is not known. ArtifactError: deleting while a
            Snakemake is at work here; a file that cannot be deleted. DDError: deleting while a `dd run` is.
    """
    kept = _asked_for(settings, workflow, where)
    known = records(METADATA)
    rest = _rest(kept, known)
    stale = [path for path in known if path not in kept and _kind(path) and not Path(path).exists()]
    if not rest and not (stale and yes):
        return "nothing to prune: every result is one that some paper asks for at some scale"
    lines = [f"{'MB':>12} {'hours':>8} {'files':>7}  result", *map(_line, rest)]
    total = Rest("in all", False, [file for one in rest for file in one.files])
    lines.append(_line(total))
    if not yes:
        return "\n".join([*lines, "Nothing was deleted. To delete them: python -m dd prune --yes"])
    with locked(LOGS):
        if busy := snakemake_at_work(Path(".")):
            raise ArtifactError(f"{busy}; nothing was deleted")
        _delete([str(file) for one in rest for file in one.files], known)
        _delete(stale, known)
    if Path(LOCK).exists():
        lines.append(f"{LOCK} still records them: python -m dd pulled && dvc commit")
    return "\n".join([*lines, "Deleted."])


def _asked_for(settings: Settings, workflow: Path, where: str) -> set[str]:
    """Return every file that some paper asks for at some scale, and the run.json of each job."""
    plain = settings.model_copy(update={"papers": (), "sets": None, "nets": None, "leave_out": {}})
    repeated = plain.model_copy(update={"sets": settings.sets, "nets": settings.nets})
    found: set[str] = set()
    for scale in sorted(path.stem for path in (workflow / "scales").glob("*.yaml")):
        for one in [plain] if repeated == plain else [plain, repeated]:
            jobs = Plan(one.model_copy(update={"scale": scale}), workflow, where).jobs.values()
            found |= {path for job in jobs for path in (*job.outputs, str(run_file(job)))}
    return found


def _kind(path: str) -> str | None:
    """Return the folder among those that are swept in which a file stands."""
    return next((kind for kind in DEPTHS if path.startswith(f"{kind}/")), None)


def _result(path: str) -> str:
    """Return the folder, or file, of the one result that a file is of."""
    return "/".join(path.split("/")[: DEPTHS[_kind(path) or ""]])


def _rest(kept: set[str], known: Iterable[str]) -> list[Rest]:
    """Return what stands here and is not asked for, result by result."""
    here: dict[str, list[Path]] = {}
    for path in _files(DEPTHS):
        here.setdefault(_result(str(path)), []).append(path)
    asked = {_result(path) for path in kept if _kind(path)}
    stems = {str(Path(path).with_suffix("")) for path in kept}
    homes = {str(Path(path).parent) for path in kept}
    known = set(known)
    found = []
    for name, files in sorted(here.items()):
        gone = _gone(files, kept, known, homes, stems) if name in asked else files
        if gone:
            found.append(Rest(name, len(gone) < len(files) or name in asked, gone))
    return found


def _gone(files: list[Path], kept: set[str], known: set[str], homes: set[str], stems: set[str]) -> list[Path]:
    """Return what nothing asks for among the files of a result that something asks for.

    homes: folders of what is asked for. stems: what is asked for, without endings.
    """
    made = {path for path in files if str(path) in known and str(path) not in kept}
    made |= {path for path in files if path.name.startswith(".") and path.suffix == ".tmp"}  # what a killed job left
    theirs = {str(path.parent) for path in made}
    ends = {str(path.with_suffix("")) for path in made}

    def goes_along(path: Path) -> bool:
        home = str(_home(path))
        if home not in homes:
            return home in theirs
        stem = str(path).removesuffix(".run.json")
        return stem != str(path) and stem in ends and stem not in stems

    return [path for path in files if path in made or (str(path) not in kept and goes_along(path))]


def _home(path: Path) -> Path:
    """Return the folder that a file belongs to: that which holds `.resume`, of what stands in there."""
    parts = path.parts
    return Path(*parts[: parts.index(".resume")]) if ".resume" in parts else path.parent


def _files(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        for at, _, names in os.walk(folder):
            yield from (Path(at, name) for name in names)


def _seconds(path: Path) -> float:
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0  # damaged: it is no result


def _line(rest: Rest) -> str:
    part = " (a part of it)" if rest.part else ""
    return f"{rest.size / 1e6:>12,.1f} {rest.seconds / 3600:>8,.2f} {len(rest.files):>7}  {rest.name}{part}"


def _delete(paths: Iterable[str], known: dict[str, Path]) -> None:
    """Delete files, their records, and the logs that nothing else of the same result names; then the folders that are empty."""
    going = set(paths)
    touched = {_result(path) for path in going}
    stay = {log for path in known if path not in going and _kind(path) and _result(path) in touched for log in _logs(known[path])}
    for path in going:
        record = known.get(path)
        for log in _logs(record) if record else ():
            if log not in stay:
                _remove(Path(log))
        _remove(Path(path))
        if record:  # last: if this is stopped halfway, the next time finds the rest by it
            _remove(record)


def _logs(record: Path) -> list[str]:
    """Return the log files that a record of Snakemake's names, of those under logs/."""
    try:
        logs = json.loads(record.read_text(encoding="utf-8"))["log"]
        return [log for log in logs if log.startswith("logs/") and ".." not in Path(log).parts]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _remove(path: Path) -> None:
    """Delete a file, and the folders above it that it leaves empty, up to that of its kind."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be deleted: {error.strerror or error}; what came before it in the list is deleted") from error
    for folder in path.parents:
        if len(folder.parts) < 3:  # results/KIND and .snakemake/metadata stay
            break
        for at, _, _ in os.walk(folder / ".resume", topdown=False):  # a state that was used leaves these behind
            with suppress(OSError):
                Path(at).rmdir()
        try:
            folder.rmdir()
        except OSError:
            break
