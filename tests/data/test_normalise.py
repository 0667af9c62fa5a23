"""Normalisation, and ZCA against its definition."""

import pytest
import torch

from dd.data.normalise import ZCA, Normalisation

EPS = 0.1


@pytest.fixture
def images():
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(24, 24, generator=g, dtype=torch.float64) / 12
    return ((torch.rand(80, 24, generator=g, dtype=torch.float64) @ mix).sigmoid()).view(80, 2, 4, 3)


def test_normalisation(images):
    norm = Normalisation([0.5, 0.25], [0.25, 0.125])
    x = norm.apply(images)
    assert torch.allclose(x[:, 0], (images[:, 0] - 0.5) / 0.25) and torch.allclose(x[:, 1], (images[:, 1] - 0.25) / 0.125)
    assert x.dtype == torch.float64 and torch.allclose(norm.invert(x), images, atol=1e-15)


def test_zca_inverts(images):
    zca = ZCA.fit(images)
    assert zca.apply(images).shape == images.shape and zca.apply(images).dtype == torch.float64
    assert (zca.invert(zca.apply(images)) - images).abs().max() < 1e-12
    new = torch.rand(5, 2, 4, 3, dtype=torch.float64)  # test images, under the transform of train
    assert (zca.invert(zca.apply(new)) - new).abs().max() < 1e-12


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_zca_against_the_steps_of_the_papers(images, eps):
    flat = images.flatten(1)
    mu = flat.mean(0, keepdim=True)
    sigma = sum(torch.outer(row, row) for row in flat - mu) / (len(flat) - 1)
    u, s, _ = torch.linalg.svd(sigma)
    expected = (flat - mu) @ (u @ torch.diag((s + eps) ** -0.5) @ u.T)
    assert torch.allclose(ZCA.fit(images, eps).apply(images).flatten(1), expected, atol=1e-10)


def test_zca_whitens_up_to_epsilon(images):
    white = ZCA.fit(images, EPS).apply(images).flatten(1)
    variances = torch.linalg.eigvalsh(torch.cov(white.T))
    s = torch.linalg.eigvalsh(torch.cov(images.flatten(1).T))
    assert torch.allclose(variances, s / (s + EPS), atol=1e-10)


def test_zca_in_float32_and_of_few_images(images):
    zca = ZCA.fit(images[:5].float())  # a covariance of rank 4
    x = zca.apply(images.float())
    assert x.dtype == torch.float32 and (zca.invert(x) - images).abs().max() < 1e-5


def test_zca_state(images):
    zca = ZCA.fit(images)
    again = ZCA.from_state(zca.state_dict())
    assert torch.equal(again.apply(images), zca.apply(images)) and torch.equal(again.invert(images), zca.invert(images))


def test_zca_of_stored_pixels():
    stored = torch.randint(0, 256, (40, 1, 3, 4), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    found, expected = ZCA.fit(stored), ZCA.fit(stored.double() / 255)
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32}
    for key, value in found.to("cpu").state_dict().items():
        assert torch.allclose(value.double(), expected.state_dict()[key], atol=1e-5)


def test_zca_in_parts(images, monkeypatch):
    split = torch.Tensor.split
    whole = ZCA.fit(images)
    monkeypatch.setattr(torch.Tensor, "split", lambda self, size: split(self, 7))
    for key, value in ZCA.fit(images).state_dict().items():
        assert torch.allclose(value, whole.state_dict()[key], atol=1e-12)
