"""The real datasets, where they are: `DD_REAL_DATA`."""

import pytest
import torch

from dd.data.config import load_datasets
from dd.data.load import indices, load
from dd.data.prepare import prepare
from dd.data.registry import DATASETS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("cifar10", "parquet"), ("fashion_mnist", "idx")])
def test_real_images_are_those_that_are_registered(name, kind, real, tmp_path):
    source = {"source": {"kind": kind, "path": str(real(name))}}
    facts, spec = prepare(name, load_datasets({name: source}, "test")[name], tmp_path, tmp_path), DATASETS[name]
    assert facts["fingerprint"] == spec.fingerprint and facts["smallest_class"] == spec.smallest_class
    for split, count in (("train", spec.train), ("test", spec.test)):
        images, labels = load(tmp_path, split)
        assert images.shape == (count, spec.channels, *spec.size) and images.dtype == torch.uint8
        assert torch.bincount(labels).tolist() == [count // 10] * 10
        if (name, split) == ("cifar10", "train"):  # published to 8 digits: these are the official pixels, not a lossy copy
            mean = [float(images[:, c].sum(dtype=torch.int64)) / images[:, c].numel() / 255 for c in range(3)]
            assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=5e-9)
    held = indices(tmp_path)
    assert torch.bincount(load(tmp_path, "train")[1][held]).tolist() == [spec.train // 100] * 10
