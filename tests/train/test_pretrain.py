"""Pre-training: a chain of milestones in blocks of seeds, that equals one long training whatever interrupts it."""

import itertools
import math
import shutil

import pytest
import torch

from dd import networks
from dd.artifacts import load_tensors, read_meta, save_tensors
from dd.config import hashed, parse
from dd.data.load import load, manifest, positions
from dd.data.normalise import ZCA
from dd.data.pool import RealPool
from dd.data.whiten import whiten
from dd.errors import ArtifactError, ConfigError
from dd.train.config import PretrainConfig
from dd.train.pretrain import Stopped, load_network, pretrain
from dd.train.supervised import accuracy, fit

NET = "convnet3_bn_w8"


@pytest.fixture(scope="module")
def config(digits_dir):
    return make(digits_dir)


def make(digits_dir, **training):
    training = {"augment": "stack", "cutmix": 0.5, "schedule": "multistep", "epochs": 3, **training}
    about = {"dataset": {"name": "digits", "fingerprint": manifest(digits_dir)["fingerprint"]}, "network": NET, "training": training}
    return parse(PretrainConfig, about, "test")


def files(folder, epoch, seeds):
    return [folder / f"epoch{epoch}" / f"seed{seed}.safetensors" for seed in seeds]


def bytes_of(paths):
    return [path.read_bytes() for path in paths]


def stop_at(call):
    calls = itertools.count(1)
    return lambda: next(calls) == call


@pytest.fixture(scope="module")
def whole(config, digits_dir, tmp_path_factory):
    """Seeds 0 and 1, from nothing to epoch 2 in one job; not to be changed."""
    made = files(tmp_path_factory.mktemp("whole"), 2, [0, 1])
    pretrain(config, digits_dir, 2, [0, 1], made)
    return made


def test_a_chain_in_single_jobs_equals_one_job_bitwise(config, digits_dir, tmp_path, whole):
    for seed in (1, 0):
        chain = [files(tmp_path / f"alone{seed}", epoch, [seed]) for epoch in (0, 1, 2)]
        pretrain(config, digits_dir, 0, [seed], chain[0])
        pretrain(config, digits_dir, 1, [seed], chain[1], chain[0], 0)
        pretrain(config, digits_dir, 2, [seed], chain[2], chain[1], 1)
        assert bytes_of(chain[2]) == bytes_of([whole[seed]])
    tensors, meta = load_tensors(whole[0])
    parameters = dict(load_network(whole[0]).named_parameters())
    assert {key for key in tensors if key.startswith("optimizer.")} == {f"optimizer.{name}" for name in parameters}
    assert meta["config"] == hashed(config)
    assert (meta["epoch"], meta["seed"], meta["diverged"]) == (2, 0, None)
    assert meta["train_loss"] > 0
    assert 0 < meta["train_accuracy"] <= 1
    assert bytes_of([whole[0]]) != bytes_of([whole[1]])


def test_epoch_0_is_the_seeded_initialisation(config, digits_dir, tmp_path):
    (out,) = files(tmp_path, 0, [7])
    pretrain(config, digits_dir, 0, [7], [out])
    expected = networks.build(NET, 1, (16, 16), 10, 7, "pretrain", NET).state_dict()
    found = load_network(out).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not [key for key in load_tensors(out)[0] if key.startswith("optimizer.")]


def test_it_is_the_supervised_loop_over_the_whole_train_split(config, digits_dir, whole):
    facts = manifest(digits_dir)
    images, labels = load(digits_dir, "train")
    pool = RealPool(images, labels, 10, **facts["lineages"]["dc"])
    net = networks.build(NET, 1, (16, 16), 10, 0, "pretrain", NET)
    fit(net, lambda i: (pool.x(i), pool.y(i)), len(pool), config.training, seed=0, names=("pretrain", NET), first_epoch=0, last_epoch=2,
        shape=(1, 16, 16), flip=False)  # fmt: skip
    found = load_network(whole[0])
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), found.state_dict().values(), strict=True))
    assert found.training


