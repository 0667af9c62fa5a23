"""The job that measures a generator, and what a missed gate says."""

import json

import pytest

from dd.__main__ import main
from dd.analysis import gan_job
from dd.analysis.gan_config import Quality, QualityConfig
from dd.analysis.gan_quality import COLOURS, Gates, quality
from dd.analysis.gates import GateError, below, demand, gate, read
from dd.artifacts import write_json
from dd.config import hashed, parse
from dd.config.stages import DistillConfig
from dd.data.load import pool
from dd.errors import ArtifactError
from dd.train.config import PretrainConfig
from dd.train.gan import load_generator, train
from dd.train.gan_config import GanConfig
from dd.train.pretrain import load_network, pretrain


def measure(value, low=None, high=None, passed=False):
    return {"value": value, "gate": [low, high], "passed": passed}


@pytest.fixture(scope="module")
def files(digits_dir, tmp_path_factory):
    """Return (generator after 1 epoch, classifier after 4 epochs) on digits: about 4 s."""
    folder = tmp_path_factory.mktemp("measured")
    generator, classifier = folder / "epoch1.safetensors", folder / "seed0.safetensors"
    config = {"dataset": {"name": "digits"}, "generator": "mini_w8", "training": {"lr": 5e-3, "batch": 64}}
    train(parse(GanConfig, config, "test"), digits_dir, 1, generator)
    config = {"dataset": {"name": "digits"}, "network": "convnet3_in_w8", "training": {"lr": 0.02, "batch": 32}}
    pretrain(parse(PretrainConfig, config, "test"), digits_dir, 4, [0], [classifier])
    return generator, classifier


def config_of(**change):
    about = {"dataset": {"name": "digits"}, "generator": "0" * 8, "epoch": 1, "classifier": "1" * 8, "classifier_epoch": 4, "samples": 200,
             "score": "convnet3_in_w8", "score_epochs": 1, "images": 60_000, **change}  # fmt: skip
    return parse(QualityConfig, about, "test")


def run(config, files, dataset, out):
    generator, classifier = files
    about = out.with_suffix(".config.json")
    write_json(about, hashed(config))
    return main(["quality", "--config", str(about), "--generator", str(generator), "--classifier", str(classifier), "--dataset", str(dataset),
                 "--device", "cpu", "--out", str(out)])  # fmt: skip


def test_the_job_writes_what_was_measured(files, digits_dir, tmp_path):
    out = tmp_path / "epoch1.quality.json"
    assert run(config_of(), files, digits_dir, out) == 0
    found = read(out)
    real, test = pool(digits_dir, "train", "dc"), pool(digits_dir, "test", "dc")
    expected = quality(
        load_generator(files[0]), load_network(files[1]), real, test, seed=0, samples=200, network="convnet3_in_w8", epochs=1
    )
    assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
    assert found["passed"] is False
    assert found["measures"]["consistency"]["gate"] == [Gates().consistency, None]
    assert found["classifier_accuracy"] > 0.8
    assert found["config"] == hashed(config_of())
    assert json.loads(out.with_suffix(".run.json").read_text())["device"] == "cpu"
    with pytest.raises(
        GateError, match=r"epoch1.quality.json: the generator is below its gate: .*consistency: value 0.\d+, gate 0.9 and more"
    ):
        demand([out])


def test_samples_are_at_least_eight_a_class_and_large_datasets_are_looked_at_in_part(files, digits_dir, tmp_path, monkeypatch):
    seen = {}

    def spy(generator, net, train, test, **options):
        seen.update(options, train=len(train), classes=[len(train.of_class(c)) for c in range(10)])
        return {"measures": {}, "passed": True}

    monkeypatch.setattr(gan_job, "quality", spy)
    gan_job.measure(config_of(samples=10, images=95), *files, digits_dir, tmp_path / "x.json")
    assert (seen["samples"], seen["train"], seen["classes"], seen["gates"]) == (80, 100, [10] * 10, Gates())
    known = gan_job.manifest(digits_dir)
    monkeypatch.setattr(gan_job, "manifest", lambda folder: {**known, "channels": 3})
    gan_job.measure(config_of(samples=100), *files, digits_dir, tmp_path / "x.json")
    assert (seen["samples"], seen["gates"]) == (100, COLOURS)
    assert seen["train"] == len(pool(digits_dir, "train", "dc"))


