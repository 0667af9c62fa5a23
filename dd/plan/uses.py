"""The results of a plan by their ids: what each is made of, and who uses it."""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dd.errors import ConfigError
from dd.plan.job import Job
from dd.plan.jobs import Plan
from dd.plan.known import Known, closest_to, results
from dd.plan.reasons import differences

MANY = 12  # lines of one kind; the rest is counted
FEW = 4  # lines of each artifact
SHORTEST = 4  # digits of an id that is not written out
IN_PATH = re.compile(r"(?:^|[-/])([0-9a-f]{8})(?=[./]|$)")
Node = tuple[str, str]  # stage, and what tells its results apart: an id, or a name


class Graph:
    """The jobs of a plan by their ids. One id has several jobs: seeds, milestones, blocks of networks."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.maker = {path: job for job in plan.jobs.values() for path in job.outputs}
        self.jobs: dict[Node, list[Job]] = {}
        for job in {id(job): job for job in plan.jobs.values()}.values():
            self.jobs.setdefault(node_of(job), []).append(job)

    def find(self, wanted: str) -> list[Node]:
        """Return what an id, the first digits of one, or a path means.

        Raises:
            ConfigError: nothing, or several.
        """
        text = wanted.strip()
        if len(text) >= SHORTEST and set(text) <= set("0123456789abcdef"):
            found = [node for node in self.jobs if node[1].startswith(text) and "id" in self.jobs[node][0].facts]
            if len({node[1] for node in found}) > 1:
                names = ", ".join(self.name(node) for node in found[:MANY])
                raise ConfigError(f"{text!r} is the beginning of several ids: {names}; write one out")
        else:
            found = self._by_path(text)
        if not found:
            raise ConfigError(self._unknown(text))
        return found

    def _by_path(self, text: str) -> list[Node]:
        path = Path(text)
        if path.is_absolute() and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        name = path.as_posix()
        made = self.maker.get(name)
        if made is not None:
            return [node_of(made)]
        return list(dict.fromkeys(node_of(job) for one, job in self.maker.items() if one.startswith(name + "/")))

    def name(self, node: Node) -> str:
        """Return how a reader calls the results of an id: "distill 8d9a3327"."""
        return f"{node[0]} {node[1]}"

    def inputs(self, node: Node) -> tuple[list[Node], list[str]]:
        """Return what the results of an id are made of: other ids, and files that no job makes."""
        paths = dict.fromkeys(path for job in self.jobs[node] for path in job.inputs)
        made = dict.fromkeys(node_of(self.maker[path]) for path in paths if path in self.maker)
        made.pop(node, None)  # one milestone is made from another
        return list(made), [path for path in paths if path not in self.maker]

    def tree(self, node: Node) -> list[str]:
        """Return the inputs of an id, theirs below them, down to datasets; what was shown is not unfolded twice."""
        shown: set[Node] = {node}
        return list(self._branches(node, "", shown)) or ["nothing: it comes from outside"]

    def _branches(self, node: Node, indent: str, shown: set[Node]) -> Iterator[str]:
        made, given = self.inputs(node)
        for path in given[:MANY]:
            yield f"{indent}file {path}: {'there' if Path(path).exists() else 'absent'}"
        for one in made[:MANY]:
            again = one in shown
            yield f"{indent}{self.name(one)}: {amount(self.jobs[one])}, {_place(self.jobs[one])}{' (see above)' if again else ''}"
            if not again:
                shown.add(one)
                yield from self._branches(one, indent + "  ", shown)
        if (more := len(made) - MANY) > 0:
            yield f"{indent}and {more} more"

    def users(self, node: Node) -> list[str]:
        """Return who takes the results of an id: other ids directly, then the cells of papers that rest on them."""
        takers: dict[str, list[Job]] = {}
        for job in {id(job): job for job in self.maker.values()}.values():
            for path in dict.fromkeys(job.inputs):
                takers.setdefault(path, []).append(job)
        direct = dict.fromkeys(node_of(user) for job in self.jobs[node] for path in job.outputs for user in takers.get(path, ()))
        direct.pop(node, None)
        files = {path for job in self.jobs[node] for path in job.outputs}
        queue = deque(files)
        while queue:  # all that rests on it, but for drawings
            for job in takers.get(queue.popleft(), ()):
                fresh = [] if job.stage == "artifact" else [path for path in job.outputs if path not in files]
                files.update(fresh)
                queue.extend(fresh)
        lines = first([self.name(one) for one in direct], MANY)
        for paper, artifacts in self.plan.cells.items():
            for artifact, cells in artifacts.items():
                taken = [_at(cell.point.at) for cell in cells if not files.isdisjoint(_files(cell))]
                lines += [f"{paper}, {artifact}: {text}" for text in first(taken, FEW)]
        return lines or ["nothing"]

    def _unknown(self, text: str) -> str:
        """Return what is said of an id or a path that nothing asks for."""
        scale = self.plan.scale.scale
        ids = set(IN_PATH.findall(text)) if "/" in text else {text}
        asked = [node for node in self.jobs if node[1] in ids]
        if asked:  # more seeds, blocks or steps than are asked for now
            names = ", ".join(f"{self.name(node)} ({self.jobs[node][0].outputs[0]})" for node in asked)
            return f"{text}: no paper at scale {scale} asks for this file now, but for others of the same id: {names}"
        on_disk = list(results())
        left = [one for one in on_disk if any(len(id_) >= SHORTEST and one.id.startswith(id_) for id_ in ids)]
        if left:
            return "\n".join(self._left(one) for one in left[:3])
        names_ = sorted(self.maker) if "/" in text else sorted({node[1] for node in self.jobs} | {one.id for one in on_disk})
        close = difflib.get_close_matches(text, names_, n=3, cutoff=0.5)
        near = f"nearest: {', '.join(close)}" if close else "`python -m dd plan --all` and results/index.csv list what there is"
        return f"no id or result {text!r} at scale {scale}, and none on disk; {near}"

    def _left(self, one: Known) -> str:
        """Return what is said of a result that is on disk and that nothing asks for now: how it differs from the present ones."""
        head = (
            f"{one.stage} {one.id}: {one.path} is there, but no paper at scale {self.plan.scale.scale} asks for it now: "
            "it is of another scale or of a configuration that was"
        )
        if one.config is None:
            return f"{head}. Nothing tells its configuration."
        closest = closest_to(one.config, [Known(n[1], n[0], js[0].outputs[0], js[0].config) for n, js in self.jobs.items()], one.stage)
        if closest is None:
            return f"{head}. Nothing that is asked for is of the same kind."
        lines = "".join(f"\n    {line}" for line in differences(one.config, closest.config or {}))
        return f"{head}. The nearest that is asked for is {closest.id}, {closest.path}; from the one on disk to that:{lines}"


def node_of(job: Job) -> Node:
    """Return the id of a job's results, or for what has none (datasets, papers, files of others) their name, with the stage."""
    for key in ("id", "paper", "name", "dataset"):
        if key in job.facts:
            return job.stage, str(job.facts[key])
    return job.stage, Path(job.outputs[0]).stem


def _files(cell: Any) -> set[str]:
    """Return the files that a cell of a table or figure shows."""
    sets = {f"{folder}/{name}" for folder in cell.sets for name in ("distilled.safetensors", "grid.png")}
    return {*cell.scores, *sets, *(path for path in (cell.analysis, cell.choice) if path)}


def _at(at: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in at.items())


def amount(jobs: Sequence[Job]) -> str:
    """Return how much of some jobs' results is there."""
    there = sum(all(Path(path).exists() for path in job.outputs) for job in jobs)
    if len(jobs) == 1:
        return "there" if there else "absent"
    return f"{there} of {len(jobs)} there"


def _place(jobs: Sequence[Job]) -> str:
    return jobs[0].outputs[0] if len(jobs) == 1 else f"{jobs[0].outputs[0]} ..."


def first(lines: Sequence[str], count: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    return [*lines[:count], *([f"and {len(lines) - count} more"] if len(lines) > count else [])]
