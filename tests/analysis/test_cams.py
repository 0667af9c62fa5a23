"""Maps of class evidence on distilled images, as an analysis."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from dd import networks
from dd.analysis.cam import cam
from dd.analysis.cams import cams
from dd.artifacts import load_tensors, write_json
from dd.config import digest, hashed, parse
from dd.config.stages import AnalyseConfig, Dataset
from dd.data.load import load, manifest
from dd.errors import ArtifactError, ConfigError
from dd.evaluation.io import write_distilled
from dd.train.config import PretrainConfig
from dd.train.pretrain import pretrain
from dd.types import DistilledSet
from dd.verbs import jobs

NETWORK = "resnet18_bn_w4"


@pytest.fixture(scope="module")
def bench(digits_dir, tmp_path_factory):
    """One network of digits, before its training and after an epoch, and a set of two images of each class but the last."""
    root = tmp_path_factory.mktemp("cams")
    about = PretrainConfig(dataset=Dataset(name="digits"), network=NETWORK)
    files = [root / "before.safetensors", root / "after.safetensors"]
    pretrain(about, digits_dir, 0, [0], files[:1])
    pretrain(about, digits_dir, 1, [0], files[1:])
    images = torch.rand(18, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(9).repeat_interleave(2)
    facts = manifest(digits_dir)
    meta = {"dataset": "digits", "fingerprint": facts["fingerprint"]}
    # statistics of its own that no network was trained with: they must not be used
    made = DistilledSet(images, labels, torch.tensor([9.0]), torch.tensor([7.0]), None, None, meta)
    write_distilled(root / "seed0" / "distilled.safetensors", made)
    chosen = torch.arange(20) * 70
    empty = torch.empty(0, 1, 16, 16)
    picked = DistilledSet(empty, load(digits_dir, "train")[1][chosen], torch.tensor([9.0]), torch.tensor([7.0]), chosen, None, meta)
    write_distilled(root / "picked.safetensors", picked)
    return {"data": digits_dir, "root": root, "files": files, "id": digest(hashed(about)), "images": images, "facts": facts}


def config(bench, **more):
    about = {"kind": "cams", "distilled": "00000000", "network": NETWORK, "pretrained": bench["id"], "epoch": 1, "earlier": [0], **more}
    return parse(AnalyseConfig, about, "analyse")


def network(file):
    tensors, meta = load_tensors(file)
    net = networks.build(NETWORK, 1, (16, 16), 10, 0)
    net.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    return net.eval(), meta


def test_the_maps_are_those_of_the_network_before_and_after_its_training(bench, tmp_path):
    out = tmp_path / "out.safetensors"
    cams(config(bench, labels=[4, 1], image=1), bench["data"], bench["root"] / "seed0/distilled.safetensors", bench["files"], out)
    tensors, meta = load_tensors(out)
    raw = bench["images"][[9, 3]]
    assert torch.equal(tensors["images"], raw) and tensors["labels"].tolist() == [4, 1]
    about = bench["facts"]["lineages"]["dc"]
    x = (raw - about["mean"][0]) / about["std"][0]
    assert tensors["maps"].shape == (2, 2, 16, 16) and tensors["maps"].dtype == torch.float32
    for epoch, file in enumerate(bench["files"]):
        net, known = network(file)
        assert known["epoch"] == epoch
        np.testing.assert_allclose(tensors["maps"][epoch].numpy(), cam(net, x, torch.tensor([4, 1])).numpy(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(tensors["maps"][0], tensors["maps"][1], atol=0.05)
    assert (meta["epochs"], meta["wanted"], meta["image"], meta["classes"]) == ([0, 1], [4, 1], 1, bench["facts"]["classes"])
    again = tmp_path / "again.safetensors"
    cams(config(bench, labels=[4, 1], image=1), bench["data"], bench["root"] / "seed0/distilled.safetensors", bench["files"], again)
    assert out.read_bytes() == again.read_bytes()


def test_selections_are_looked_up_and_classes_without_an_image_left_out(bench, tmp_path):
    out = tmp_path / "out.safetensors"
    cams(config(bench, labels=[0, 5], earlier=[]), bench["data"], bench["root"] / "picked.safetensors", bench["files"][1:], out)
    images, labels = load(bench["data"], "train")
    first = {label: next(place for place in range(0, 1400, 70) if labels[place] == label) for label in (0, 5)}
    assert torch.equal(load_tensors(out)[0]["images"], images[[first[0], first[5]]].float() / 255)
    source = bench["root"] / "seed0/distilled.safetensors"
    cams(config(bench, labels=[9, 8]), bench["data"], source, bench["files"], out)
    tensors, meta = load_tensors(out)
    assert tensors["labels"].tolist() == [8] and tensors["maps"].shape == (2, 1, 16, 16) and meta["wanted"] == [9, 8]
    cams(config(bench, labels=[9]), bench["data"], source, bench["files"], out)
    assert load_tensors(out)[0]["labels"].tolist() == []


@pytest.mark.parametrize(
    ("change", "files", "said"),
    [
        ({"labels": [3, 10]}, slice(None), "labels: value 10; allowed: 0 to 9"),
        ({}, slice(None, None, -1), "at epoch 0, the analysis asks for"),
        ({"earlier": [3]}, slice(None), "at epoch 0, the analysis asks for .* at epoch 3"),
    ],
)
def test_what_does_not_fit_is_named(bench, tmp_path, change, files, said):
    with pytest.raises((ConfigError, ArtifactError), match=said):
        source = bench["root"] / "seed0/distilled.safetensors"
        cams(config(bench, **change), bench["data"], source, bench["files"][files], tmp_path / "out")


def test_fields_of_other_kinds_mean_nothing_here_and_the_other_way_round():
    about = {"distilled": "d", "network": NETWORK, "pretrained": "p", "epoch": 1}
    for other in ({"labels": [1]}, {"image": 1}, {"earlier": [0]}):
        with pytest.raises(ConfigError, match="belong to kind 'cams'"):
            parse(AnalyseConfig, {**about, **other}, "analyse")
    for other in ({"label": 1}, {"real": 5}):
        with pytest.raises(ConfigError, match="mean nothing to kind 'cams'"):
            parse(AnalyseConfig, {**about, "kind": "cams", **other}, "analyse")
    assert not {"labels", "image", "earlier"} & set(hashed(parse(AnalyseConfig, about, "analyse"))), "older ids stay as they are"


def test_the_verb_takes_a_file_an_epoch(bench, tmp_path):
    source = bench["root"] / "seed0/distilled.safetensors"
    write_json(source.parent / "config.json", {"any": "thing"})
    asked = {**hashed(config(bench)), "distilled": digest({"any": "thing"})}

    (tmp_path / "config.json").write_text(json.dumps(asked))
    given = {"dataset": bench["data"], "distilled": source, "out": tmp_path / "out.safetensors"}
    with pytest.raises(ConfigError, match="2 epochs, with 1 files of --checkpoint"):
        jobs.analyse(Namespace(config=str(tmp_path / "config.json"), checkpoint=bench["files"][1:], **given))
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "dd", "analyse", "--config", "-", *flags, "--device", "cpu", "--checkpoint", *bench["files"]]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([*map(str, command)], input=json.dumps(asked), capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert load_tensors(tmp_path / "out.safetensors")[0]["labels"].tolist() == [0, 1, 2]
