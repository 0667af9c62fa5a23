"""From the matrix of a paper's figure to resolved configurations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from dd import evaluation, networks, recipes
from dd.config import filled, merged
from dd.errors import ConfigError, nearest
from dd.plan import pending
from dd.plan.papers import AXES, PARTS, REPEATS, WHOLE, Artifact, Keep, Override, Paper, Scalar, Scale
from dd.sources import guides

FOLLOWS = ("recipe.generator.training.", "recipe.rates", "recipe.cut", "recipe.steps")  # of the generator
SETS = ("steps", "candidates", "cuts")  # lists in which a value stands once; others have a value for each of something


@dataclass
class Point:
    """One cell: `at`, the paper's own coordinates, and `config`, what is run. The two never mix.

    config keys: dataset, ipc, method, recipe {...}, network, protocol {name, ...}, sets, nets; step, unless it is the last; guidance
    {...}, if there is any.
    scaled: what the scale changed, as text. chosen: which coordinates or settings are our choice.
    """

    at: dict[str, Scalar]
    config: dict[str, Any]
    scaled: list[str] = field(default_factory=list)


def contains(at: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Tell whether `at` has every value of `part` (or one of them, where `part` gives several)."""
    return all(at.get(key) in (value if isinstance(value, (list, tuple)) else (value,)) for key, value in part.items())


def expand(paper: Paper, name: str, artifact: Artifact, scale: Scale, where: str) -> list[Point]:
    """Return the points of one artifact at one scale.

    Raises:
        ConfigError: an unknown axis, key, method or network; an exclude, override or keep that matches nothing; no points at all;
            a pending value that is not pending.
    """
    where = f"{where}: artifacts.{name}"
    pending.check(artifact, {**AXES, **paper.axes}, where)
    if not artifact.matrix and not artifact.every_method:
        return []
    keeps = _keeps(paper, name, scale)
    ats, _ = pending.split(artifact.pending, _kept(paper, name, artifact, scale, where))
    if not ats:
        raise ConfigError(f"{where}: has no points left")
    used: set[int] = set()
    overrides = [*paper.overrides, *artifact.overrides]
    points = [_resolve(paper, at, overrides, used, scale, where) for at in ats]
    for number, override in enumerate(artifact.overrides, start=len(paper.overrides)):
        if number not in used and not keeps:
            raise ConfigError(f"{where}: overrides: when {dict(override.when)} matches no point")
    return points


def check_rules(paper: Paper, where: str) -> None:
    """Check that each of a paper's own overrides, and each implied coordinate, is about some point of some artifact.

    Raises:
        ConfigError: a coordinate that no point can have, or values that no point has: a misspelt one would change results in silence.
    """
    ats = [at for name, artifact in paper.artifacts.items() if artifact.matrix or artifact.every_method
           for at in _coordinates(paper, artifact, f"{where}: artifacts.{name}")]  # fmt: skip
    known = {*AXES, *paper.axes, *paper.at, *paper.copy_, *(key for rule in paper.implied for key in rule.set)}
    for axis, values in paper.printed.items():
        if axis not in known:
            raise ConfigError(f"{where}: printed: unknown axis {axis!r}{nearest(axis, known)}")
        there = {str(at[axis]) for at in ats if axis in at}
        for value in values:
            if value not in there:
                raise ConfigError(f"{where}: printed.{axis}: no point has the value {value!r}{nearest(value, there)}")
    for kind, rules in (("overrides", paper.overrides), ("implied", paper.implied)):
        for rule in rules:
            for key in rule.when:
                if key not in known:
                    raise ConfigError(f"{where}: {kind}: when: unknown coordinate {key!r}{nearest(key, known)}")
            if not any(contains(at, rule.when) for at in ats):
                raise ConfigError(f"{where}: {kind}: when {dict(rule.when)} matches no point of any artifact")


def waiting(paper: Paper, name: str, artifact: Artifact, scale: Scale) -> list[pending.Pending]:
    """Return the pending points of one artifact at one scale, with their places among those of `expand`."""
    return pending.split(artifact.pending, _kept(paper, name, artifact, scale, name))[1] if artifact.pending else []


def _keeps(paper: Paper, name: str, scale: Scale) -> list[Keep]:
    return [keep for keep in scale.keep if keep.paper == paper.paper and (not keep.artifacts or name in keep.artifacts)]


def _kept(paper: Paper, name: str, artifact: Artifact, scale: Scale, where: str) -> list[dict[str, Scalar]]:
    """Return the coordinates of all points that the scale keeps, also of those that wait."""
    ats = list(_coordinates(paper, artifact, where))
    for keep in _keeps(paper, name, scale):
        kept = [at for at in ats if contains(at, {k: v for k, v in keep.points.items() if k in at})]
        if not kept:
            raise ConfigError(f"scale {scale.scale}: keep for {paper.paper}.{name}: {keep.points} matches none of its points")
        ats = kept
    return ats


