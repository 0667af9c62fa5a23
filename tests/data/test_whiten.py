"""The whitening of a prepared dataset, and pools that whiten."""

import shutil

import pytest
import torch

from dd.artifacts import load_tensors, save_tensors
from dd.data import load as loading
from dd.data.load import load, manifest, normalisation
from dd.data.normalise import ZCA, Normalisation
from dd.data.pool import RealPool
from dd.data.whiten import whiten
from dd.errors import ArtifactError, ConfigError


@pytest.fixture(scope="module")
def folder(digits_dir, tmp_path_factory):
    """Return prepared digits with their whitening; not to be changed."""
    copy = tmp_path_factory.mktemp("whitened") / "digits"
    shutil.copytree(digits_dir, copy)
    whiten(copy, copy / "zca.safetensors")
    return copy


@pytest.fixture(scope="module")
def naive(folder):
    """Return (mean, U, s) of the train images, in float64."""
    x = load(folder, "train")[0].flatten(1).double() / 255
    mean = x.sum(0) / len(x)
    u, s, _ = torch.linalg.svd((x - mean).T @ (x - mean) / (len(x) - 1))
    return mean, u, s


def test_the_file(folder, naive):
    tensors, meta = load_tensors(folder / "zca.safetensors")
    mean, u, s = naive
    assert {name: value.dtype for name, value in tensors.items()} == dict.fromkeys(("mean", "transform", "inverse"), torch.float32)
    assert torch.allclose(tensors["mean"].double(), mean, atol=1e-6)
    assert torch.allclose(tensors["transform"].double(), u @ torch.diag((s + 0.1) ** -0.5) @ u.T, atol=1e-5)
    assert torch.allclose(tensors["inverse"].double(), u @ torch.diag((s + 0.1) ** 0.5) @ u.T, atol=1e-5)
    assert meta == {"dataset": "digits", "fingerprint": manifest(folder)["fingerprint"], "eps": 0.1}
    first = (folder / "zca.safetensors").read_bytes()
    whiten(folder, folder / "zca.safetensors")
    assert (folder / "zca.safetensors").read_bytes() == first


def test_train_is_white_up_to_epsilon_and_test_takes_the_transform_of_train(folder, naive):
    mean, u, s = naive
    transform = u @ torch.diag((s + 0.1) ** -0.5) @ u.T
    for split in ("train", "test"):
        pool = loading.pool(folder, split, "zca")
        found = pool.x(torch.arange(len(pool))).flatten(1).double()
        raw = load(folder, split)[0].flatten(1).double() / 255
        assert (found - (raw - mean) @ transform).abs().max() < 1e-4
    train = loading.pool(folder, "train", "zca")
    covariance = torch.cov(train.x(torch.arange(len(train))).flatten(1).double().T)
    assert (covariance - u @ torch.diag(s / (s + 0.1)) @ u.T).abs().max() < 1e-4


def test_round_trip(folder):
    zca = normalisation(folder, "zca")
    assert isinstance(zca, ZCA)
    pool = loading.pool(folder, "test", "zca")
    index = torch.arange(50)
    assert (pool.normalisation.invert(pool.x(index)) - pool.raw(index)).abs().max() < 1e-4
    g = torch.Generator().manual_seed(0)
    wild = torch.randn(8, 1, 16, 16, generator=g) * 3
    assert (zca.invert(zca.apply(wild)) - wild).abs().max() < 1e-4


def test_it_is_differentiable_and_linear(folder):
    zca = normalisation(folder, "zca")
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.rand(2, 256, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((zca.apply(x).flatten(1) * weight).sum(), x)
    assert torch.allclose(gradient.flatten(1), weight @ zca.transform.T, atol=1e-4)


def test_a_whitened_pool_says_that_raw_units_are_left_alone(folder):
    pool = loading.pool(folder, "train", "zca")
    assert [part.tolist() for part in pool.statistics] == [[0.0], [1.0]]
    images, labels = load(folder, "train")
    by_hand = RealPool(images, labels, 10, [0.3], [0.2], zca=normalisation(folder, "zca"))
    index = torch.tensor([4, 1, 900])
    assert torch.equal(by_hand.x(index), pool.x(index)) and torch.equal(by_hand.raw(index), pool.raw(index))
    assert [part.tolist() for part in by_hand.statistics] == [[0.0], [1.0]]
    assert torch.equal(by_hand.y(index), labels[index])


def test_other_lineages_are_those_of_the_manifest(folder):
    stats = manifest(folder)["lineages"]["idc"]
    found = normalisation(folder, "idc")
    assert isinstance(found, Normalisation)
    assert (found.mean.tolist(), found.std.tolist()) == (torch.tensor(stats["mean"]).tolist(), torch.tensor(stats["std"]).tolist())
    images, labels = load(folder, "test")
    expected = RealPool(images, labels, 10, **stats)
    index = torch.arange(20)
    pool = loading.pool(folder, "test", "idc")
    assert torch.equal(pool.x(index), expected.x(index)) and len(pool) == len(labels)
    with pytest.raises(ConfigError, match="lineage: value 'zac'; did you mean 'zca'"):
        normalisation(folder, "zac")


def test_the_first_images_of_each_class(folder):
    pool = loading.pool(folder, "train", "dc", first=2)
    images, labels = load(folder, "train")
    kept = [k for c in range(10) for k in [j for j in range(len(labels)) if labels[j] == c][:2]]
    assert pool.labels.tolist() == labels[kept].tolist() and torch.equal(pool.images, images[kept])
    assert len(loading.pool(folder, "train", "dc", first=144)) < len(labels)
    assert len(loading.pool(folder, "train", "dc", first=10**6)) == len(labels)


def test_what_is_missing_or_of_other_images_is_refused(folder, digits_dir, tmp_path):
    with pytest.raises(ArtifactError, match=r"zca\.safetensors: no such file.*python -m dd whiten"):
        normalisation(digits_dir, "zca")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / "zca.safetensors"
    tensors, meta = load_tensors(file)
    for key, change in (("fingerprint", {"fingerprint": "0" * 64}), ("eps", {"eps": 0.01})):
        save_tensors(file, tensors, {**meta, **change})
        with pytest.raises(ArtifactError, match=f"{file}: {key}: is .*whiten again"):
            normalisation(copy, "zca")
    save_tensors(file, {**tensors, "inverse": tensors["inverse"][:3]}, meta)
    with pytest.raises(ArtifactError, match="does not hold mean, transform and inverse of images of 256 numbers"):
        normalisation(copy, "zca")
    file.write_bytes((folder / "zca.safetensors").read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        normalisation(copy, "zca")
