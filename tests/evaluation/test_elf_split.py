"""ELF before anything is trained: where networks are split, what fits and what is refused, and the protocol's settings."""

import pytest
import torch
from elf_small import NET, settings

from dd import networks
from dd.config import hashed, parse
from dd.config.stages import Dataset
from dd.errors import ConfigError
from dd.evaluation import elf
from dd.evaluation.protocols.elf import Elf
from dd.train.config import PretrainConfig


def looking_through(network, **fields):
    return Elf(features={"network": network}, **fields)


# Where networks are split.

PUBLISHED = [  # evaluation network, side, stage, its shape (as released)
    ("convnet3_in", 32, 2, (128, 4, 4)),
    ("convnet3_bn", 32, 2, (128, 4, 4)),
    ("convnet3_in_w512", 32, 2, (512, 4, 4)),
    ("resnet18_in", 32, 7, (512, 4, 4)),
    ("resnet18_bn", 32, 7, (512, 4, 4)),
    ("vgg11_in", 32, 4, (512, 4, 4)),
    ("vgg11_bn", 32, 4, (512, 4, 4)),
    ("convnet4_in", 64, 3, (128, 4, 4)),
    ("convnet4_bn", 64, 3, (128, 4, 4)),
    ("resnet18_tv_in", 64, 6, (256, 4, 4)),
    ("resnet18_tv_bn", 64, 6, (256, 4, 4)),
    ("vgg11_in_imagenet", 64, 5, (512, 4, 4)),
    ("vgg11_bn_imagenet", 64, 5, (512, 4, 4)),
]


def on_paper(name, side, classes=10):
    """Return a network without numbers, and the shapes of its stages for one image."""
    with torch.device("meta"):
        net = networks.build(name, 3, (side, side), classes).eval()
        return net, [tuple(h.shape[1:]) for h in net.stages(torch.empty(1, 3, side, side))]


@pytest.mark.parametrize(("name", "side", "stage", "shape"), PUBLISHED)
def test_fronts_end_where_the_paper_has_them(name, side, stage, shape):
    net, shapes = on_paper(name, side)
    assert elf.published_split(name) == stage
    assert shapes[stage] == shape
    assert elf.split(name, shapes, shape, Elf()) == stage
    with torch.device("meta"):
        assert net.rear(torch.empty(2, *shape), stage).shape == (2, 10)


def test_the_rears_are_the_papers():
    """Of ResNet-18 the second block of 512 channels follows; of VGG-11 the sixth convolution; of a ConvNet nothing but the head."""
    kinds = lambda name, side, stage: [type(m).__name__ for b in list(on_paper(name, side)[0].blocks)[stage + 1 :] for m in b.modules()]  # noqa: E731
    assert kinds("convnet3_in", 32, 2) == []
    assert kinds("resnet18_in", 32, 7).count("Conv2d") == 2
    assert kinds("resnet18_tv_in", 64, 6).count("Conv2d") == 5, "the whole group of 512, with its shortcut"
    assert kinds("vgg11_in", 32, 4).count("Conv2d") == 3
    assert kinds("vgg11_in", 32, 4).count("MaxPool2d") == 2
    large = kinds("vgg11_in_imagenet", 64, 5)
    assert (large.count("Conv2d"), large.count("MaxPool2d"), large.count("Linear"), large.count("Dropout")) == (2, 1, 2, 2)


STUDENTS = {
    32: ["convnet3_in", "convnet3_bn", "convnet3_in_w512", "resnet18_in", "resnet18_bn", "vgg11_in", "vgg11_bn"],
    64: ["convnet4_in", "convnet4_bn", "resnet18_tv_in", "resnet18_tv_bn", "vgg11_in_imagenet", "vgg11_bn_imagenet"],
}
WIDE = {"convnet3_in_w512", "resnet18_in", "resnet18_bn", "vgg11_in", "vgg11_bn"}
TEACHES = {  # feature network, side: the students of the paper (Tables 5 to 8 and 11)
    ("convnet3_in", 32): {"convnet3_in", "convnet3_bn"},
    ("convnet3_in_w256", 32): set(),
    ("convnet3_in_w512", 32): WIDE,
    ("resnet18_in", 32): WIDE,
    ("convnet4_in", 64): {"convnet4_in", "convnet4_bn"},
    ("convnet4_in_w256", 64): {"resnet18_tv_in", "resnet18_tv_bn"},
    ("convnet4_in_w512", 64): {"vgg11_in_imagenet", "vgg11_bn_imagenet"},
}


@pytest.mark.parametrize(("network", "side"), TEACHES)
def test_check_takes_the_papers_pairs_and_no_others(network, side):
    before, taken = torch.get_rng_state(), set()
    for student in STUDENTS[side]:
        try:
            looking_through(network).check(student, (3, side, side), 200)
        except ConfigError:
            continue
        taken.add(student)
    assert taken == TEACHES[network, side]
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"


def refusal(protocol, student, side=32):
    with pytest.raises(ConfigError) as caught:
        protocol.check(student, (3, side, side), 10)
    return str(caught.value)