def _coordinates(paper: Paper, artifact: Artifact, where: str) -> Iterator[dict[str, Scalar]]:
    axes = {**AXES, **paper.axes}
    seen: list[dict[str, Scalar]] = []
    excluded: set[int] = set()
    base = dict(artifact.matrix)
    if artifact.every_method:
        base["method"] = tuple(recipes.names())
    base = pending.extended(artifact, base)
    for block in ({}, *artifact.include):
        matrix = {**base, **block}
        for key, values in matrix.items():
            if key not in axes:
                raise ConfigError(f"{where}: matrix: unknown axis {key!r}{nearest(key, axes)}")
            if not values:
                raise ConfigError(f"{where}: matrix.{key}: has no values")
        for values in itertools.product(*matrix.values()):
            at: dict[str, Scalar] = {**paper.at, **dict(zip(matrix, values, strict=True))}
            for key, source in paper.copy_.items():
                if source in at:
                    at[key] = at[source]
            for rule in paper.implied:
                if contains(at, rule.when):
                    at = {**{name: _filled(value, at, where) for name, value in rule.set.items()}, **at}
            hit = [number for number, part in enumerate(artifact.exclude) if contains(at, part)]
            excluded.update(hit)
            if not hit and at not in seen:
                seen.append(at)
                yield at
    for number, part in enumerate(artifact.exclude):
        if number not in excluded:
            raise ConfigError(f"{where}: exclude: {dict(part)} matches no point")
    if not seen:
        raise ConfigError(f"{where}: has no points left")


def _filled(value: Scalar, at: Mapping[str, Scalar], where: str) -> Scalar:
    """Return a value with other coordinates in the places of their names in braces."""
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        return value.format_map({name: "" if item is None else item for name, item in at.items()})
    except (KeyError, ValueError, IndexError) as error:
        name = str(error).strip("'")
        raise ConfigError(f"{where}: implied: value {value!r}: no coordinate {name!r}{nearest(name, at)}") from None


def _resolve(paper: Paper, at: dict[str, Scalar], overrides: list[Override], used: set[int], scale: Scale, where: str) -> Point:
    try:
        given = _configure(paper, at, overrides, used)
        full = validated(_completed(given), "")
        small = _scale(full, given["recipe"], scale)
        return _chosen_already(Point(at, validated(small, ""), _differences(full, small)))
    except ConfigError as error:
        lines = [f"{where}: {line.removeprefix(': ')}" for line in str(error).splitlines()]
        raise ConfigError("\n".join(lines)) from None


def _chosen_already(point: Point) -> Point:
    """Return a point without its rule for a step where that has one set to pick from, the final one, and say so of what was changed."""
    config = point.config
    if not isinstance(config.get("step"), dict):
        return point
    if set(recipes.published(config["method"], config["recipe"])) <= {0, config["recipe"]["iterations"]}:
        return Point(point.at, {**config, "step": None}, [*point.scaled, "nothing to choose from: the final set"])
    return point


def _configure(paper: Paper, at: dict[str, Scalar], overrides: list[Override], used: set[int]) -> dict[str, Any]:
    """Field default < recipe default < paper defaults < the point's coordinates < overrides."""
    axes = {**AXES, **paper.axes}
    named = {k: key for k in at if (key := axes.get(k)) is not None and at[k] is not None}
    coordinates = {key: paper.translate.get(k, {}).get(str(at[k]), at[k]) for k, key in named.items()}
    for key in ("dataset", "method", "network", "protocol.name"):
        if key not in coordinates:
            raise ConfigError(f"a point {at} says nothing of {key}")
    method, dataset, ipc = coordinates["method"], coordinates["dataset"], coordinates.get("ipc", 0)
    _check_method(method)
    recipe = recipes.load(str(method))
    protocol = str(coordinates["protocol.name"])
    evaluation.config_of(protocol)
    config: dict[str, Any] = {"sets": paper.defaults.sets, "nets": paper.defaults.nets, "ipc": ipc, "protocol": {}}
    config["recipe"] = {**getattr(recipe, "defaults", lambda dataset, ipc: {})(dataset, ipc)}
    config["recipe"] = merged(config["recipe"], paper.defaults.recipe.get(str(method), {}))
    config["protocol"] = merged({}, paper.defaults.protocol.get(protocol, {}))
    fields = recipe.Config.model_fields
    kind = coordinates.get("guidance.kind")
    meant = [number for number, override in enumerate(overrides) if contains(at, override.when)]
    used.update(meant)
    for number in meant:
        kind = overrides[number].set.get("guidance.kind", kind)
    if kind is not None:
        known = guides.defaults(str(method), str(dataset), int(ipc or 0), str(kind))
        config["guidance"] = merged(known, paper.defaults.guidance.get(str(kind), {}))
    for key, value in coordinates.items():
        if key.startswith("recipe.") and key.split(".")[1] not in fields:
            continue  # a coordinate that means nothing to this method (the extractor of a random selection)
        if key.startswith("guidance.") and kind is None:
            continue
        _set(config, key, value)
    for number in meant:
        for key, value in overrides[number].set.items():
            _set(config, key, value)
    _check_method(config["method"])
    for key in ("sets", "nets"):
        if type(config[key]) is not int or not 1 <= config[key] <= REPEATS:
            raise ConfigError(f"{key}: value {config[key]!r}; allowed: 1 to {REPEATS}")
    if not getattr(recipe, "USES_IPC", True):
        config["ipc"] = 0
    if not getattr(recipe, "RANDOM", True):
        config["sets"] = 1
    return config