def test_files_of_something_else_are_refused(files, digits_dir, tmp_path, capsys):
    generator, classifier = files
    assert run(config_of(epoch=2), files, digits_dir, tmp_path / "x.json") == 1
    assert "epoch: is 1, the measures are of 2" in capsys.readouterr().err
    assert run(config_of(classifier_epoch=3), files, digits_dir, tmp_path / "x.json") == 1
    assert f"{classifier}: epoch: is 4" in capsys.readouterr().err
    assert run(config_of(), (classifier, generator), digits_dir, tmp_path / "x.json") == 1
    assert not (tmp_path / "x.json").exists()


def test_missed_gates_in_words():
    found = {"measures": {
        "consistency": measure(0.712345, 0.9), "recall": measure(0.09996, 0.1), "spread_pixels": measure(1.25, 0.6, 1.2),
        "spread_features": measure(0.5, 0.6, 1.2), "cas": measure(None, 0.85), "precision": measure(0.4, 0.5, passed=True),
    }}  # fmt: skip
    assert below(found) == ["consistency 0.71 < 0.9", "recall 0.099960 < 0.1", "spread_pixels 1.25 > 1.2",
                            "spread_features 0.50 < 0.6", "cas is no number"]  # fmt: skip
    assert (gate(0.9, None), gate(0.6, 1.2), gate(None, 2.0), gate(None, None)) == ("0.9 and more", "0.6 to 1.2", "2 and less", "any")


def test_strict_asks_for_every_gate(tmp_path):
    good, bad = tmp_path / "good.quality.json", tmp_path / "bad.quality.json"
    write_json(good, {"measures": {"cas": measure(0.9, 0.85, passed=True)}, "passed": True})
    write_json(bad, {"measures": {"cas": measure(0.5, 0.85), "recall": measure(0.05, 0.1)}, "passed": False})
    demand([])
    demand([good])
    with pytest.raises(
        GateError, match=r"bad.quality.json.*cas: value 0.50, gate 0.85 and more; recall: value 0.05, gate 0.1 and more"
    ) as error:
        demand([good, bad])
    assert "Train it longer" in str(error.value) and "strict: false" in str(error.value)
    (tmp_path / "none.json").write_text('{"measures": {}}')
    with pytest.raises(ArtifactError, match=r"none\.json: holds no measures"):
        demand([tmp_path / "none.json"])
    (tmp_path / "odd.json").write_text('{"measures": {"cas": 0.5}}')
    with pytest.raises(ArtifactError, match=r"odd\.json: holds no measures"):
        demand([tmp_path / "odd.json"])
    with pytest.raises(ArtifactError, match="no such file"):
        demand([tmp_path / "nowhere.json"])


def test_a_strict_distillation_stops_before_it_begins(tmp_path, capsys):
    bad, about = tmp_path / "bad.quality.json", tmp_path / "config.json"
    write_json(bad, {"measures": {"cas": measure(0.5, 0.85)}, "passed": False})
    write_json(about, hashed(parse(DistillConfig, {"dataset": {"name": "digits"}, "method": "random", "ipc": 1, "recipe": {}}, "test")))
    call = ["distill", "--config", str(about), "--dataset", str(tmp_path), "--seed", "0", "--device", "cpu", "--out", str(tmp_path / "set")]
    assert main([*call, "--quality", str(bad)]) == 1
    said = capsys.readouterr().err
    assert "bad.quality.json: the generator is below its gate: cas: value 0.50, gate 0.85 and more" in said
    assert not (tmp_path / "set").exists()


def test_the_planners_settings_fit_the_jobs_configuration():
    fields = {key: value for key, value in hashed(Quality()).items() if key not in ("network", "epochs", "training")}
    assert config_of(**fields).samples == Quality().samples == 2000