def test_what_does_not_fit_is_told_with_what_does():
    text = refusal(looking_through("convnet3_in"), "resnet18_in")
    assert text.startswith("protocol elf: the published stage 7 of resnet18_in gives 512x4x4, features of convnet3_in are 128x4x4; ")
    assert "no stage of resnet18_in fits: 0 64x32x32, 1 64x32x32" in text
    assert "4 128x16x16" in text
    assert "features.network" in text
    assert text.endswith("one of these shapes")
    text = refusal(looking_through("convnet3_in_w512", stage=6), "resnet18_in")
    assert "elf: stage: value 6: that stage of resnet18_in gives 256x8x8, features of convnet3_in_w512 are 512x4x4" in text
    assert text.endswith("stages of resnet18_in that fit: 7, 8; set stage to one of them")
    for stage in (10, 99):
        text = refusal(looking_through("convnet3_in_w512", stage=stage), "resnet18_in")
        assert f"stage: value {stage}: that stage of resnet18_in is not there" in text
        assert text.endswith("stages of resnet18_in that fit: 7, 8; set stage to one of them")
    text = refusal(looking_through("convnet3_in_w512"), "mlp")
    assert text.startswith("protocol elf: mlp: features of convnet3_in_w512 are 512x4x4; no stage of mlp fits: 0 128, 1 128. ")


def test_a_stage_can_be_chosen():
    _, shapes = on_paper("resnet18_in", 32)
    assert elf.split("resnet18_in", shapes, (512, 4, 4), looking_through("convnet3_in_w512", stage=8)) == 8
    assert elf.split("resnet18_in", shapes, (64, 32, 32), looking_through("convnet3_in_w512", stage=0)) == 0
    _, shapes = on_paper("convnet3_in_w16_nopool", 32)
    assert elf.split("convnet3_in_w16_nopool", shapes, (16, 32, 32), Elf()) == 2
    assert elf.split("convnet3_in_w16_nopool", shapes, (16, 32, 32), Elf(stage=0)) == 0


def test_families_that_the_paper_does_not_have_are_split_after_the_last_stage_that_fits():
    _, shapes = on_paper("resnet10_in", 32)
    assert elf.published_split("resnet10_in") is None
    wanted = shapes[1]
    last = max(stage for stage, shape in enumerate(shapes) if shape == wanted)
    assert elf.split("resnet10_in", shapes, wanted, Elf()) == last
    _, shapes = on_paper("vit_w48_d4", 32)
    fits = [stage for stage, shape in enumerate(shapes) if shape == shapes[1]]
    assert len(fits) > 1
    assert elf.split("vit_w48_d4", shapes, shapes[1], Elf()) == fits[-1]
    with pytest.raises(ConfigError, match="elf: vit_w48_d4: features of convnet3_in_w512 are 1x2x3; no stage of vit_w48_d4 fits: 0 65x48"):
        elf.split("vit_w48_d4", shapes, (1, 2, 3), Elf())


def test_the_feature_network_has_a_stage_of_its_own():
    wide = {"network": "convnet3_in_w512", "stage": 1}
    Elf(features=wide, stage=1).check("convnet3_in_w512", (3, 32, 32), 10)
    text = refusal(Elf(features=wide), "convnet3_in_w512")
    assert text.endswith("features of convnet3_in_w512 are 512x8x8; stages of convnet3_in_w512 that fit: 1; set stage to one of them")
    text = refusal(Elf(features={"network": "convnet3_in", "stage": 3}), "convnet3_in")
    assert "features.stage: value 3: convnet3_in has no such stage; its stages: 0 128x16x16, 1 128x8x8, 2 128x4x4" in text
    text = refusal(looking_through("mlp"), "convnet3_in")
    assert "features.stage: is missing" in text
    assert "0 128, 1 128" in text
    with pytest.raises(ConfigError, match="convnet3_in_w51z"):
        looking_through("convnet3_in_w51z").check("convnet3_in", (3, 32, 32), 10)


# The configuration.


def test_the_need_is_the_feature_network_on_the_sets_own_dataset():
    (need,) = Elf().needs("cifar100", "zca", "fit")
    assert (need.kind, need.dataset, need.network, need.seeds, need.epochs) == ("pretrained", "cifar100", "convnet3_in_w512", (0,), (100,))
    assert (need.lineage, need.split) == ("zca", "fit")
    (need,) = settings(features={"network": "convnet4_in", "epochs": 30}).needs("digits", "dc", "train")
    assert (need.network, need.epochs) == ("convnet4_in", (30,))


@pytest.mark.parametrize("given", [{}, {"align_corners": False}, {"align_corners": True, "lr": 0.5}])
def test_the_feature_network_is_trained_as_the_protocol_says(given):
    """A `pretrain` job reads a plain training, whose own defaults must not take the place of the protocol's."""
    protocol = settings(features={"network": NET, "training": given})
    (need,) = protocol.needs("digits", "dc", "train")
    about = {"dataset": hashed(Dataset(name="digits")), "network": need.network, "training": need.config}
    assert parse(PretrainConfig, about, "test").training.model_dump() == protocol.features.training.model_dump()


def test_the_papers_settings():
    training = Elf().features.training
    assert (training.lr, training.momentum, training.weight_decay, training.batch) == (0.01, 0.9, 5e-4, 256)
    assert (training.augment, training.schedule, training.epochs, training.align_corners) == ("oneof", "halfway_reset", 200, True)
    protocol = Elf()
    assert (protocol.task, protocol.front, protocol.rear, protocol.distance, protocol.align_corners) == (1, 1, 1, "ce", True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": 0.0, "front": 0.0, "rear": 0.0}, "all 0: nothing to learn from"),
        ({"cutmix": 0.5}, "cutmix: value 0.5"),
        ({"cutmix": 0.5, "replicas": 4}, "replicas: value 4: is not for training with cutmix"),
        ({"replicas": 0}, "replicas"),
        ({"distance": "kl"}, "distance"),
        ({"front": -1.0}, "front"),
        ({"stage": -1}, "stage"),
        ({"features": {"network": NET, "epoch": 3}}, r"features\.epoch: unknown key.*epochs"),
        ({"features": {"training": {"augment": "dsa"}}}, r"features\.training\.augment"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        settings(**fields)