def _check_method(name: object) -> None:
    """Check what a method is called, before its file is imported.

    Raises:
        ConfigError: it cannot be a folder of results.
    """
    if not re.fullmatch("[a-z0-9_]+", str(name)):
        raise ConfigError(f"method: value {name!r}: a method's name is small letters, digits and _ (it becomes a folder)")


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what a recipe has for a dataset and a number of images per class, where the paper says nothing."""
    recipe = recipes.load(str(config["method"]))
    if not hasattr(recipe, "complete"):
        return config
    return {**config, "recipe": recipe.complete(config["recipe"], str(config["dataset"]), int(config["ipc"]))}


def validated(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the configuration with every field of the recipe and the protocol filled in and checked; its parts are for reading only.

    Raises:
        ConfigError: an unknown key, a wrong type or value, an unknown network or dataset, a step that is not published.
    """
    method, protocol = config["method"], config["protocol"]["name"]
    settings = {key: value for key, value in config["protocol"].items() if key != "name"}
    recipe = filled(recipes.load(method).Config, config["recipe"], f"{where}recipe {method}")
    settings = filled(evaluation.config_of(protocol), settings, f"{where}protocol {protocol}")
    guidance = _guidance(config, where)
    for name in network_names({**config, "recipe": recipe, **guidance}):
        networks.parse(guides.architecture(name))
    step, published = config.get("step"), recipes.published(method, recipe)
    if isinstance(step, dict):
        _check_rule(step, method, published, f"{where}step")
    elif step is not None and step != recipe.get("iterations") and step not in published:
        raise ConfigError(f"{where}step: value {step} is not published by {method}; recipe.steps has {list(published)}")
    rest = {key: value for key, value in config.items() if key != "step" or step != recipe.get("iterations")}
    return {**rest, "recipe": recipe, "protocol": {"name": protocol, **settings}, **guidance}


def _check_rule(rule: Mapping[str, Any], method: str, published: Sequence[int], where: str) -> None:
    """Check a rule by which a published step is picked: split, which images it is judged on, and judges, by which networks.

    Raises:
        ConfigError: another key, another split, no judges, or a method that publishes no steps to pick from.
    """
    for key in rule:
        if key not in ("split", "judges"):
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(key, ('split', 'judges'))}")
    if "judges" in rule and not (isinstance(rule["judges"], dict) and rule["judges"]):
        raise ConfigError(f"{where}.judges: value {rule['judges']!r}: must map networks to the fields of the protocol that they have")
    if rule.get("split") not in ("holdout", "test"):
        raise ConfigError(f"{where}.split: value {rule.get('split')!r}; allowed: holdout, test")
    if not published:
        raise ConfigError(f"{where}: {method} publishes no steps to pick from; give recipe.steps")