def test_it_learns(digits_dir, tmp_path):
    (out,) = files(tmp_path, 6, [0])
    pretrain(make(digits_dir, augment="none", cutmix=0.0, schedule="constant", batch=32), digits_dir, 6, [0], [out])
    facts = manifest(digits_dir)
    test = RealPool(*load(digits_dir, "test"), 10, **facts["lineages"]["dc"])
    value, _ = accuracy(load_network(out), lambda i: (test.x(i), test.y(i)), len(test), 10)
    assert value > 0.7


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("save_every", [60.0, -1.0])
def test_a_stopped_job_continues_where_it_was(config, digits_dir, tmp_path, whole, after, save_every):
    outs = files(tmp_path, 2, [0, 1])
    with pytest.raises(Stopped, match="start again"):
        pretrain(config, digits_dir, 2, [0, 1], outs, stop=stop_at(after), save_every=save_every)
    assert not any(out.exists() for out in outs), "a block appears as a whole"
    hidden = outs[0].parent / ".resume" / outs[0].name
    assert read_meta(hidden)["epoch"] == min(after, 2)
    before = hidden.stat().st_ino
    pretrain(config, digits_dir, 2, [0, 1], outs, stop=stop_at(4 - after))  # at the very last epoch: nothing is left to stop
    assert bytes_of(outs) == bytes_of(whole)
    assert not hidden.exists()
    assert (outs[0].stat().st_ino == before) == (after >= 2), "a finished network is not made again"


def test_files_that_are_there_are_kept_and_foreign_ones_replaced(config, digits_dir, tmp_path, whole):
    outs = files(tmp_path, 2, [0, 1])
    outs[0].parent.mkdir(parents=True)
    shutil.copy(whole[0], outs[0])
    shutil.copy(whole[0], outs[1])  # of another seed
    (outs[0].parent / ".resume").mkdir()
    (outs[0].parent / ".resume" / outs[1].name).write_bytes(b"torn")
    kept = outs[0].stat().st_ino
    pretrain(config, digits_dir, 2, [0, 1], outs)
    assert bytes_of(outs) == bytes_of(whole)
    assert outs[0].stat().st_ino == kept


def test_what_another_configuration_left_is_not_continued(config, digits_dir, tmp_path, whole):
    outs = files(tmp_path, 2, [0, 1])
    with pytest.raises(Stopped):
        pretrain(make(digits_dir, lr=0.1), digits_dir, 2, [0, 1], outs, stop=stop_at(3))
    pretrain(config, digits_dir, 2, [0, 1], outs)
    assert bytes_of(outs) == bytes_of(whole)


def test_a_previous_file_must_be_the_right_one(config, digits_dir, tmp_path, whole):
    out = files(tmp_path, 3, [0])
    for message, previous, epoch, about in [
        ("epoch: is 2", whole[0], 1, config),
        ("seed: is 1", whole[1], 2, config),
        ("config: is", whole[0], 2, make(digits_dir, lr=0.1)),
    ]:
        with pytest.raises(ArtifactError, match=message) as caught:
            pretrain(about, digits_dir, 3, [0], out, [previous], epoch)
        assert str(previous) in str(caught.value)
    tensors, meta = load_tensors(whole[0])
    foreign = tmp_path / "foreign.safetensors"
    save_tensors(foreign, tensors, {**meta, "fingerprint": "0"})
    with pytest.raises(ArtifactError, match="fingerprint: is '0'"):
        pretrain(config, digits_dir, 3, [0], out, [foreign], 2)
    bare = tmp_path / "bare.safetensors"
    save_tensors(bare, {key: value for key, value in tensors.items() if key.startswith("model.")}, meta)
    with pytest.raises(ArtifactError, match="momentum"):
        pretrain(config, digits_dir, 3, [0], out, [bare], 2)
    assert not out[0].exists()


def test_epochs_must_go_forwards(config, digits_dir, tmp_path, whole):
    with pytest.raises(ConfigError, match="epoch: value 1"):
        pretrain(config, digits_dir, 1, [0], files(tmp_path, 1, [0]), [whole[0]], 2)
    with pytest.raises(ConfigError, match="missing"):
        pretrain(config, digits_dir, 3, [0], files(tmp_path, 3, [0]), None, 2)


