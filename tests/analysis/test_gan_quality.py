"""Gates of a generator: real images pass, noise, copies and a collapsed generator do not, each by the measure that is meant for it."""

import math

import pytest
import torch

from dd import networks
from dd.analysis.gan_quality import Gates, memorisation, precision_recall, quality, sample
from dd.data.load import pool
from dd.data.pool import RealPool
from dd.errors import ConfigError
from dd.generators import to_gan
from dd.rng import stream
from dd.train.config import Training
from dd.train.supervised import fit


def part(whole, index):
    mean, std = whole.statistics
    return RealPool(whole.images[index], whole.labels[index], 10, mean.tolist(), std.tolist())


class Lookup:
    """A "generator" that gives images of a pool: z picks one of the label's."""

    z_dim = 1

    def __init__(self, images, labels):
        self.images = to_gan(images)
        self.members = [(labels == c).nonzero().squeeze(1) for c in range(10)]

    def __call__(self, z, y):
        share = 0.5 * (1 + torch.erf(z[:, 0] / math.sqrt(2)))  # uniform in [0, 1]
        index = [self.members[c][min(int(u * len(self.members[c])), len(self.members[c]) - 1)] for u, c in zip(share, y, strict=True)]
        return self.images[torch.stack(index)]


class Noise:
    z_dim = 256

    def __call__(self, z, y):
        return z.reshape(-1, 1, 16, 16)


@pytest.fixture(scope="module")
def pools(digits_dir):
    """Return (train, other, test): two halves of train that have no image in common, and the test images."""
    whole, test = pool(digits_dir, "train", "dc"), pool(digits_dir, "test", "dc")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    return part(whole, order[:700]), part(whole, order[700:]), test


@pytest.fixture(scope="module")
def classifier(pools):
    real = pools[0]
    net = networks.build("convnet3_in_w8", 1, (16, 16), 10, 0)
    how = {"seed": 0, "names": ("test",), "first_epoch": 0, "last_epoch": 8, "shape": (1, 16, 16), "flip": False}
    fit(net, lambda i: (real.x(i), real.y(i)), len(real), Training(lr=0.02, batch=32), **how)
    return net


def judge(generator, pools, classifier, **options):
    options = {"samples": 700, "network": "convnet3_in_w8", "epochs": 4, **options}
    return quality(generator, classifier, pools[0], pools[2], seed=0, **options)


def failed(result):
    return {name for name, measure in result["measures"].items() if not measure["passed"]}


@pytest.fixture(scope="module")
def of_real(pools, classifier):
    return judge(Lookup(pools[1].images, pools[1].labels), pools, classifier)


def test_other_real_images_pass_every_gate(of_real):
    assert of_real["passed"], of_real
    value = {name: measure["value"] for name, measure in of_real["measures"].items()}
    assert value["consistency"] > 0.9
    assert value["cas"] == pytest.approx(1, abs=0.1)
    assert value["spread_pixels"] == pytest.approx(1, abs=0.1)
    assert value["spread_features"] == pytest.approx(1, abs=0.1)
    assert value["memorisation"] == pytest.approx(1, abs=0.2)
    assert of_real["measures"]["spread_pixels"]["gate"] == [0.6, 1.2]
    assert of_real["measures"]["cas"]["gate"] == [0.85, None]


def test_noise_fails(pools, classifier):
    result = judge(Noise(), pools, classifier, epochs=1)
    assert not result["passed"]
    assert {"consistency", "class_min", "cas", "precision"} <= failed(result)  # its balls are so large that they hold all real images


def test_copies_of_training_images_fail_by_memorisation_alone(pools, classifier):
    result = judge(Lookup(pools[0].images, pools[0].labels), pools, classifier)
    assert failed(result) == {"memorisation"}
    assert result["measures"]["memorisation"]["value"] == 0


def test_one_image_a_class_fails_by_diversity(pools, classifier):
    other = pools[1]
    first = torch.stack([(other.labels == c).nonzero()[0, 0] for c in range(10)])
    result = judge(Lookup(other.images[first], other.labels[first]), pools, classifier, epochs=1)
    assert {"spread_pixels", "spread_features", "recall"} <= failed(result)
    assert result["measures"]["spread_pixels"]["value"] == 0


def test_a_dead_class_fails_by_the_class_minimum(pools, classifier):
    other = pools[1]
    labels = other.labels.clone()
    labels[other.labels == 3], labels[other.labels == 5] = 5, 3  # asked for 3, it draws 5, and the other way round
    result = judge(Lookup(other.images, labels), pools, classifier, gates=Gates(consistency=0.7), epochs=1)
    assert "class_min" in failed(result)
    assert "consistency" not in failed(result)
    each = result["details"]["class_consistency"]
    assert each[3] < 0.1
    assert each[5] < 0.1


def test_it_is_deterministic_and_leaves_the_classifier_as_it_was(pools, classifier, of_real):
    classifier.train()
    before = torch.get_rng_state()
    again = judge(Lookup(pools[1].images, pools[1].labels), pools, classifier)
    assert again == of_real
    assert torch.equal(torch.get_rng_state(), before)
    assert classifier.training
    with pytest.raises(ConfigError, match="samples: value 79; allowed: 80"):
        judge(Noise(), pools, classifier, samples=79)


def test_samples_do_not_depend_on_the_batch_they_are_made_in(pools):
    generator, y = Lookup(pools[1].images, pools[1].labels), torch.arange(30) % 10
    few, many = (sample(generator, y, stream(0, "x"), batch=batch) for batch in (7, 30))
    assert few.dtype == torch.uint8
    assert torch.equal(few, many)


def test_precision_and_recall_against_loops():
    numbers = torch.Generator().manual_seed(0)
    real, fake = torch.randn(30, 2, generator=numbers), 0.4 * torch.randn(25, 2, generator=numbers) + 1

    def covered(points, among):
        count = 0
        for p in points.tolist():
            for q in range(len(among)):
                centre = among[q].tolist()
                radius = sorted(math.dist(centre, among[j].tolist()) for j in range(len(among)) if j != q)[2]
                if math.dist(p, centre) <= radius + 1e-7:
                    count += 1
                    break
        return count / len(points)

    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(covered(fake, real))
    assert recall == pytest.approx(covered(real, fake))
    assert precision != recall


def test_memorisation_is_a_ratio_of_median_distances():
    train = torch.tensor([[0.0], [10.0]])
    assert memorisation(torch.tensor([[1.0], [2.0], [13.0]]), train, torch.tensor([[4.0], [5.0], [14.0]])) == pytest.approx(2 / 4)