def _guidance(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return {"guidance": its fields, filled in and checked}, or nothing; guides of the set's own images name no source."""
    given = config.get("guidance")
    if given is None:
        return {}
    if "kind" not in given:
        names = ", ".join(f"guidance.{name}" for name in given)
        raise ConfigError(f"{where}guidance: {names}: set for a point without guidance.kind; add the guidance to `when`, or leave it out")
    if "iterations" not in recipes.load(config["method"]).Config.model_fields:
        raise ConfigError(f"{where}guidance: method {config['method']} selects real images: there is nothing to guide; leave it out")
    source = given.get("source")
    own = {**given, "source": None if source == config["dataset"] else source}
    if "alpha" not in given:
        raise ConfigError(f"{where}guidance: alpha is missing: no value is known for method {config['method']}; give guidance.alpha")
    return {"guidance": filled(guides.Guidance, own, f"{where}guidance")}


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    if key not in WHOLE and not key.startswith(tuple(f"{part}." for part in PARTS)):
        raise ConfigError(f"unknown configuration key {key!r}{nearest(key, [*WHOLE, *(f'{part}.FIELD' for part in PARTS)])}")
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = deepcopy(value)


def _scale(config: dict[str, Any], given: dict[str, Any], scale: Scale) -> dict[str, Any]:
    """Apply map, then cap, to a configuration with every field filled in; given: its recipe as it was before that."""
    step = deepcopy({key: value for key, value in config.items() if key == "step"})  # it is checked when all is as it will be
    config = {key: value for key, value in config.items() if key != "step"}  # its parts are others' too: they are replaced, not changed
    maps = scale.map
    config["dataset"] = maps.get("dataset", {}).get(config["dataset"], config["dataset"])
    if config.get("guidance"):
        source = config["guidance"]["source"]
        config["guidance"] = {**config["guidance"], "source": maps.get("dataset", {}).get(source, source)}
    config["ipc"] = maps.get("ipc", {}).get(str(config["ipc"]), config["ipc"])
    if hasattr(recipes.load(config["method"]), "complete"):  # what it has for another dataset is something else
        config = validated(_completed({**config, "recipe": deepcopy(given)}), f"scale {scale.scale}: ")
    protocol = str(maps.get("protocol", {}).get(config["protocol"]["name"], config["protocol"]["name"]))
    if protocol != config["protocol"]["name"]:
        rule = step.get("step")
        for own in rule.get("judges", {}).values() if isinstance(rule, dict) else ():
            own |= {key: _usual(protocol).get(key) for key, value in own.items() if value == _usual(config["protocol"]["name"]).get(key)}
        config["protocol"] = {"name": protocol, **_changed(config["protocol"])}
        config = validated(config, f"scale {scale.scale}: ")
    config = _map_networks({**config, **step}, maps.get("network", {}))  # from here on every mapping is our own
    for key, most in scale.cap.items():
        *path, last = key.split(".")
        place: Any = config
        for part in path:
            place = place.get(part, {}) if isinstance(place, dict) else {}
        value = place.get(last) if isinstance(place, dict) else None
        if isinstance(value, (int, float)) and value > most:
            place[last] = most
        elif isinstance(value, (list, tuple)):
            capped = [min(item, most) for item in value]
            place[last] = list(dict.fromkeys(capped)) if last in SETS else capped
    return config


def _changed(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a paper changed of a protocol, but for its length: a shorter protocol takes that over."""
    usual = _usual(protocol["name"])
    return {key: value for key, value in protocol.items() if key not in ("name", "epochs") and value != usual.get(key)}


def _usual(protocol: str) -> dict[str, Any]:
    """Return the fields of a protocol as it comes."""
    return filled(evaluation.config_of(protocol), {}, "protocol")


def _map_networks(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        small: dict[str, Any] = {}
        for k, v in value.items():
            if k == "networks" and isinstance(v, list):
                small[k] = [names.get(name, name) for name in v]
            elif k == "judges" and isinstance(v, dict):
                small[k] = {names.get(name, name): own for name, own in v.items()}
        return small | {k: names.get(v, v) if k == "network" else _map_networks(v, names) for k, v in value.items() if k not in small}
    return value


def network_names(value: Any) -> Iterator[str]:
    """Yield the networks that a configuration names, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "network":
                yield item
            elif (key == "networks" and isinstance(item, list)) or (key == "judges" and isinstance(item, dict)):
                yield from item
            else:
                yield from network_names(item)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _differences(full: dict[str, Any], small: dict[str, Any]) -> list[str]:
    """Return what the scale changed, in words: "dataset digits", "iterations 60"."""
    before, after = _flat(full), _flat(small)
    if before.get("protocol.name") != after.get("protocol.name"):
        before = {k: v for k, v in before.items() if not k.startswith("protocol.") or k == "protocol.name"}
        after = {k: v for k, v in after.items() if k in before or k == "protocol.epochs"}
    if before.get("recipe.generator.name") != after.get("recipe.generator.name"):  # all that follows from it
        after = {key: value for key, value in after.items() if not key.startswith(FOLLOWS)}
    changed = [key for key in after if after[key] != before.get(key)]
    short = {"protocol.name": "protocol", "protocol.epochs": "evaluation epochs", "network": "evaluation network"}
    names = [short.get(key, _called(key)) for key in changed]
    said = [f"{name} {_words(after[key])}" for name, key in zip(names, changed, strict=True)]
    return list(dict.fromkeys(said))  # a method on latents says some things of itself and of its base


def _called(key: str) -> str:
    """Return what people call a configuration key."""
    return key.removeprefix("recipe.").removeprefix("settings.").replace("extractor.network", "extractor")


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "the set's own" if value is None else str(value)