def test_another_dataset_than_the_configured_one_is_refused(config, digits_dir, tmp_path):
    for key, value in (("fingerprint", "f" * 64), ("name", "mnist")):
        other = config.model_copy(update={"dataset": config.dataset.model_copy(update={key: value})})
        with pytest.raises(ArtifactError, match=f"{key}: is"):
            pretrain(other, digits_dir, 0, [0], files(tmp_path, 0, [0]))


def test_damaged_checkpoints_are_named(config, digits_dir, tmp_path):
    (out,) = files(tmp_path, 0, [0])
    pretrain(config, digits_dir, 0, [0], [out])
    good = out.read_bytes()
    flipped = bytearray(good)
    flipped[-5] ^= 1
    for content in (bytes(flipped), good[:-100], b"", b"PK\x03\x04 a pickle"):
        out.write_bytes(content)
        with pytest.raises(ArtifactError, match="seed0"):
            load_network(out)
        with pytest.raises(ArtifactError, match="seed0"):
            pretrain(config, digits_dir, 1, [0], files(tmp_path, 1, [0]), [out], 0)
    with pytest.raises(ArtifactError, match="no such file"):
        load_network(tmp_path / "none")
    save_tensors(out, {"images": torch.zeros(3)}, {"step_size": None})
    with pytest.raises(ArtifactError, match="not a pre-trained network"):
        load_network(out)
    out.write_bytes(good)
    tensors, meta = load_tensors(out)
    save_tensors(out, tensors, {**meta, "classes": 11})
    with pytest.raises(ArtifactError, match="of another shape"):
        load_network(out)


def test_loading_leaves_the_global_generator_alone(config, digits_dir, tmp_path):
    (out,) = files(tmp_path, 0, [0])
    pretrain(config, digits_dir, 0, [0], [out])
    state = torch.get_rng_state()
    load_network(out)
    assert torch.equal(torch.get_rng_state(), state)


def test_divergence_is_written_down_and_passed_on(digits_dir, tmp_path, capsys):
    wild = make(digits_dir, lr=1e18)
    chain = [files(tmp_path, epoch, [0]) for epoch in (1, 2)]
    pretrain(wild, digits_dir, 1, [0], chain[0])
    pretrain(wild, digits_dir, 2, [0], chain[1], chain[0], 1)
    metas = [read_meta(path) for (path,) in chain]
    assert metas[0]["diverged"]["epoch"] == 0
    assert metas[1]["diverged"] == metas[0]["diverged"]
    assert [meta["epoch"] for meta in metas] == [1, 2]
    assert metas[1]["train_loss"] is None
    assert "diverged" in capsys.readouterr().err
    straight = files(tmp_path / "straight", 2, [0])
    pretrain(wild, digits_dir, 2, [0], straight)
    assert bytes_of(straight) == bytes_of(chain[1])
    assert any(not math.isfinite(p.detach().sum()) for p in load_network(chain[1][0]).parameters())


def test_on_fit_and_whitened(config, digits_dir, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits_dir, folder)
    whiten(folder, folder / "zca.safetensors")
    (out,) = files(tmp_path, 1, [0])
    plain = make(digits_dir, augment="none", cutmix=0.0)
    pretrain(plain.model_copy(update={"split": "fit", "lineage": "zca"}), folder, 1, [0], [out])
    images, labels = load(folder, "train")
    zca, kept = ZCA.fit(images.float() / 255), positions(folder, "fit")
    x, y = zca.apply(images[kept].float() / 255), labels[kept]
    net = networks.build(NET, 1, (16, 16), 10, 0, "pretrain", NET)
    fit(net, lambda i: (x[i], y[i]), len(kept), plain.training, seed=0, names=("pretrain", NET), first_epoch=0, last_epoch=1,
        shape=(1, 16, 16), flip=False)  # fmt: skip
    found = load_network(out).state_dict()
    assert all(torch.allclose(found[key].float(), value.float(), atol=1e-4) for key, value in net.state_dict().items())
    for other in ({"split": "fit"}, {"lineage": "zca"}):
        pretrain(plain.model_copy(update=other), folder, 1, [0], [out])
        assert (load_network(out).state_dict()["head.weight"] - found["head.weight"]).abs().max() > 1e-3
