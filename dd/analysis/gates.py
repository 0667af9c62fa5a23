"""What was measured of a generator, against its gates, and who must hear of it. Nothing heavy at the top: figures read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dd.artifacts import read_json
from dd.errors import ArtifactError, DDError

KEYS = {"value", "gate", "passed"}  # of a measure
UNMEASURED = "no gates are measured: there is no classifier of 1,000 classes here to look through"  # of generators from files


class GateError(DDError):
    """A generator is below a gate, and `strict` asks not to distil through such."""


def read(path: Path | str) -> dict[str, Any]:
    """Return what a file of measures holds: measures, passed, details, samples, classifier.

    Raises:
        ArtifactError: missing, damaged, or another file.
    """
    found = read_json(path)
    measures = found.get("measures") if isinstance(found, dict) else None
    if not isinstance(measures, dict) or not all(isinstance(one, dict) and set(one) >= KEYS for one in measures.values()):
        raise ArtifactError(f"{path}: holds no measures of a generator; delete it and run again")
    return dict(found)


def below(found: Mapping[str, Any]) -> list[str]:
    """Return in words each measure that missed its gate: "consistency 0.71 < 0.9"."""
    return [_missed(name, one["value"], *one["gate"]) for name, one in found["measures"].items() if not one["passed"]]


def gate(low: float | None, high: float | None) -> str:
    """Return a gate in words: "0.9 and more", "0.6 to 1.2"."""
    if low is None or high is None:
        return f"{low:g} and more" if low is not None else f"{high:g} and less" if high is not None else "any"
    return f"{low:g} to {high:g}"


def demand(paths: Iterable[Path | str]) -> None:
    """Refuse to distil through a generator that is below a gate.

    Args:
        paths: files of measures.

    Raises:
        GateError: a measure is below its gate. ArtifactError: a file is missing or damaged.
    """
    for path in paths:
        measures = read(path)["measures"]
        if not measures:
            raise ArtifactError(f"{path}: holds no measures of a generator; delete it and run again")
        failed = {name: one for name, one in measures.items() if not one["passed"]}
        lines = [f"{name}: value {_number(one['value'], *one['gate'])}, gate {gate(*one['gate'])}" for name, one in failed.items()]
        if lines:
            raise GateError(
                f"{path}: the generator is below its gate: {'; '.join(lines)}. Train it longer (recipe.generator.epochs), or set "
                f"strict: false in config.yaml to distil through it all the same, with a warning beside the results"
            )


def _missed(name: str, value: float | None, low: float | None, high: float | None) -> str:
    shown = _number(value, low, high)
    if value is None:
        return f"{name} is {shown}"
    return f"{name} {shown} < {low:g}" if low is not None and value < low else f"{name} {shown} > {high:g}"


def _number(value: float | None, *gates: float | None) -> str:
    """Return a value with two digits after the point, or with as many as tell it from its gates: 0.8996 is not 0.90."""
    if value is None:
        return "no number"
    texts = [f"{value:.{digits}f}" for digits in (2, 3, 4, 6)]
    return next((text for text in texts if all(bound is None or float(text) != bound or value == bound for bound in gates)), texts[-1])
