"""Strict, frozen configuration: one definition, all errors at once, and ids that adding a field does not move.

Whatever is hashed stands in one of these models. A field that was added after its stage was first released carries
`added(value)` and is left out of the hashed JSON while it equals that value.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dd.config.canonical import canonical, digest
from dd.errors import ConfigError, nearest

__all__ = ["Frozen", "added", "canonical", "digest", "filled", "hashed", "load_yaml", "merged", "parse"]


LARGEST = 1_000_000  # values of a YAML file, aliases written out
KNOWN = 4096  # configurations that `parse` remembers


class Frozen(BaseModel):
    """A configuration: immutable, unknown keys are errors, text is never read as a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)
_known: dict[tuple[type[BaseModel], str], Any] = {}  # a plan of all papers asks sixty thousand times for fifteen hundred of them
_filled: dict[int, tuple[BaseModel, dict[str, Any]]] = {}


def added(value: Any, **constraints: Any) -> Any:
    """Declare a field that came after its stage was released: default `value`, and absent from ids while it has it."""
    return Field(default=value, json_schema_extra={"added": value}, **constraints)


def hashed(config: BaseModel) -> dict[str, Any]:
    """Return the plain dict that ids are made from: every field, but for `added` ones at their added value."""
    result = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        extra = field.json_schema_extra
        plain = _plain(value)
        if isinstance(extra, dict) and "added" in extra and plain == _plain(extra["added"]):
            continue
        result[name] = plain
    return result


