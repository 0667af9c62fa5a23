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


def built(method, digits_dir, ipc=2, **fields):
    import importlib

    from dd.data.load import manifest
    from dd.distill import _pool
    from dd.types import Inputs

    recipe, facts = importlib.import_module(f"dd.recipes.{method}"), manifest(digits_dir)
    config = parse(recipe.Config, fields, method)
    lineage = getattr(recipe, "LINEAGE", "dc")
    return recipe.build(config, Inputs(digits_dir, facts, ipc, 0, "cpu", [], _pool(digits_dir, lineage, "train", "cpu")))


SMALL = {"batch_real": 4, "momentum": 0.4}
DSDM = {**SMALL, "extractor": {"network": "convnet3_in_w8", "epochs": 0}, "lr_img": 0.25}
M3D = {**SMALL, "network": "convnet3_in_w8", "lr_img": 0.25}
IDM = {**M3D, "size": 7, "grow_every": 5, "fetch": 3, "train_steps": 4, "train_batch": 9, "reset_every": 11}


@pytest.mark.parametrize(("method", "fields"), [("dsdm", DSDM), ("m3d", M3D), ("idm", IDM)])
def test_steps_are_by_class_with_the_configured_rate_and_momentum(method, fields, digits_dir):
    from dd.optim import PerClassSGD

    run = built(method, digits_dir, **fields)
    assert type(run.optimizer) is PerClassSGD
    (group,) = run.optimizer.param_groups
    assert (group["lr"], group["momentum"]) == (0.25, 0.4)
    assert run.optimizer._before.tolist() == [c for c in range(10) for _ in range(2)]


@pytest.mark.parametrize(("method", "fields"), [("dsdm", DSDM), ("m3d", M3D)])
def test_pixels_are_raw_clamped_and_capped(method, fields, digits_dir):
    run = built(method, digits_dir, batch_syn_max=5, **fields)
    made, index = run.parameterization, torch.arange(20)
    with torch.no_grad():
        made.images.add_(2.0)
    made.project_()
    assert made.images.max() == 1.0
    pool_mean, pool_std = run.finish().mean, run.finish().std
    expected = (made.expand(made.images[index]) - pool_mean) / pool_std
    torch.testing.assert_close(made.decode(index), expected)
    assert torch.bincount(run.batches(0).pair()[0].y).tolist() == [5] * 10


def test_both_are_of_the_idc_lineage_and_the_kernel_matters(digits_dir):
    from dd.recipes import dsdm, m3d

    assert m3d.LINEAGE == dsdm.LINEAGE == "idc"
    losses = set()
    for kernel in ("gaussian", "linear", "polynomial", "laplace"):
        run = built("m3d", digits_dir, kernel=kernel, **M3D)
        losses.add(float(run.term(run.batches(0), run.source.draw(0)).detach()))
    assert len(losses) == 4


def test_idm_publishes_what_networks_were_shown_and_wires_its_queue(digits_dir):
    run = built("idm", digits_dir, **IDM)
    made = run.finish()
    shown = (made.images - made.mean.view(1, -1, 1, 1)) / made.std.view(1, -1, 1, 1)
    torch.testing.assert_close(shown, run.parameterization.decode(torch.arange(20)), atol=1e-5, rtol=1e-5)
    assert run.parameterization._order == "columns" and run.parameterization.images.std() > 0.3
    queue = run.source
    wired = (queue._size, queue._grow_every, queue._fetch, queue._train_steps, queue._train_batch, queue._reset_every)
    assert wired == (7, 5, 3, 4, 9, 11)
    augment = run.batches(0)._augment
    assert "flip" not in augment.names and "rotate" in augment.names  # a mirrored digit is another one


def test_images_that_must_not_be_augmented_are_not(floats, tmp_path):
    import json

    from dd.augment.policies import Nothing
    from dd.train.config import Training
    from dd.train.supervised import for_data

    facts = json.loads((floats / "manifest.json").read_text())
    write_json(floats / "manifest.json", {**facts, "augment": False})
    for method, fields in (("dsdm", DSDM), ("m3d", M3D), ("idm", IDM), ("dm", {"batch_real": 4}), ("cafe_dsa", {"batch_real": 4})):
        run = built(method, floats, **fields)
        assert isinstance(run.batches(0)._augment, Nothing), method
    training = Training(augment="stack", cutmix=0.5)
    assert (for_data(training, {"augment": False}).augment, for_data(training, {"augment": False}).cutmix) == ("none", 0.0)
    assert for_data(training, {}) is training
