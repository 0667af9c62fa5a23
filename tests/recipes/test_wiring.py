"""Every kind of point of every paper, at full scale but for its numbers: two classes, one image each, one step, one evaluation step."""

import copy
import json

import pytest
import torch
from generators.published_xl import Published, conversion, published
from plans import whole

from dd import evaluation, networks, recipes
from dd.artifacts import save_tensors, write_json
from dd.config import digest, parse
from dd.config.stages import Dataset, DistillConfig
from dd.data.imagenet_subsets import POSITIONS
from dd.data.normalise import EPS
from dd.data.registry import DATASETS
from dd.distill import distill
from dd.evaluation.io import read_distilled
from dd.evaluation.run import evaluate
from dd.generators.files import FILES, class_ids
from dd.plan.told import decoded, lineage
from dd.teachers import TEACHERS
from dd.train.config import ExpertConfig, PretrainConfig
from dd.train.experts import experts
from dd.train.gan import train as train_generator
from dd.train.gan_config import GanConfig
from dd.train.pretrain import pretrain


def kinds(value, name=""):
    """Yield what decides the wiring: words, switches, absences, the factor, and whether there is pre-training at all; no other numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from kinds(item, key) if key not in ("training", "steps") else ()
    elif name == "epochs":
        yield f"{name}={value > 0}"
    elif isinstance(value, (str, bool)) or value is None or name == "factor":
        yield f"{name}={value}"


def guides(config):
    """Yield what decides the wiring of the guidance, if there is any."""
    guidance = config.get("guidance")
    return (guidance["kind"], guidance["source"] or "own", *guidance["networks"]) if guidance else ()


def lessons(config):
    """Yield what decides the wiring of a protocol that looks through a network, if it does."""
    protocol = config["protocol"]
    if "features" in protocol:
        yield from (protocol["features"]["network"], protocol["distance"], *(bool(protocol[key]) for key in ("task", "front", "rear")))
    if "teacher" in protocol:
        yield from (protocol["teacher"]["network"], protocol["view"], protocol["mix"])


def same_kind(dataset):
    """Return what a dataset shares with others of which one is enough: GLaD's subsets of ImageNet differ in their classes alone."""
    subset, _, side = dataset.rpartition("_")
    return f"subset_{side}" if subset in POSITIONS else dataset


def wirings():
    """Return configurations in which every distinct distillation and every distinct evaluation of all points at scale paper stands once.

    What a set is made by decides nothing in the training of networks on it but its normalisation, its step size, and how many it decodes.
    """
    found, distillations, evaluations = {}, set(), set()
    for artifacts in whole().cells.values():
        for cells in artifacts.values():
            for cell in cells:
                config = copy.deepcopy(cell.point.config)
                dataset, protocol = same_kind(config["dataset"]), config["protocol"]
                made = (config["method"], dataset, *kinds(config["recipe"]), *guides(config))
                given = (lineage(config), protocol.get("learned_lr"), decoded(config) != config["ipc"])
                judged = (dataset, config["network"], protocol["name"], *lessons(config), *given)
                if made not in distillations or judged not in evaluations:
                    found[" ".join(map(str, (config["method"], *judged, *made[2:])))] = config
                    distillations.add(made)
                    evaluations.add(judged)
    return found


WIRINGS = wirings()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Prepared datasets of the true shape with two classes of random images."""
    made = {}

    def make(name):
        if name not in made:
            spec, folder = DATASETS[name], tmp_path_factory.mktemp(name)
            g = torch.Generator().manual_seed(0)
            for split, each in (("train", 4), ("test", 2)):
                images = torch.randint(0, 256, (2 * each, spec.channels, *spec.size), generator=g).byte()
                if spec.layout == "speech":
                    images = images.float() / 32 - 7  # log-magnitudes
                save_tensors(folder / f"{split}.safetensors", {"images": images, "labels": torch.arange(2).repeat_interleave(each)},
                             {"dataset": name, "fingerprint": "f", "split": split})  # fmt: skip
            stats = {"mean": [0.5] * spec.channels, "std": [0.25] * spec.channels}
            write_json(folder / "manifest.json", {
                "name": name, "classes": ["a", "b"], "channels": spec.channels, "size": list(spec.size), "fingerprint": "f",
                "lineages": {"dc": stats, "idc": stats}, "flip": spec.flip,
                "counts": {"train": [4, 4], "test": [2, 2]}, "smallest_class": 4, **({"range": [-7.0, None], "augment": False} if spec.layout == "speech" else {})})  # fmt: skip
            side = spec.channels * spec.size[0] * spec.size[1]
            if name in ("cifar10", "cifar100"):  # what whitening does is tested elsewhere
                save_tensors(folder / "zca.safetensors", {"mean": torch.zeros(side), "transform": torch.eye(side), "inverse": torch.eye(side)},
                             {"dataset": name, "fingerprint": "f", "eps": EPS})  # fmt: skip
            made[name] = folder
        return made[name]

    return make


SMALL = {
    "iterations": 1, "batch_real": 2, "train_steps": 1, "train_batch": 4, "probe": 2, "inner_max": 2, "window": 2, "inner": 1,
    "syn_steps": 2, "expert_span": 1, "max_start": 1, "models": 1, "batch": 4, "average": 2,
}  # fmt: skip


def shrunk(fields):
    """Return a recipe's fields with small numbers wherever it has them, at any depth."""
    small = {key: shrunk(value) if isinstance(value, dict) else SMALL.get(key, value) for key, value in fields.items()}
    for trained in ("proxy", "squeeze"):
        if trained in small:
            small[trained]["epochs"] = 0
    if "cuts" in small:
        small["cuts"] = small["cuts"][:1]  # one update has one space; how the next one begins is tested elsewhere
    if "experts" in small:
        small["experts"] |= {"count": 1, "epochs": 1}
    return small


