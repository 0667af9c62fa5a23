"""`explain ID`: what a result is made of, who uses it, how it was made, and why it would run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dd.plan.job import Job
from dd.plan.jobs import Plan
from dd.plan.known import PLACES, closest_to, results
from dd.plan.reasons import Fate, Fates, Reason, differences, flat
from dd.plan.summary import run_facts
from dd.plan.uses import FEW, MANY, Graph, Node, amount, first, node_of


def explain(plan: Plan, wanted: str) -> str:
    """Return what a reader asks of a result, as text.

    wanted: an id of 8 hex digits, the first of one (at least 4, if no other id begins so), or the path of a result or of its folder.

    Raises:
        ConfigError: nothing at this scale has that id or path; the message says what is near, and, where the id is on disk, how that
            result differs from the present one.
    """
    graph = Graph(plan)
    nodes = graph.find(wanted)
    fates = Fates(plan, [job for node in nodes for job in graph.jobs[node]])
    parts = []
    for node in nodes:
        jobs = graph.jobs[node]
        parts += [
            f"{graph.name(node)}: {amount(jobs)}",
            *_block("Where", _where(jobs)),
            *_block("Configuration", [f"{key}: {value}" for key, value in flat(jobs[0].config).items()]),
            *_block("Made of", graph.tree(node)),
            *_block("Used by", graph.users(node)),
            *_block("How it was made", _made(jobs)),
            *_block("Would it run again?", [*_again(jobs, fates), *_before(graph, node)]),
            "",
        ]
    return "\n".join(parts).rstrip()


def _where(jobs: Sequence[Job]) -> list[str]:
    lines = [f"{job.outputs[0]}{f' and {len(job.outputs) - 1} more' if len(job.outputs) > 1 else ''}: {amount([job])}" for job in jobs]
    return first(lines, MANY)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)]


def _made(jobs: Sequence[Job]) -> list[str]:
    """Return what the run.json of each job says, equal lines once."""
    lines: dict[str, list[str]] = {}
    for job in jobs:
        facts = run_facts(job)
        text = "no run.json" if facts is None else _said(facts)
        lines.setdefault(text, []).append(job.outputs[0])
    found = [f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {text}" for text, paths in lines.items()]
    return first(found, MANY)


def _said(facts: dict[str, Any]) -> str:
    commit = facts.get("commit")
    parts = [f"commit {str(commit)[:12]}" if commit else f"commit not known ({facts.get('git', 'no reason given')})"]
    if facts.get("dirty"):
        parts[0] += " with changes that are in no commit"
    parts.append(f"on {facts.get('gpu') or facts.get('device', '?')} of {facts.get('host', '?')}")
    if isinstance(facts.get("slurm"), dict):
        parts.append(f"SLURM job {facts['slurm'].get('job')}")
    parts.append(f"{facts.get('seconds', '?')} s, ended {facts.get('finished', '?')}")
    if facts.get("resumed"):
        parts.append(f"resumed: {facts['resumed']}")
    if "torch" in facts:
        parts.append(f"torch {facts['torch']}")
    return ", ".join(parts)


def _again(jobs: Sequence[Job], fates: Fates) -> list[str]:
    """Return what would happen to every job if its results were asked for, equal answers once."""
    answers: dict[tuple[str, ...], list[Fate]] = {}
    for job in jobs:
        fate = fates.of(job)
        answers.setdefault((*map(_alike, fate.why), *fate.notes), []).append(fate)
    lines = []
    for found in answers.values():
        fate, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
        own = [reason.text for reason in fate.why if reason.kind != "made"]
        made = [reason.text for reason in fate.why if reason.kind == "made"]
        lines.append(f"{'yes' if fate.why else 'no'}: {fate.job.outputs[0]}{more}")
        lines += [f"  {text}" for text in (*first(own, MANY), *first(made, FEW))]
        lines += [f"  (not a reason) {note}" for note in fate.notes]
    asked = {id(job) for job in jobs}
    below: dict[tuple[Node, tuple[str, ...]], list[list[str]]] = {}
    for fate in fates.fates.values():
        causes = [reason for reason in fate.why if reason.kind != "made"]
        if causes and id(fate.job) not in asked:
            below.setdefault((node_of(fate.job), tuple(map(_alike, causes))), []).append([reason.text for reason in causes])
    for (node, _), texts in list(below.items())[:MANY]:
        lines.append(f"below it, {node[0]} {node[1]}{f', {len(texts)} jobs, the first' if len(texts) > 1 else ''}:")
        lines += [f"  {text}" for text in first(texts[0], MANY)]
    if len(below) > MANY:
        lines.append(f"and {len(below) - MANY} other ids below it")
    return lines


def _alike(reason: Reason) -> str:
    """Return what two jobs of one id must have in common to be told of together: not the names of their files."""
    return reason.text if reason.kind in ("config", "code", "command") else reason.kind


def _before(graph: Graph, node: Node) -> list[str]:
    """Return, for an absent result, the nearest one on disk that nothing asks for now: what it was before its configuration changed."""
    jobs = graph.jobs[node]
    if node[0] not in PLACES or any(Path(path).exists() for job in jobs for path in job.outputs):
        return []
    left = [one for one in results((node[0],)) if (one.stage, one.id) not in graph.jobs]
    config = json.loads(jobs[0].text)
    old = closest_to(config, left, node[0])
    if old is None:
        return []
    lines = differences(old.config or {}, config)
    for line in list(lines):  # a set that is judged: what changed is in its own configuration
        if line.startswith("distilled: ") and old.config:
            lines.remove(line)
            lines += _inner(graph, str(old.config["distilled"]), str(config["distilled"]))
    head = f"config: on disk is {old.id} ({old.path}), that nothing asks for now; from that one to this:"
    return [head, *(f"  {line}" for line in lines)]


def _inner(graph: Graph, before: str, now: str) -> list[str]:
    """Return how two distilled sets differ, by their ids."""
    old = next((one.config for one in results(("distill",)) if one.id == before and one.config), None)
    new = graph.jobs.get(("distill", now))
    if old is None or new is None:
        return [f"distilled: {before} -> {now}"]
    return [f"distilled {before} -> {now}: {line}" for line in differences(old, json.loads(new[0].text))]
