"""What the methods of the IDC lineage share."""

import pytest
import torch

from dd.artifacts import save_tensors, write_json
from dd.config import hashed, parse
from dd.config.stages import Dataset, DistillConfig
from dd.distill import distill
from dd.evaluation.io import read_distilled
from dd.recipes._idc import Factored, decoded, strategy_of


@pytest.mark.parametrize(
    ("dataset", "given", "expected"),
    [
        ("cifar10", {}, "color_crop_cutout"),
        ("mnist", {}, "color_crop"),
        ("mnist", {"factor": 1}, "color_crop_cutout"),
        ("mnist", {"strategy": "crop"}, "crop"),
    ],
)
def test_the_strategy_is_the_lineages_but_for_mnist_with_a_factor(dataset, given, expected):
    assert strategy_of(parse(Factored, given, "t"), dataset) == expected


def test_decoded_images_are_counted():
    assert [decoded(parse(Factored, {"factor": f, "time_only": t}, "t"), 3) for f, t in ((1, False), (2, False), (2, True))] == [3, 12, 6]


@pytest.fixture
def floats(tmp_path):
    """Prepared images that are not bytes: raw numbers around -3, bounded from below only."""
    g = torch.Generator().manual_seed(0)
    for split, each in (("train", 8), ("test", 2)):
        images = torch.randn(2 * each, 1, 16, 16, generator=g) - 3
        save_tensors(tmp_path / f"{split}.safetensors", {"images": images, "labels": torch.arange(2).repeat_interleave(each)},
                     {"dataset": "s", "fingerprint": "f", "split": split})  # fmt: skip
    stats = {"mean": [-3.0], "std": [2.0]}
    write_json(tmp_path / "manifest.json", {
        "name": "s", "classes": ["a", "b"], "channels": 1, "size": [16, 16], "fingerprint": "f", "lineages": {"dc": stats, "idc": stats},
        "flip": False, "counts": {"train": [8, 8], "test": [2, 2]}, "smallest_class": 8, "range": [-4.0, None]})  # fmt: skip
    return tmp_path


def test_images_keep_their_own_range_and_what_is_stored_is_published(floats, tmp_path):
    from dd.recipes import dsdm

    fields = {"iterations": 1, "batch_real": 4, "factor": 2, "time_only": True, "augment": "none", "lr_img": 1e-6,
              "extractor": {"network": "convnet3_in_w8", "epochs": 0}}  # fmt: skip
    config = DistillConfig(dataset=Dataset(name="s"), method="dsdm", ipc=2, recipe=hashed(parse(dsdm.Config, fields, "t")))
    distill(config, floats, [], 0, tmp_path / "out")
    made = read_distilled(tmp_path / "out/distilled.safetensors")
    assert made.images.shape == (8, 1, 16, 16) and made.labels.tolist() == [0] * 4 + [1] * 4  # two parts of each stored image
    assert made.stored.shape == (4, 1, 16, 16)
    assert -4.001 <= made.stored.min() < -3.99 and made.stored.max() > -2  # clamped from below, in standardised units, and not above
    assert made.mean.tolist() == [-3.0] and made.std.tolist() == [2.0]
    torch.testing.assert_close(made.images[0, 0, :, :2], made.stored[0, 0, :, :1].repeat(1, 2), atol=0.6, rtol=0)
