"""Why a job would run again: what Snakemake compares, said in words. It agrees with `snakemake -n FILE`."""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dd.artifacts import sha256_file
from dd.plan.code import CODES, modules_of
from dd.plan.command import arguments, shell
from dd.plan.job import Job
from dd.plan.jobs import Plan
from dd.plan.recorded import Record, interrupted, recorded


@dataclass(frozen=True)
class Reason:
    """One cause. kind: absent, unfinished, config, arguments, inputs, input, code, command, or made (an input is made first)."""

    kind: str
    text: str


@dataclass
class Fate:
    """What becomes of a job. why: reasons to run; none: it stays. notes: what has changed without being a reason."""

    job: Job
    why: list[Reason] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Fates:
    """What would run if some jobs were asked for by the names of their files, and why.

    plan: of the present configuration. jobs: those that are asked for. root: of the checkout.
    """

    def __init__(self, plan: Plan, jobs: Iterable[Job], root: Path = Path(".")) -> None:
        self._plan, self._root = plan, root
        self._maker = {path: job for job in plan.jobs.values() for path in job.outputs}
        self._asked = list(jobs)
        self._order: dict[int, Job] = {}
        self._collect()
        self._users: dict[int, list[Job]] = {key: [] for key in self._order}
        for job in self._order.values():
            for maker in self._makers(job):
                self._users[id(maker)].append(job)
        self._oldest = {key: self._oldest_output(job) for key, job in self._order.items()}
        self.fates = {key: Fate(job) for key, job in self._order.items()}
        self._decide()

    def of(self, job: Job) -> Fate:
        """Return what becomes of a job that was asked for, or that one of these rests on."""
        return self.fates[id(job)]

    # -- the graph --------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Put the jobs that were asked for, and all that they rest on, in an order in which they can run."""
        open_ = [(job, False) for job in reversed(self._asked)]
        while open_:  # no recursion: chains of milestones are long
            job, ready = open_.pop()
            if id(job) in self._order:
                continue
            if ready:
                self._order[id(job)] = job
            else:
                open_.append((job, True))
                open_.extend((maker, False) for maker in self._makers(job))

    def _makers(self, job: Job) -> list[Job]:
        return list({id(maker): maker for path in job.inputs if (maker := self._maker.get(path))}.values())

    def _there(self, path: str) -> bool:
        return (self._root / path).exists()

    def _oldest_output(self, job: Job) -> float | None:
        """Return when the oldest output of a job that is there was written, or of the jobs that use it, if it has none."""
        for one in (job, *self._users[id(job)]):
            times = [(self._root / path).lstat().st_mtime for path in one.outputs if self._there(path)]
            if times:
                return min(times)
        return None

    def _decide(self) -> None:
        asked = {id(job) for job in self._asked}
        for key, fate in self.fates.items():
            gone = [path for path in fate.job.outputs if not self._there(path)]
            if key in asked and gone:
                more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
                fate.why.append(Reason("absent", f"absent: {gone[0]}{more} {'are' if more else 'is'} not there"))
            self._judge(fate, absent=bool(gone and len(gone) == len(fate.job.outputs)))
        queue = deque(key for key, fate in self.fates.items() if fate.why)
        seen = set(queue)
        while queue:
            job = self._order[queue.popleft()]
            inputs, outputs = set(job.inputs), set(job.outputs)
            for maker in self._makers(job):
                gone = [path for path in maker.outputs if path in inputs and not self._there(path)]
                if gone and id(maker) not in seen:
                    self.fates[id(maker)].why.append(Reason("absent", f"absent: {gone[0]} is not there, and is needed"))
                    seen.add(id(maker))
                    queue.append(id(maker))
            for user in self._users[id(job)]:
                taken = next(path for path in user.inputs if path in outputs)
                self.fates[id(user)].why.append(Reason("made", f"input: {taken} is made {'anew' if self._there(taken) else 'first'}"))
                if id(user) not in seen:
                    seen.add(id(user))
                    queue.append(id(user))

    # -- one job ----------------------------------------------------------------------------------------------------

    def _judge(self, fate: Fate, absent: bool) -> None:
        """Add why a job would run by itself: what differs between what Snakemake recorded and what is so now."""
        job = fate.job
        if any(self._there(path) and interrupted(path, self._root) for path in job.outputs):
            fate.why.append(Reason("unfinished", "unfinished: its last run was broken off"))
        records = [record for path in job.outputs if (record := recorded(path, self._root))]
        if len(records) < len(job.outputs) and not absent:
            fate.notes.append("nothing is recorded of how Snakemake made it, so only newer inputs count")
        fate.why.extend(self._inputs(job, records))
        for record in records:  # one for each output, and nearly always alike
            fate.why.extend(reason for reason in self._params(fate, record) if reason not in fate.why)

    def _inputs(self, job: Job, records: list[Record]) -> list[Reason]:
        """Return which inputs have another content than they had: those that are newer and have another checksum."""
        oldest, found = self._oldest[id(job)], []
        for path in dict.fromkeys(job.inputs):
            file = self._root / path
            if oldest is None or not file.exists() or max(file.stat().st_mtime, file.lstat().st_mtime) <= oldest:
                continue
            sums = {record.checksums.get(path) for record in records}
            if len(records) < len(job.outputs) or len(sums) != 1 or None in sums:
                found.append(Reason("input", f"input: {path} is newer, and no checksum of it was recorded"))
                continue
            (before,) = sums
            if (now := sha256_file(file)) != before:
                found.append(Reason("input", f"input: {path} has other content: sha256 {str(before)[:12]} -> {now[:12]}"))
        return found

    def _params(self, fate: Fate, record: Record) -> list[Reason]:
        job, plan = fate.job, self._plan
        found = [Reason("config", f"config: {line}") for line in self._config(job, record)]
        words = repr(shlex.join(arguments(job)))
        if record.others() != {words}:
            old = ", ".join(sorted(record.others() - {words})) or "none"
            found.append(Reason("arguments", f"arguments: {old} -> {words}"))
        if record.inputs != tuple(sorted(job.inputs)):
            lost, new = sorted(set(record.inputs) - set(job.inputs)), sorted(set(job.inputs) - set(record.inputs))
            text = "; ".join([*(f"no longer {path}" for path in lost[:3]), *(f"now also {path}" for path in new[:3])])
            found.append(Reason("inputs", f"inputs: {text or 'the same, in another number'}"))
        if record.code is not None and record.code != job.code:
            text = f"code: {changed_modules(job, record.code, self._root)}"
            if plan.settings.track_code:
                found.append(Reason("code", text))
            else:
                fate.notes.extend({f"{text}; track_code is false, so nothing runs again for it"} - {*fate.notes})
        if record.command is not None and record.command != shell(job.stage):
            found.append(Reason("command", f"command: the rule {record.rule} says another command than it did"))
        return found

    def _config(self, job: Job, record: Record) -> list[str]:
        """Return what changed in the configuration: `key: old -> new`."""
        now = [job.config]
        if job.stage == "artifact":
            now.append(json.loads(self._plan.drawing_settings([job.facts["paper"]])))
        then = record.objects()
        lines: list[str] = []
        for one in now:
            plain = json.loads(json.dumps(one))
            if plain in then:
                continue
            before = max(then, key=lambda other: len(other.keys() & plain.keys()), default={})
            if before.keys() & plain.keys() or not then:
                lines.extend(differences(before, plain))
        if job.stage == "artifact":  # a digest says nothing to a reader
            lines = ["what is drawn: the paper file, its points or their files" if line.startswith("digest:") else line for line in lines]
        return lines


def changed_modules(job: Job, before: str, root: Path = Path(".")) -> str:
    """Return which modules differ between the code that made a result, by its id, and the code that a job runs now."""
    now = modules_of(job.modules)
    try:
        then = json.loads((root / CODES / f"{before}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{before} -> {job.code}; which modules changed is not known: {CODES / f'{before}.json'} is not there"
    parts = [
        *(f"{name} changed" for name in now if name in then and then[name] != now[name]),
        *(f"{name} is new" for name in now if name not in then),
        *(f"{name} is no longer used" for name in then if name not in now),
    ]
    return f"{', '.join(parts) or 'the same modules'} ({before} -> {job.code})"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return `key: old -> new` for every field that differs, with dots for those inside others; a field that one lacks is (none)."""
    before, after = flat(old), flat(new)
    return [
        f"{key}: {before.get(key, '(none)')} -> {after.get(key, '(none)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return every field of a configuration as JSON text, by its key with dots."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return found
