"""The job `quality`: measure one milestone of a generator and write what was found beside it."""

from __future__ import annotations

from pathlib import Path

from dd.analysis.gan_config import QualityConfig
from dd.analysis.gan_quality import COLOURS, NEIGHBOURS, Gates, quality
from dd.artifacts import read_meta, write_json
from dd.config import hashed
from dd.data.load import manifest, pool
from dd.errors import ArtifactError
from dd.train.gan import load_generator
from dd.train.pretrain import load_network
from dd.train.supervised import accuracy

SEED = 0
LINEAGE = "dc"


def measure(config: QualityConfig, generator: Path, classifier: Path, dataset: Path, out: Path, *, device: str = "cpu") -> None:
    """Write the measures of a generator as JSON: what `quality` returns, the configuration, and `classifier_accuracy`.

    The gates are those of digits and Fashion-MNIST, and for images of three channels those of CIFAR-10 (`COLOURS`). There are at least
    8 samples a class. `classifier_accuracy` is that on the real test split: no measure can be better than what looks.

    Args:
        generator, classifier: files of `python -m dd generator` and of `python -m dd pretrain`.

    Raises:
        ArtifactError: a file is missing, damaged, of other images or of another epoch, or the generator's training diverged.
    """
    facts = manifest(dataset)
    for path, epoch in ((generator, config.epoch), (classifier, config.classifier_epoch)):
        meta = read_meta(path)
        for key, wanted in (("fingerprint", facts["fingerprint"]), ("epoch", epoch)):
            if meta.get(key) != wanted:
                raise ArtifactError(f"{path}: {key}: is {meta.get(key)!r}, the measures are of {wanted!r}; delete it and run again")
    classes = len(facts["classes"])
    train = pool(dataset, "train", LINEAGE, device, first=-(-config.images // classes))
    test = pool(dataset, "test", LINEAGE, device)
    net = load_network(classifier, device)
    found = quality(
        load_generator(generator, device), net, train, test, seed=SEED, samples=max(config.samples, classes * 2 * (NEIGHBOURS + 1)),
        gates=COLOURS if facts["channels"] == 3 else Gates(), network=config.score, epochs=config.score_epochs,
    )  # fmt: skip
    right, _ = accuracy(net, lambda i: (test.x(i), test.y(i)), len(test), classes)
    write_json(out, {"config": hashed(config), "fingerprint": facts["fingerprint"], "classifier_accuracy": right, **found})
