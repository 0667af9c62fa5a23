"""VGG-11 (Simonyan & Zisserman, ICLR 2015) as the DC lineage has it: eight convolutions and a linear head, or three linear layers.

Conv 3x3 with bias -> norm -> ReLU, of 64, 128, 256, 256, 512, 512, 512 and 512 channels; 2x2 max-pooling after the first, second, fourth,
sixth and eighth; Linear on what is left, 512 numbers at 32x32. 9,231,114 parameters for CIFAR-10. Names:
vgg11_{in|bn}[_w{width}][_small|_imagenet|_pool7], the channels of the first convolution (64); the others are 2, 4 and 8 times as many. The
`_small` form leaves out the fourth pooling, for laptops and small images. The `_imagenet` form is what ELF's released code has for 64x64:
what is left, (512, 2, 2), goes through Linear(2048, 4096) -> ReLU -> dropout 0.5, Linear(4096, 4096) -> ReLU -> dropout 0.5, and the head;
4096 is 64 widths. 35,219,400 parameters for Tiny ImageNet, 38,497,000 for the 1000 classes of ImageNet. The `_pool7` form is what the code
of GLaD and H-PD has for 128x128: what is left, (512, 4, 4), is brought to 7x7 pixels by adaptive max-pooling, the sides that the head of
the paper was made for (from 4 pixels to 7, each second one is one of the four and those between are the larger of two neighbours), and the
head is Linear(25088). 9,476,874 parameters for 10 classes, at any size.

Stages: 0-7, the convolutions, each with its norm, its ReLU and the pooling after it; in the `_imagenet` form 8 and 9, the hidden linear
layers, each with its ReLU and its dropout, (n, 4096); in the `_pool7` form 8, the adaptive pooling, (n, 512, 7, 7). ELF splits
after stage 4 at 32x32 (512, 4, 4), and after stage 5 at 64x64 (512, 4, 4).

In training mode the `_imagenet` form needs a random stream for its dropout, see `dd.networks._layers.reseed`: it can be trained and
evaluated; methods cannot look through it in training mode.

Differs from the paper: norms; one linear layer instead of three and no dropout, but for the `_imagenet` form, which differs from the
paper's by its norms and by having 2x2 pixels before its linear layers, not 7x7. One-channel images of 28x28 and 64x64 pixels are padded by
two pixels more, see `dd.networks.convnet.first_padding`.
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain, Dropout, norm, refuse_below
from dd.networks.convnet import first_padding

NAME = r"vgg11_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?(?:_(?P<form>small|imagenet|pool7))?"
EXAMPLES = [  # the small ones take 16x16; the full form takes what the imagenet form does
    "vgg11_in_small",
    "vgg11_bn_small",
    "vgg11_in_w8_small",
    "vgg11_bn_w8_small",
    "vgg11_in_w8_imagenet",
    "vgg11_bn_w8_imagenet",
    "vgg11_in_w8_pool7",
    "vgg11_bn_w8_pool7",
]
LAYERS = ((1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True))  # channels in widths, pooled
FOURTH = 5  # the layer whose pooling the small form leaves out
HIDDEN = 64  # units of a hidden linear layer of the imagenet form, in widths
POOL = 7  # the sides of what the head of the pool7 form sees


def smallest(form: str = "full", **_: object) -> int:
    """Return the smallest side: five poolings, or four, leave a pixel.

    The last norms see maps that are twice as large, at least 2x2, so instance norm keeps something: of one pixel it is zero.
    """
    return 16 if form == "small" else 32


def build(channels: int, size: tuple[int, int], classes: int, norm: str, width: int = 64, form: str = "full") -> nn.Module:
    """Build a VGG-11; see `dd.networks.build`."""
    padding = first_padding(channels, size)
    height, breadth = (side + 2 * (padding - 1) for side in size)
    if min(height, breadth) < smallest(form):
        refuse_below(smallest(form), size)
    blocks: list[nn.Module] = []
    inputs = channels
    for number, (times, pooled) in enumerate(LAYERS):
        pooled = pooled and not (form == "small" and number == FOURTH)
        blocks.append(_block(inputs, times * width, 1 if blocks else padding, norm, pooled))
        inputs = times * width
        if pooled:
            height, breadth = height // 2, breadth // 2
    inputs *= height * breadth
    if form == "imagenet":
        for _ in range(2):
            blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(inputs, HIDDEN * width), nn.ReLU(), Dropout(0.5)))
            inputs = HIDDEN * width
    if form == "pool7":
        blocks.append(nn.AdaptiveMaxPool2d(POOL))
        inputs = LAYERS[-1][0] * width * POOL * POOL
    return Chain(blocks, inputs, classes)


def _block(inputs: int, outputs: int, padding: int, kind: str, pooled: bool) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=padding), norm(kind, outputs), nn.ReLU(inplace=True))
    return block.append(nn.MaxPool2d(2)) if pooled else block
