"""What Snakemake recorded when it made a file: its parameters, and checksums of what it was made from.

Snakemake keeps a JSON file of every output in `.snakemake/metadata`. It is read here as it lies, without Snakemake.
"""

from __future__ import annotations

import ast
import binascii
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METADATA = Path(".snakemake", "metadata")
INCOMPLETE = Path(".snakemake", "incomplete")
HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Record:
    """How a file was made.

    rule: of that name. params: as they were recorded, each the `repr` of a value; they have no names. code: identity of the code, 12 hex
    digits; None: the rule has none. inputs: sorted paths. checksums: path -> 64 hex digits of a sha256, of inputs that were not too large.
    command: the shell command of the rule, before anything was filled in. started, ended: seconds since 1970.
    """

    rule: str
    params: frozenset[str]
    code: str | None
    inputs: tuple[str, ...]
    checksums: Mapping[str, str]
    command: str | None
    started: float | None
    ended: float | None

    def objects(self) -> list[dict[str, Any]]:
        """Return the parameters that are JSON objects: the configuration, and settings of a drawing."""
        found = []
        for value in map(_value, sorted(self.params)):
            if isinstance(value, str) and value.startswith("{"):
                try:
                    found.append(json.loads(value))
                except ValueError:
                    continue
        return found

    def others(self) -> frozenset[str]:
        """Return the parameters, as they were recorded, that are neither JSON objects nor the identity of the code: arguments."""
        return frozenset(one for one in self.params if not _is_code(_value(one)) and not _is_object(_value(one)))


def recorded(path: Path | str, root: Path = Path(".")) -> Record | None:
    """Return what Snakemake recorded of an output, or None where it recorded nothing that can be read.

    path: relative to `root`, as rules name it. root: of the checkout.
    """
    try:
        data = json.loads(_place(root / METADATA, str(path)).read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not isinstance(data.get("params"), list):
            return None
        params = frozenset(str(one) for one in data["params"])
        codes = [value for value in map(_value, sorted(params)) if _is_code(value)]
        return Record(
            rule=str(data.get("rule")),
            params=params,
            code=codes[0] if codes else None,
            inputs=tuple(sorted(map(str, data.get("input") or ()))),
            checksums={str(name): str(sum_).removeprefix("sha256:") for name, sum_ in (data.get("input_checksums") or {}).items()},
            command=data.get("code"),
            started=data.get("starttime"),
            ended=data.get("endtime"),
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def recorded_code(path: Path | str, root: Path = Path(".")) -> str | None:
    """Return the identity of the code that made a file, or None where Snakemake recorded none."""
    record = recorded(path, root)
    return record.code if record else None


def interrupted(path: Path | str, root: Path = Path(".")) -> bool:
    """Return whether the job that makes a file was begun and did not end: Snakemake makes it again."""
    return _place(root / INCOMPLETE, str(path)).exists()


def records(folder: Path) -> dict[str, Path]:
    """Return the files of which Snakemake keeps a record in a folder (`METADATA` or `INCOMPLETE` of a checkout), and where it stands."""
    found = {}
    for at, _, files in os.walk(folder):
        parts = Path(at).relative_to(folder).parts
        for name in files if all(part.startswith("@") for part in parts) else ():
            try:
                text = "".join(part[1:] for part in parts) + name
                found[urlsafe_b64decode(text).decode()] = Path(at, name)
            except (binascii.Error, UnicodeDecodeError):
                continue  # no record
    return found


def _place(folder: Path, path: str) -> Path:
    """Return where Snakemake keeps the record of a path: its name in base64, cut where it is longer than a file's name may be."""
    length = _longest(folder) - 1
    name = urlsafe_b64encode(path.encode()).decode()
    parts = [name[at : at + length] for at in range(0, len(name), length)]
    return folder.joinpath(*("@" + part for part in parts[:-1]), parts[-1])


def _longest(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX") or 255
    except (OSError, ValueError, AttributeError):
        return 255


def _value(text: str) -> Any:
    """Return the value of a literal; of what is none, its text. Nothing is evaluated."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _is_code(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 12 and set(value) <= HEX


def _is_object(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("{")
