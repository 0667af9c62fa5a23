"""Canonical JSON and the ids made from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Return the 8 hex digits that name a resolved configuration in a path."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:8]