def save_stylegan_xl(file, side):
    """Write a generator of the true stages and sizes, of 4 channels, as the conversion script does."""
    torch.manual_seed(0)
    facts, filters = published(16, 10, [7] * ((side // 16).bit_length() - 1), base=512, widest=4)
    facts |= {"z_dim": 4, "w_dim": 8, "classes": 1000, "embedding": 5}
    conversion().write(str(file), *conversion().convert(Published(facts, filters).requires_grad_(False), "0" * 64))


def supply(need, dataset, folder):
    """Make what is needed, of the true architecture, untrained."""
    file = folder / f"{need.kind}-{need.network}-{need.dataset}-{digest(need.config)}.safetensors".replace(" ", "_")
    if need.kind == "teacher":
        teacher = TEACHERS[need.network]
        net = networks.build(teacher.network, 3, teacher.size, max(1, teacher.classes), 0)
        meta = {"config": {"network": teacher.network}, "channels": 3, "size": list(teacher.size), "classes": max(1, teacher.classes), "seed": 0}
        save_tensors(file, {f"model.{name}": value for name, value in net.state_dict().items()}, meta)
    elif need.network in FILES:
        save_stylegan_xl(file, FILES[need.network].size[0])
    elif need.kind == "generator":
        train_generator(parse(GanConfig, {"dataset": {"name": need.dataset}, "generator": need.network, "training": {"batch": 2}}, "gan"), dataset, 0, file)
    elif need.kind == "experts":
        about = {**need.config, "training": {**need.config["training"], "batch": 8}}
        experts(parse(ExpertConfig, {"dataset": {"name": need.dataset}, "lineage": need.lineage, **about}, "experts"), dataset, [0], [file])
    else:
        about = {"dataset": {"name": need.dataset}, "network": need.network, "training": need.config, "lineage": need.lineage}
        pretrain(parse(PretrainConfig, about, "pretrain"), dataset, 0, [0], [file])
    return file


@pytest.fixture(scope="session")
def set_of(tiny, tmp_path_factory):
    """Distil one set for each distinct recipe and dataset: several networks and protocols are trained on it."""
    made = {}

    def make(config):
        key = (config["method"], config["dataset"], config["ipc"] == 0, *kinds(config["recipe"]), *guides(config))
        if key not in made:
            folder = tmp_path_factory.mktemp("set")
            dataset, recipe, fields = tiny(config["dataset"]), recipes.load(config["method"]), shrunk(config["recipe"])
            parsed = parse(recipe.Config, fields, config["method"])
            guidance = config.get("guidance") and shrunk({**config["guidance"], "epochs": 0})
            about = DistillConfig(
                dataset=Dataset(name=config["dataset"]), method=config["method"], ipc=min(config["ipc"], 2), recipe=fields, guidance=guidance
            )
            own, more = recipes.needs_of(about, config["dataset"])
            paths = [[supply(need, None if need.kind == "teacher" else tiny(need.dataset), folder)] for need in [*own, *more]]
            with pytest.MonkeyPatch.context() as patch:
                if hasattr(recipe, "class_ids"):
                    patch.setattr(recipe, "class_ids", lambda name: class_ids(name)[:2])  # of the two classes that there are
                distill(about, dataset, paths, 0, folder)
            each = getattr(recipe, "decoded", lambda config, ipc: ipc)(parsed, about.ipc)
            made[key] = folder, 2 * each or 8
        return made[key]

    return make


@pytest.mark.parametrize("name", WIRINGS, ids=[" ".join(name.split()[:4]) for name in WIRINGS])
def test_one_step_of_every_wiring(name, tiny, set_of, tmp_path):
    config = WIRINGS[name]
    dataset, (out, images) = tiny(config["dataset"]), set_of(config)
    distilled = read_distilled(out / "distilled.safetensors", dataset)
    assert len(distilled.labels) == images
    if "iterations" in config["recipe"]:
        rows = (out / "curve.csv").read_text().splitlines()
        assert len(rows) == 2
        assert float(rows[1].split(",")[2]) > 0, "no gradient reached the images"
    protocol = config["protocol"]["name"]
    settings = json.loads(json.dumps({key: value for key, value in config["protocol"].items() if key != "name"}))
    settings |= {"epochs": 1, "extra_passes": 0}
    for looked_through in ("features", "teacher"):
        if looked_through in settings:
            settings[looked_through]["epochs"] = 0
    rules, recipe = parse(evaluation.config_of(protocol), settings, name), recipes.load(config["method"])
    lineage = recipes.lineage_of(recipe, parse(recipe.Config, config["recipe"], name))
    files = [[supply(need, dataset, tmp_path)] for need in rules.needs(config["dataset"], lineage, "train")]
    (score,) = evaluate(distilled, config["network"], protocol, rules, dataset, 0, [0], needs=files)
    assert 0 <= score.accuracy_last <= 1
    assert len(score.per_class) == 2
