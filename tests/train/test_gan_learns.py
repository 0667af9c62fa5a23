"""A few seconds of the generator's training make digits that a classifier of real ones knows."""

import torch

from dd import networks
from dd.analysis.gan_quality import sample
from dd.config import parse
from dd.data.load import pool
from dd.data.pool import RealPool
from dd.rng import stream
from dd.train.config import Training
from dd.train.gan import load_generator, train
from dd.train.gan_config import GanConfig
from dd.train.supervised import accuracy, fit


def test_a_short_training_makes_digits_that_a_classifier_knows(digits_dir, tmp_path):
    """About 12 s of one core. Chance is 0.10."""
    training = {"lr": 5e-3, "batch": 32, "r1_every": 8}
    config = parse(GanConfig, {"dataset": {"name": "digits"}, "generator": "mini_w16", "training": training}, "test")
    out = tmp_path / "epoch6.safetensors"
    train(config, digits_dir, 6, out)  # 264 updates
    real = pool(digits_dir, "train", "dc")
    net = networks.build("convnet3_in_w8", 1, (16, 16), 10, 0)

    def fetch(i):
        return real.x(i), real.y(i)

    how = {"seed": 0, "names": ("test",), "first_epoch": 0, "last_epoch": 4, "shape": (1, 16, 16), "flip": False}
    fit(net, fetch, len(real), Training(lr=0.02, batch=32), **how)
    assert accuracy(net, fetch, len(real), 10)[0] > 0.9
    y = torch.arange(400) % 10
    (mean, std) = real.statistics
    fake = RealPool(sample(load_generator(out), y, stream(0, "samples")), y, 10, mean.tolist(), std.tolist())
    right, _ = accuracy(net, lambda i: (fake.x(i), fake.y(i)), 400, 10)
    assert right > 0.5
