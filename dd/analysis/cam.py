"""Where in an image a network sees evidence of a class, for pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.objectives.feature_distance import CHUNK, frozen, grad_cam


def cam(network: nn.Module, x: Tensor, y: Tensor, *, chunk: int = CHUNK) -> Tensor:
    """Return Grad-CAM's map of every image, as large as the image and scaled to [0, 1] by its own largest value.

    The map of the network's last stage that has pixels is interpolated bilinearly. 0 is no evidence, 1 the place with the most; a map
    without any evidence is 0 everywhere. Maps of different images have different scales. See `dd.objectives.feature_distance.grad_cam`
    for networks that flatten their last map.

    Args:
        network: a network of `dd.networks`, in either mode; it is looked through in eval mode and stays as it is.
        x: (n, c, h, w), normalised as in its training, on its device. y: (n,) int64, its classes.
        chunk: images at once.

    Returns:
        (n, h, w), without gradient.

    Raises:
        ConfigError: no stage of the network has pixels.
    """
    net = frozen(network)
    with torch.no_grad():
        parts = [grad_cam(net, some, of) for some, of in zip(x.split(chunk), y.split(chunk), strict=True)]
        maps = F.interpolate(torch.cat(parts)[:, None], size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        largest = maps.amax((1, 2), keepdim=True)
        return maps / torch.where(largest > 0, largest, 1.0)
