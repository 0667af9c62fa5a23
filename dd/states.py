"""What earlier runs of an unfinished job left in `.resume` beside its results: dropped if other code made it, else counted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dd.artifacts import discard, write_text
from dd.errors import ArtifactError


def states_of(outs: Sequence[Path]) -> list[Path]:
    """Return where the states of a job's results stand while they are made: `.resume/{name}` beside each."""
    return [out.parent / ".resume" / out.name for out in outs]


@contextmanager
def continued(states: Sequence[Path], code: str | None) -> Iterator[dict[str, Any]]:
    """Look after the states of a job while it works; yield what run.json says of earlier runs.

    A state that other code made is removed: continued, the result would be of neither code, and be taken for that of the new one. So is
    one whose code nobody noted. How long this run worked is noted beside the states when it stops or fails, for the next one.

    Args:
        states: the files that the job may continue from; the note stands beside the first.
        code: identity of the code that runs now; None for not known, as where a person starts a job by hand: then states are kept.

    Yields:
        `resumed`: how many earlier runs left a state to go on from. `earlier_seconds`: how long these worked; those that were killed
        are not counted.
    """
    note = states[0].with_name(f"{states[0].name}.job.json")
    before: dict[str, Any] = {}
    if any(state.exists() for state in states):
        before = _read(note)
        if code is not None and before.get("code") != code:
            print(f"{states[0].parent}: other code left a state here; starting anew", file=sys.stderr, flush=True)
            before = {}
            for state in states:
                discard(state)
    began = time.monotonic()
    facts = {"resumed": before.get("runs", 0), "earlier_seconds": before.get("seconds", 0.0)}
    now = {"code": code, "runs": facts["resumed"] + 1, "seconds": facts["earlier_seconds"]}
    write_text(note, json.dumps(now))
    try:
        yield facts
    except BaseException:
        if not any(state.exists() for state in states):
            discard(note)
            raise
        with suppress(ArtifactError):  # of a full disk, the first error says more
            write_text(note, json.dumps({**now, "seconds": round(now["seconds"] + time.monotonic() - began, 3)}))
        raise
    discard(note)


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return {"code": found["code"], "runs": int(found["runs"]), "seconds": float(found["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
