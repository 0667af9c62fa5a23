"""Plans of the papers as they are, made once a scale: at scale paper one takes seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from dd.config import parse
from dd.plan import Plan
from dd.plan.papers import Settings

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"


@cache
def whole(scale: str = "paper") -> Plan:
    """Return the plan of all papers at a scale; it is shared, so only read it."""
    return Plan(parse(Settings, {"scale": scale, "papers": []}, "config.yaml"), WORKFLOW)