def filled(model: type[BaseModel], data: Any, where: str) -> dict[str, Any]:
    """Return `hashed` of `parse`: data with every field filled in; of equal data the same dict, so nobody may change it.

    Raises:
        ConfigError: see `parse`.
    """
    found = parse(model, data, where)
    pair = _filled.get(id(found))  # an id is a model's own as long as it stands here
    if pair is None:
        if len(_filled) >= KNOWN:
            _filled.clear()
        pair = _filled[id(found)] = found, hashed(found)
    return pair[1]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return hashed(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, mappings merged at any depth; neither is changed."""
    result = dict(base)
    for key, value in over.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, Mapping) else deepcopy(value)
    return result


def parse(model: type[M], data: Any, where: str) -> M:
    """Return `data` as a validated `model`; of equal data the same one, so nobody may change what it holds.

    Args:
        where: the file (and the key in it) that the data came from; every message starts with it.

    Raises:
        ConfigError: one line for each thing that is wrong, all of them at once.
    """
    key = _key(model, data)
    known = None if key is None else _known.get(key)
    if known is not None:
        return cast(M, known)
    try:  # through JSON: strict, and lists may fill tuples
        found = model.model_validate_json(json.dumps(_as_json(data, where)))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(model, item, where) for item in error.errors())) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets in brackets
        raise ConfigError(f"{where}: holds a value that configuration cannot hold: {error}") from None
    if key is not None:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = found
    return found


def _key(model: type[BaseModel], data: Any) -> tuple[type[BaseModel], str] | None:
    """Return what `parse` remembers data by: text that only data of the same values has, or None where there is none."""
    try:
        return model, json.dumps(data, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None  # `_as_json` says why


def _as_json(data: Any, where: str) -> Any:
    """Return plain data as JSON can hold it, keys as text (1 as "1", true as "true").

    Raises:
        ConfigError: a value that JSON has not, or two keys that would become one.
    """
    if data is None or isinstance(data, (bool, int)):
        return data
    if isinstance(data, str):
        if not data.isascii() and any("\ud800" <= letter <= "\udfff" for letter in data):
            raise ConfigError(f"{where}: value {data!r}: holds half of a letter (\\ud800 to \\udfff), which is no text")
        return data
    if isinstance(data, float):
        if not math.isfinite(data):
            raise ConfigError(f"{where}: value {data!r}: must be a finite number")
        return data
    if isinstance(data, (list, tuple)):
        return [_as_json(item, where) for item in data]
    if not isinstance(data, Mapping):
        hint = "; write it in quotes" if isinstance(data, date) else ""
        raise ConfigError(f"{where}: holds a value that configuration cannot hold: {data!r} ({type(data).__name__}){hint}")
    result: dict[str, Any] = {}
    for key, value in data.items():
        if not (key is None or isinstance(key, (str, int, float))):
            raise ConfigError(f"{where}: holds a key that configuration cannot hold: {key!r} ({type(key).__name__}); write it in quotes")
        text = key if isinstance(key, str) else json.dumps(key)
        if text in result:
            raise ConfigError(f"{where}: key {text!r} is written twice, once in quotes")
        result[_as_json(text, where)] = _as_json(value, f"{where}: {text}")
    return result


def _explain(model: type[BaseModel], item: Any, where: str) -> str:
    key = ".".join(str(part) for part in item["loc"])
    value = item.get("input")
    if item["type"] == "extra_forbidden":
        fields = _fields_at(model, item["loc"][:-1])
        return f"{where}: {key}: unknown key{nearest(item['loc'][-1], fields)}"
    if item["type"] == "missing":
        return f"{where}: {key}: is missing"
    hint = ""
    if isinstance(value, str) and item["type"] in {"float_type", "int_type"}:
        hint = _number_hint(value)
    return f"{where}: {key}: value {value!r}: {item['msg'][0].lower() + item['msg'][1:]}{hint}"


def _number_hint(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return ""
    return f" (YAML reads {value!r} as text: a number in this form needs a point and a sign, write {number!r})"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for part in loc:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue  # the tag of a union, or an index
        annotation = fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((c for c in candidates if hasattr(c, "model_fields")), current)
    return list(getattr(current, "model_fields", {}))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which writing a key twice is an error, not a silent choice."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    merge = "tag:yaml.org,2002:merge"
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]  # type: ignore[no-untyped-call]
    if strange := [key for key in keys if isinstance(key, (list, dict, set))]:
        raise yaml.constructor.ConstructorError(None, None, f"key {str(strange[0])!r} is no single value", node.start_mark)
    twice = [str(key) for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"key {min(twice)!r} is written twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _weight(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return how many values a node stands for when every alias (*name) in it is written out.

    Raises:
        ComposerError: a node that holds itself, or more values than LARGEST.
    """
    if id(node) not in known:
        known[id(node)] = 0  # until it is known
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_weight(part, known) for part in parts)
    if not 0 < known[id(node)] <= LARGEST:
        wrong = "holds itself" if not known[id(node)] else f"stands for more than {LARGEST} values"
        raise yaml.composer.ComposerError(None, None, f"what begins here {wrong}", node.start_mark if node else None)
    return known[id(node)]


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


if yaml.__with_libyaml__:

    class _FastLoader(yaml.composer.Composer, yaml.CSafeLoader):
        """The same with libyaml's scanner and parser, ten times as fast.

        What these give is still composed in Python: libyaml's own way to do it ends the process at brackets in brackets, too many.
        """

        def __init__(self, stream: str) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            yaml.composer.Composer.__init__(self)  # type: ignore[no-untyped-call]

    _FastLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(loader: Any, text: str) -> Any:
    """Return what a text holds, as a class of loaders reads it; None where it is empty."""
    one = loader(text)
    node = one.get_single_node()
    _weight(node, {})
    return None if node is None else one.construct_document(node)


def _read_fast(text: str) -> Any:
    """Return what a text holds. What the fast loader refuses is refused by the other one, whose messages show the line."""
    if yaml.__with_libyaml__:
        with suppress(Exception):
            return _read(_FastLoader, text)
    return _read(_UniqueKeyLoader, text)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: missing, not YAML (with line and column), a key written twice, or not a mapping.
    """
    try:
        data = _read_fast(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise ConfigError(f"{path}: has brackets in brackets, too many") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # yaml's constructors raise anything on text that is not what its form says, such as 2001-99-99
        raise ConfigError(f"{path}: holds a value that cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, must be keys and values at top level")
    return data
