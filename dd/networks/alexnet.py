"""AlexNet (Krizhevsky et al., NeurIPS 2012) as the DC lineage has it for 32x32 images: five convolutions, no norm, a linear head.

Conv 5x5 of 128 channels -> pool; conv 5x5 of 192 -> pool; conv 3x3 of 256; conv 3x3 of 192; conv 3x3 of 192 -> pool; Linear. ReLU after
every convolution, pooling is the maximum over 2x2. The head sees 192 * 4 * 4 = 3072 numbers at 32x32. Names: alexnet[_w{width}], the
channels of the first convolution (128); the others are 3/2, 2, 3/2 and 3/2 times as many, rounded down.

Stages: 0-4, the convolutions, each with its ReLU and the pooling after it.

Differs from the paper: kernels and strides for small images, fewer channels in the last three layers, no local response normalisation,
no dropout, one linear layer instead of three. One-channel images of 28x28 and 64x64 pixels are padded by two pixels more, see
`dd.networks.convnet.first_padding`.
"""

from __future__ import annotations

from torch import nn

from dd.networks._layers import Chain, refuse_below
from dd.networks.convnet import first_padding

NAME = r"alexnet(?:_w(?P<width>[1-9][0-9]*))?"
EXAMPLES = ["alexnet", "alexnet_w8"]
LAYERS = ((2, 5, True), (3, 5, True), (4, 3, False), (3, 3, False), (3, 3, True))  # halves of the width, kernel, pooled


def smallest(**_: object) -> int:
    """Return the smallest side: three poolings leave a pixel."""
    return 8


def build(channels: int, size: tuple[int, int], classes: int, width: int = 128) -> nn.Module:
    """Build an AlexNet; see `dd.networks.build`."""
    extra = first_padding(channels, size) - 1
    height, breadth = (side + 2 * extra for side in size)
    if min(height, breadth) < smallest():
        refuse_below(smallest(), size)
    blocks: list[nn.Module] = []
    inputs = channels
    for number, (halves, kernel, pooled) in enumerate(LAYERS):
        outputs = halves * width // 2
        padding = kernel // 2 + (extra if number == 0 else 0)
        parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.ReLU()]
        blocks.append(nn.Sequential(*parts, nn.MaxPool2d(2)) if pooled else nn.Sequential(*parts))
        inputs = outputs
    return Chain(blocks, inputs * (height // 8) * (breadth // 8), classes)
