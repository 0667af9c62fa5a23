"""Analyses against naive sums in float64."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dd import networks
from dd.analysis.accuracy import accuracy
from dd.analysis.embeddings import embeddings
from dd.analysis.models import models
from dd.artifacts import load_tensors, write_json
from dd.config import digest, hashed, parse
from dd.config.stages import AnalyseConfig, Dataset
from dd.data.load import load, manifest
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import write_distilled
from dd.rng import stream
from dd.train.config import PretrainConfig
from dd.train.pretrain import pretrain
from dd.types import DistilledSet

NETWORK = "convnet3_in_w8"


@pytest.fixture(scope="module")
def bench(digits_dir, tmp_path_factory):
    """Digits whose two lineages differ, checkpoints of both (three seeds, one epoch), and a set decoded from 10 stored images."""
    root = tmp_path_factory.mktemp("analyses")
    data = root / "digits"
    data.mkdir()
    for file in digits_dir.iterdir():
        if file.is_file() and file.name != "manifest.json":
            os.link(file, data / file.name)
    facts = {**manifest(digits_dir), "lineages": {"dc": {"mean": [0.3], "std": [0.4]}, "idc": {"mean": [0.1], "std": [0.8]}}}
    write_json(data / "manifest.json", facts)
    files, ids = {}, {}
    for lineage in ("dc", "idc"):
        config = PretrainConfig(dataset=Dataset(name="digits"), network=NETWORK, lineage=lineage)
        files[lineage] = [root / lineage / f"seed{seed}.safetensors" for seed in range(3)]
        pretrain(config, data, 1, range(3), files[lineage])
        ids[lineage] = digest(hashed(config))
    generator = torch.Generator().manual_seed(0)
    stored = torch.rand(10, 1, 16, 16, generator=generator)
    images = torch.rand(40, 1, 16, 16, generator=generator)
    labels = torch.arange(10).repeat_interleave(4)
    about = {"dataset": "digits", "fingerprint": facts["fingerprint"]}
    # statistics of its own that no network was trained with: they must not be used
    write_distilled(root / "set.safetensors", DistilledSet(images, labels, torch.tensor([9.0]), torch.tensor([7.0]), None, None, about, stored))
    chosen = torch.arange(20) * 70
    empty = torch.empty(0, 1, 16, 16)
    picked = DistilledSet(empty, load(data, "train")[1][chosen], torch.tensor([9.0]), torch.tensor([7.0]), chosen, None, about)
    write_distilled(root / "picked.safetensors", picked)
    return {"root": root, "data": data, "files": files, "ids": ids, "images": images, "labels": labels, "facts": facts}


def config(bench, lineage="dc", **more):
    about = {"distilled": "00000000", "network": NETWORK, "pretrained": bench["ids"][lineage], "epoch": 1, "label": 3, "real": 20, **more}
    return parse(AnalyseConfig, about, "analyse")


def features(checkpoint, images, lineage, bench):
    """Embed raw images with a network of ours, in float64, normalised by hand."""
    tensors, _ = load_tensors(checkpoint)
    net = networks.build(NETWORK, 1, (16, 16), 10, 0)
    net.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    about = bench["facts"]["lineages"][lineage]
    with torch.no_grad():
        return net.double().eval().embed((images.double() - about["mean"][0]) / about["std"][0]).numpy()


@pytest.mark.parametrize("lineage", ["dc", "idc"])
def test_embeddings_use_the_statistics_that_the_network_was_trained_with(bench, tmp_path, lineage):
    out = tmp_path / "out.safetensors"
    embeddings(config(bench, lineage), bench["data"], bench["root"] / "set.safetensors", bench["files"][lineage][:1], out)
    tensors, meta = load_tensors(out)
    assert tensors["syn"].dtype == torch.float32
    wanted = features(bench["files"][lineage][0], bench["images"][bench["labels"] == 3], lineage, bench)
    np.testing.assert_allclose(tensors["syn"].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert (meta["class"], meta["embedded"], meta["stored"]) == ("3", 4, 1)
    images, labels = load(bench["data"], "train")
    every = features(bench["files"][lineage][0], images[labels == 3] / 255, lineage, bench)
    distances = ((tensors["real"].double().numpy()[:, None] - every[None]) ** 2).sum(2)
    assert tensors["real"].shape[0] == 20
    assert distances.min(1).max() < 1e-6 and len(set(distances.argmin(1))) == 20, "20 different real images of the class"
    again = tmp_path / "again.safetensors"
    embeddings(config(bench, lineage), bench["data"], bench["root"] / "set.safetensors", bench["files"][lineage][:1], again)
    assert out.read_bytes() == again.read_bytes()


def test_a_selection_is_embedded_from_the_real_images(bench, tmp_path):
    embeddings(config(bench), bench["data"], bench["root"] / "picked.safetensors", bench["files"]["dc"][:1], tmp_path / "out")
    tensors, meta = load_tensors(tmp_path / "out")
    images, labels = load(bench["data"], "train")
    mine = [position for position in range(0, 1400, 70) if labels[position] == 3]
    wanted = features(bench["files"]["dc"][0], images[mine] / 255, "dc", bench)
    np.testing.assert_allclose(tensors["syn"].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert (meta["embedded"], meta["stored"]) == (len(mine), len(mine))


@pytest.mark.parametrize(("lineage", "batch"), [("dc", 16), ("idc", 100_000)])
def test_models_have_the_matching_loss_of_every_class_network_and_batch(bench, tmp_path, lineage, batch):
    asked = config(bench, lineage, kind="models", models=3, batch=batch, draws=2)
    out = tmp_path / "out.safetensors"
    models(asked, bench["data"], bench["root"] / "set.safetensors", bench["files"][lineage], out)
    tensors, meta = load_tensors(out)
    assert {name: tuple(value.shape[:-1] if name != "loss" else value.shape) for name, value in tensors.items()} == {
        "real": (3, 20), "syn": (3, 4), "loss": (3, 10, 2),
    }  # fmt: skip
    images, labels = load(bench["data"], "train")
    smallest = min(int((labels == c).sum()) for c in range(10))
    assert meta["batch"] == min(batch, smallest)
    members = [(labels == c).nonzero()[:, 0] for c in range(10)]
    for draw in range(2):
        generator = stream(0, "analyse", "batch", draw)  # one for all classes, one class after the other, for every model the same
        chosen = [rows[torch.randperm(len(rows), generator=generator)[: meta["batch"]]] for rows in members]
        for model in range(3):
            for c in (0, 3, 9):
                real = features(bench["files"][lineage][model], images[chosen[c]] / 255, lineage, bench)
                syn = features(bench["files"][lineage][model], bench["images"][4 * c : 4 * c + 4], lineage, bench)
                loss = sum((sum(real[:, k]) / len(real) - sum(syn[:, k]) / 4) ** 2 for k in range(real.shape[1]))
                assert float(tensors["loss"][model, c, draw]) == pytest.approx(loss, rel=1e-3)
                if c == 3:
                    np.testing.assert_allclose(tensors["syn"][model].numpy(), syn, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("lineage", "name"), [("dc", "set"), ("idc", "set"), ("dc", "picked")])
def test_accuracy_counts_what_a_network_takes_each_distilled_image_for(bench, tmp_path, lineage, name):
    out = tmp_path / "out.safetensors"
    checkpoint = bench["files"][lineage][0]
    accuracy(config(bench, lineage, kind="accuracy"), bench["data"], bench["root"] / f"{name}.safetensors", [checkpoint], out)
    tensors, meta = load_tensors(out)
    images, labels = bench["images"], bench["labels"]
    if name == "picked":
        every, known = load(bench["data"], "train")
        images, labels = every[torch.arange(20) * 70].double() / 255, known[torch.arange(20) * 70]
    weights, _ = load_tensors(checkpoint)
    net = networks.build(NETWORK, 1, (16, 16), 10, 0)
    net.load_state_dict({key[6:]: value for key, value in weights.items() if key.startswith("model.")})
    about = bench["facts"]["lineages"][lineage]
    with torch.no_grad():
        says = net.double().eval()((images.double() - about["mean"][0]) / about["std"][0]).argmax(1)
    assert tensors["count"].tolist() == [sum(int(y) == c for y in labels) for c in range(10)]
    assert tensors["right"].tolist() == [sum(int(y) == int(said) == c for y, said in zip(labels, says, strict=True)) for c in range(10)]
    assert meta["classes"] == bench["facts"]["classes"] and 0 < int(tensors["right"].sum()) <= len(labels)


@pytest.mark.parametrize(
    ("change", "files", "said"),
    [
        ({"label": 10}, 1, "label: value 10; allowed: 0 to 9"),
        ({"epoch": 2}, 1, "at epoch 1, the analysis asks for"),
        ({"pretrained": "ffffffff"}, 1, "asks for ffffffff"),
        ({"kind": "models", "models": 2}, -2, "is of seed 1, the analysis asks for seed 0"),
    ],
)
def test_what_does_not_fit_is_named(bench, tmp_path, change, files, said):
    paths = bench["files"]["dc"][:files] if files > 0 else bench["files"]["dc"][files:]
    make = models if "kind" in change else embeddings
    with pytest.raises((ConfigError, ArtifactError), match=said):
        make(config(bench, **change), bench["data"], bench["root"] / "set.safetensors", paths, tmp_path / "out")


def test_fields_of_one_kind_only_are_no_part_of_the_other():
    about = {"distilled": "d", "network": NETWORK, "pretrained": "p", "epoch": 1}
    plain = hashed(parse(AnalyseConfig, about, "analyse"))
    assert not {"models", "batch", "draws", "step"} & set(plain), "older ids stay as they are"
    with pytest.raises(ConfigError, match="belong to kind 'models'"):
        parse(AnalyseConfig, {**about, "draws": 3}, "analyse")


def test_the_verb_takes_as_many_networks_as_the_configuration_names(bench, tmp_path):
    folder = tmp_path / "seed0"
    folder.mkdir()
    (folder / "distilled.safetensors").write_bytes((bench["root"] / "set.safetensors").read_bytes())
    write_json(folder / "config.json", {"any": "thing"})
    asked = {**hashed(config(bench, kind="models", models=2, draws=1)), "distilled": digest({"any": "thing"})}

    def call(files):
        command = [sys.executable, "-m", "dd", "analyse", "--config", "-", "--distilled", folder / "distilled.safetensors", "--dataset",
                   bench["data"], "--device", "cpu", "--out", tmp_path / "out.safetensors", "--checkpoint", *files]  # fmt: skip
        root = Path(__file__).resolve().parents[2]
        return subprocess.run([*map(str, command)], input=json.dumps(asked), capture_output=True, text=True, cwd=root)

    wrong = call(bench["files"]["dc"])
    assert wrong.returncode == 1 and "models: value 2, with 3 files" in wrong.stderr
    done = call(bench["files"]["dc"][:2])
    assert done.returncode == 0, done.stderr
    assert load_tensors(tmp_path / "out.safetensors")[0]["loss"].shape == (2, 10, 1)
    assert (tmp_path / "out.run.json").exists()
