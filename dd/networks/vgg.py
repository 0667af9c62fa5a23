"""VGG-11 (Simonyan & Zisserman, ICLR 2015) as the DC lineage has it for 32x32 images: eight convolutions and a linear head.

Conv 3x3 with bias -> norm -> ReLU, of 64, 128, 256, 256, 512, 512, 512 and 512 channels; 2x2 max-pooling after the first, second, fourth,
sixth and eighth; Linear on what is left, 512 numbers at 32x32. 9,231,114 parameters for CIFAR-10. Names:
vgg11_{in|bn}[_w{width}][_small], the channels of the first convolution (64); the others are 2, 4 and 8 times as many. The `_small` form
leaves out the fourth pooling, for laptops and small images.

Stages: 0-7, the convolutions, each with its norm, its ReLU and the pooling after it. ELF splits after stage 4 at 32x32 (512, 4, 4), and
after stage 5 at 64x64 (512, 4, 4).

Differs from the paper: norms; one linear layer instead of three, no dropout. One-channel images of 28x28 and 64x64 pixels are padded by
two pixels more, see `dd.networks.convnet.first_padding`.
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain, norm, refuse_below
from dd.networks.convnet import first_padding

NAME = r"vgg11_(?P<norm>in|bn)(?:_w(?P<width>[1-9][0-9]*))?(?:_(?P<form>small))?"
EXAMPLES = ["vgg11_in_small", "vgg11_bn_small", "vgg11_in_w8_small", "vgg11_bn_w8_small"]  # those that take 16x16
LAYERS = ((1, True), (2, True), (4, False), (4, True), (8, False), (8, True), (8, False), (8, True))  # channels in widths, pooled
FOURTH = 5  # the layer whose pooling the small form leaves out


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
    return Chain(blocks, inputs * height * breadth, classes)


def _block(inputs: int, outputs: int, padding: int, kind: str, pooled: bool) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=padding), norm(kind, outputs), nn.ReLU())
    return block.append(nn.MaxPool2d(2)) if pooled else block
