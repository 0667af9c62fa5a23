"""Errors that are shown to people: they name the file, the key, the value, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DDError(Exception):
    """A mistake in input, configuration or environment; the command line prints it without a traceback and exits 1."""


class ConfigError(DDError):
    """A configuration value that is unknown, of the wrong type, or not allowed."""


class DataError(DDError):
    """Raw or prepared data that are missing, damaged or inconsistent."""


class ArtifactError(DDError):
    """A result file that is missing, damaged, or does not belong to the configuration that asks for it."""


class Stopped(Exception):
    """A job was asked to stop: what is finished is kept, its state is saved, and the next start continues. It is no mistake."""


def nearest(value: object, allowed: Iterable[object]) -> str:
    """Return "; did you mean 'x'? allowed: a, b, c" for a value that is not among the allowed ones."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} allowed: {', '.join(names) or '(nothing)'}" if hint else f"; allowed: {', '.join(names) or '(nothing)'}"
