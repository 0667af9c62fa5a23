"""ConvNet, the network of nearly every distillation paper (Gidaris & Komodakis 2018; Zhao et al., DC, ICLR 2021).

depth x [Conv 3x3, stride 1, padding 1 -> norm -> activation -> 2x2 pooling, stride 2] -> Linear. 320,010 parameters for
CIFAR-10 at depth 3. Names: convnet{depth}_{in|bn|none}[_w{width}][_sigmoid|_leaky][_max|_nopool]; width 128, ReLU and average
pooling where the name is silent. Stage i is the output of block i, after its pooling.

Differs from the paper: nothing; but papers do not mention what their code does to one-channel images, see `first_padding`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dd.networks._instance_norm import InstanceNorm
from dd.networks._layers import Chain, Layout, norm, refuse_below

NAME = (
    r"convnet(?P<depth>[1-9])_(?P<norm>in|bn|none)(?:_w(?P<width>[1-9][0-9]*))?"
    r"(?:_(?P<activation>sigmoid|leaky))?(?:_(?P<pooling>max|nopool))?"
)
EXAMPLES = [
    "convnet3_in",
    "convnet3_bn",
    "convnet3_none",
    "convnet4_in",
    "convnet3_in_w32",
    "convnet3_in_w16_sigmoid",
    "convnet3_in_w16_leaky",
    "convnet3_in_w16_max",
    "convnet3_in_w16_nopool",
    "convnet3_bn_w16_leaky_max",
]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "leaky": lambda: nn.LeakyReLU(inplace=True),
}
POOLINGS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def smallest(depth: int, norm: str, pooling: str = "avg", **_: object) -> int:
    """Return the smallest side: each pooling halves it, and instance norm of a single pixel is zero whatever it was."""
    if pooling != "nopool":
        return int(2**depth)
    return 2 if norm == "in" else 1


def first_padding(channels: int, size: tuple[int, int]) -> int:
    """Return the padding of the first convolution: 3 for one-channel images of 28x28 and 64x64 pixels, else 1.

    The papers' code pads every one-channel image by 3, which is meant for MNIST: 28 -> 32, so that three poolings leave
    4x4. It does the same to 64x64 spectrograms (64 -> 68 -> 34 -> 17 -> 8 -> 4). Both are kept, to agree with the papers.
    No paper has one-channel images of another size; those (the 16x16 digits) are left as they are.
    """
    return 3 if channels == 1 and size in ((28, 28), (64, 64)) else 1


def build(
    channels: int,
    size: tuple[int, int],
    classes: int,
    depth: int,
    norm: str,
    width: int = 128,
    activation: str = "relu",
    pooling: str = "avg",
) -> nn.Module:
    """Build a ConvNet; see `dd.networks.build`."""
    padding = first_padding(channels, size)
    height, breadth = (side + 2 * (padding - 1) for side in size)
    if min(height, breadth) < smallest(depth, norm, pooling):
        refuse_below(smallest(depth, norm, pooling), size)
    blocks = []
    for index in range(depth):
        first = index == 0
        blocks.append(_block(channels if first else width, width, padding if first else 1, norm, activation, pooling))
        if pooling != "nopool":
            height, breadth = height // 2, breadth // 2
    return Chain(blocks, width * height * breadth, classes, layout(channels, norm))


def layout(channels: int, norm: str) -> Layout:
    """Return the layout of a ConvNet: images of one channel gain nothing by channels last, and lose much in the first convolution."""
    if channels == 1:
        return "contiguous"
    return "last_without_gradients" if norm == "bn" else "last"


class Block(nn.Sequential):
    """Convolution, norm, activation, pooling: one after the other, or the last three in one where `dd.networks._instance_norm` has them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the stage."""
        if not self._has_all_in_one():
            return super().forward(x)
        conv, normalise, activation, pool = self
        x = conv(x)
        assert isinstance(normalise, InstanceNorm)
        return normalise.pooled(x) if normalise.takes(x) and x.shape[2] % 2 == x.shape[3] % 2 == 0 else pool(activation(normalise(x)))

    def _has_all_in_one(self) -> bool:
        """Tell whether the last three are instance norm, ReLU and 2x2 means, and nobody looks in between (CAFE does)."""
        kinds = [type(module) for module in self][1:]
        looked = any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in self)
        return kinds == [InstanceNorm, nn.ReLU, nn.AvgPool2d] and not looked


def _block(inputs: int, width: int, padding: int, kind: str, activation: str, pooling: str) -> nn.Sequential:
    block = Block()
    block.add_module("conv", nn.Conv2d(inputs, width, 3, padding=padding))
    block.add_module("norm", norm(kind, width))
    block.add_module("activation", ACTIVATIONS[activation]())  # in place: who hooks the norm must copy what it returned
    if pooling != "nopool":
        block.add_module("pool", POOLINGS[pooling](2))
    return block
