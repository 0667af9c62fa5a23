"""Which augmentations exist and which the papers use where. Imports no torch: configurations are checked with it.

A strategy is op names joined by "_", such as "color_crop_cutout"; a policy says how many of them meet an image.
"""

from __future__ import annotations

from dd.errors import ConfigError, nearest

OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
POLICIES = ("oneof", "stack", "none")
LINEAGES = ("dc", "idc")
USES = ("match", "train", "eval")


def ops_of(strategy: str) -> tuple[str, ...]:
    """Return the op names of a strategy, in its order.

    Raises:
        ConfigError: it names no op, an unknown one, or one twice.
    """
    names = tuple(strategy.split("_"))
    for name in names:
        if name not in OPS:
            hint = "" if strategy not in ("", "none") else "; for no augmentation use the policy 'none'"
            raise ConfigError(f"augmentation strategy {strategy!r}: unknown op {name!r}{nearest(name, OPS)}{hint}")
        if names.count(name) > 1:
            raise ConfigError(f"augmentation strategy {strategy!r}: op {name!r} is named twice")
    return names


def check(policy: str, strategy: str) -> None:
    """Raise ConfigError unless `policy` exists and `strategy` suits it; with "none", "" and "none" do too."""
    if policy not in POLICIES:
        raise ConfigError(f"augmentation policy {policy!r} is unknown{nearest(policy, POLICIES)}")
    if not (policy == "none" and strategy in ("", "none")):
        ops_of(strategy)


def default_strategy(flip: bool, lineage: str, use: str, cutmix: bool) -> str:
    """Return the strategy that a lineage's code uses.

    Args:
        flip: whether a mirrored image keeps its class (not so for MNIST and SVHN).
        lineage: "dc" (policy oneof) or "idc" (policy stack).
        use: "match" (inside the objective), "train" (networks during distillation) or "eval" (students).
        cutmix: whether CutMix follows, which takes cutout's place in training networks. Only the idc lineage has it.

    Not covered, because they depend on more than these: the idc lineage matches MNIST at factor 2 with "color_crop", and trains
    its students with "color_crop_scale_rotate".

    Raises:
        ConfigError: an unknown lineage or use, or CutMix in the dc lineage.
    """
    if lineage not in LINEAGES:
        raise ConfigError(f"augmentation lineage {lineage!r} is unknown{nearest(lineage, LINEAGES)}")
    if use not in USES:
        raise ConfigError(f"augmentation use {use!r} is unknown{nearest(use, USES)}")
    if lineage == "dc":
        if cutmix:
            raise ConfigError("augmentation: the dc lineage has no CutMix; set cutmix to false or the lineage to 'idc'")
        return _joined("color", "crop", "cutout", "flip" * flip, "scale", "rotate")
    if use == "match":
        return "color_crop_cutout"
    cutout = "cutout" * (not cutmix)
    if use == "train":
        return _joined("color", "crop", cutout)
    return _joined("color", "crop", cutout, "flip" * flip, "scale", "rotate")


def _joined(*names: str) -> str:
    return "_".join(name for name in names if name)
