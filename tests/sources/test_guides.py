"""Which models guide: their configuration, what they need, and the files of a chosen epoch."""

import pytest

from dd.config import hashed, parse
from dd.errors import ConfigError
from dd.sources.guides import ALPHAS, Candidates, Guidance, Guides, chosen, defaults, needs


def guidance(**fields):
    return parse(Guidance, {"kind": "clom", "alpha": 1.0, **fields}, "guidance")


def test_the_training_is_cloms():
    training = hashed(guidance().training)
    assert (training["lr"], training["momentum"], training["weight_decay"], training["batch"]) == (0.01, 0.9, 5e-3, 256)
    assert (training["schedule"], training["epochs"], training["augment"]) == ("thirds", 150, "none")


def test_architectures_may_be_joined_by_a_plus():
    assert guidance(networks="convnet3_in+alexnet").networks == guidance(networks=["convnet3_in", "alexnet"]).networks
    assert guidance(networks="convnet3_in+alexnet").alphas == (1.0, 1.0)
    assert guidance(networks="convnet3_in+alexnet", alpha=[1.0, 5.0]).alphas == (1.0, 5.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"networks": "convnet3_in", "alpha": [1.0, 2.0]}, "alpha has 2 values for 1 networks"),
        ({"source": "cifar100"}, "source is for cclom"),
        ({"models": 0}, "models"),
        ({"networks": []}, "networks"),
        ({"kind": "glom"}, "kind"),
        ({"epochs": {"candidates": []}}, "candidates"),
        ({"epoch": 4}, "epoch"),
    ],
)
def test_mistakes_are_named(fields, said):
    with pytest.raises(ConfigError, match=said):
        guidance(**fields)


def test_published_weights():
    assert defaults("dsa", "cifar10", 50, "clom") == {"alpha": 1000.0}
    assert defaults("dc", "cifar10", 50, "clom") == {"alpha": 5000.0}
    assert defaults("dm", "cifar100", 50, "clom") == {"alpha": 1.0}
    assert defaults("dm", "pathmnist", 1, "clom") == {"alpha": ALPHAS["dm", "cifar10"][0]}
    assert defaults("dsa", "cifar10", 10, "cclom") == {"alpha": 1000.0}
    assert defaults("m3d", "cifar10", 10, "clom") == {}


def test_needs_name_every_model():
    own, other = needs(guidance(networks="convnet3_in+alexnet", models=3), "cifar10", "idc", "fit")
    assert (own.network, own.seeds, own.epochs, own.dataset, own.lineage, own.split) == ("convnet3_in", (0, 1, 2), (150,), "cifar10", "idc", "fit")
    assert other.network == "alexnet"
    (foreign,) = needs(guidance(kind="cclom", source="cifar100"), "cifar10", "zca", "fit")
    assert (foreign.dataset, foreign.lineage, foreign.split) == ("cifar100", "dc", "train")
    (several,) = needs(guidance(epochs={"candidates": [1, 4]}), "cifar10", "dc", "train")
    assert several.epochs == (1, 4)
    (teacher,) = needs(guidance(kind="cclom", networks="resnet18_tv", source="imagenet1k"), "imagenette", "dc", "train")
    assert (teacher.kind, teacher.network) == ("teacher", "resnet18_tv")


def test_files_of_the_chosen_epoch():
    two = guidance(networks="convnet3_in+alexnet", models=2, epochs={"candidates": [1, 4, 6]})
    groups = [[f"{name}-{epoch}-{seed}" for epoch in (1, 4, 6) for seed in (0, 1)] for name in ("c", "a")]
    assert chosen(two, groups, 4) == [["c-4-0", "c-4-1"], ["a-4-0", "a-4-1"]]
    assert chosen(guidance(), [["x"]], None) == [["x"]]
    for wrong in (5, None):
        with pytest.raises(ConfigError, match="allowed: 1, 4, 6"):
            chosen(two, groups, wrong)
    assert isinstance(two.epochs, Candidates)


def test_the_draw_is_a_function_of_seed_and_step():
    class Frozen:
        def __init__(self, path):
            self.path = path

        def requires_grad_(self, on):
            return self

        def eval(self):
            return self

    def drawn(seed):
        guides = Guides([["a0", "a1"], ["b0", "b1"]], Frozen, [1.0, 2.0], seed)
        return [(guides.draw(step)[0].path, guides.draw(step)[1]) for step in range(30)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1) and len(set(drawn(0))) == 4
    assert all((path[0] == "a") == (alpha == 1.0) for path, alpha in drawn(0))
