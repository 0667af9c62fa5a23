"""How far synthetic images are from the real ones in what a proxy network takes as evidence of their class (H-PD's selection)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dd.data.pool import RealPool
from dd.errors import ConfigError, DataError, nearest
from dd.rng import stream
from dd.types import Network

Variant = Literal["last", "layers", "gradcam"]
CHUNK = 128  # images at once: with every map's gradient, a ResNet-18 needs about 10 MB for a CIFAR image, 16 times that at 128x128


class FeatureDistance:
    r"""The class-relevant feature distance between synthetic images and all real images of a pool.

    .. math:: D(S) = \sum_c \sum_l \frac{\| \mu_{c,l}(S) - \mu_{c,l}(T) \|^2}{\| \mu_{c,l}(T) \|^2}, \qquad
              \mu_{c,l}(X) = \frac{1}{|X_c|} \sum_{x \in X_c} A_{c,l}(x), \qquad g_{c,l}(x) = \frac{\partial z_c}{\partial f_l}(x)

    (H-PD, equations 5 and 6.) f_l is the output of stage l of the proxy, z_c its logit of class c. What A is says the variant:

    - last: A = f ReLU(g) at the last stage that has pixels. It needs a proxy whose logits are linear in that map, as with a mean over
      pixels or flattening before the linear head. Then g is the same for every image: W_c / (H W) at each pixel with the mean, else W_c
      in the map's shape. It is found once; a distance is a forward pass.
    - layers: A = f ReLU(g) at every stage that has pixels; a forward and a backward pass of the proxy.
    - gradcam: A = ReLU(sum_k alpha_k f_k), (H, W), at the last stage that has pixels, alpha_k the mean of g_k over them (Grad-CAM,
      Selvaraju et al., 2017); a forward pass, and a backward pass of what comes after that map.

    The proxy works in eval mode and nothing is augmented, so an image's A depends on no other image. Maps are in the proxy's precision,
    means and distances in float64. There is no gradient: the distance picks among sets that another loss optimises.

    Making one looks at every real image once: one forward pass of the train split, with its backward pass for `layers`. Nothing needs to
    be saved: `real` is a function of the proxy and the pool. It holds 8 bytes for every number of the maps of one image and for every
    class: 0.7 MB (last) or 25 MB (layers) for a ResNet-18 and CIFAR-10.

    Differs from the paper: that gives neither the division by the real norm, which lets classes and stages count alike (a stage without
    any real evidence of a class, norm 0, is not divided), nor which stages count, nor a proxy for images that are not ImageNet's. Images
    are not resized for the proxy, unless it is `Resized`.

    real: for each map, in the order of the stages, (classes, *map), the mean A of the real images.
    """

    def __init__(
        self, proxy: nn.Module, pool: RealPool, *, variant: Variant = "last", ids: Sequence[int] | None = None, chunk: int = CHUNK
    ) -> None:
        """Average the evidence of all real images.

        Args:
            proxy: a trained network of `dd.networks`; it is copied, so it may be trained on, or be in training mode.
            pool: the real train images, normalised as the proxy's training had them; the proxy's copy is moved to their device.
            ids: the proxy's class for each class of the pool, such as positions in ImageNet; None where they are the same.
            chunk: images at once.

        Raises:
            ConfigError: an unknown variant, no image of a class, `ids` of another number or outside the proxy's classes, a proxy without
                maps, or one whose logits are not linear in its last map (last).
            DataError: a mean that is not finite: of a proxy that diverged, or of broken images.
        """
        if variant not in get_args(Variant):
            raise ConfigError(f"variant: value {variant!r}{nearest(variant, get_args(Variant))}; allowed: {', '.join(get_args(Variant))}")
        if chunk < 1:
            raise ConfigError(f"chunk: value {chunk}; allowed: 1 and more")
        self._proxy = frozen(proxy).to(pool.device)
        self._variant, self._chunk, self._classes = variant, chunk, pool.classes
        chosen = list(range(pool.classes) if ids is None else ids)
        if len(chosen) != pool.classes:
            raise ConfigError(f"ids: {len(chosen)} classes of the proxy; there must be one for each of the pool's {pool.classes}")
        self._ids = torch.tensor(chosen, device=pool.device)
        with torch.no_grad():
            positions = torch.arange(len(pool), device=pool.device)
            example = pool.x(positions[:1]).to(_dtype(self._proxy))
            known = cast(Network, self._proxy).forward(example).shape[1]
            if wrong := [c for c in chosen if not 0 <= c < known]:
                raise ConfigError(f"ids: {wrong}; allowed: 0 to {known - 1}, the classes of the proxy")
            self._relevance = self._constant(example) if variant == "last" else None
            self.real = self._means((pool.x(index), pool.y(index)) for index in positions.split(chunk))
        if not all(mean.isfinite().all() for mean in self.real):
            raise DataError("the proxy's evidence for real images is not finite: it has diverged, or the images are broken")

    def distance(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return D of the images, a float64 scalar >= 0 without gradient; 0 for the real images themselves, up to rounding.

        It is nan where an image has a nan, which no comparison takes for smaller.

        Args:
            images: (n, c, h, w), normalised as the pool's. labels: (n,) int64, the pool's classes; all of them must occur.

        Raises:
            ConfigError: labels of another shape or type, outside the classes, or without some class.
        """
        return self.per_class(images, labels).sum()

    @torch.no_grad()
    def per_class(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the parts of D, (classes,) float64; arguments and errors as in `distance`."""
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise ConfigError(f"labels: {tuple(labels.shape)} {labels.dtype}; they must be ({len(images)},) int64, one class an image")
        if wrong := [c for c in labels.unique().tolist() if not 0 <= c < self._classes]:
            raise ConfigError(f"labels: {wrong}; allowed: 0 to {self._classes - 1}")
        device = self._ids.device
        means = self._means((images[i].to(device), labels[i].to(device)) for i in torch.arange(len(labels)).split(self._chunk))
        total = torch.zeros(self._classes, dtype=torch.float64, device=device)
        for mine, real in zip(means, self.real, strict=True):
            norm = real.flatten(1).square().sum(1)
            total += (mine - real).flatten(1).square().sum(1) / torch.where(norm > 0, norm, 1.0)
        return total

    def _means(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the class means of every map, each (classes, *map) float64."""
        sums: list[Tensor] = []
        shapes: list[torch.Size] = []
        counts = torch.zeros(self._classes, dtype=torch.float64, device=self._ids.device)
        for x, y in batches:
            # A product adds up in a fixed order; index_add_ would not on a GPU, and two runs could then choose different sets.
            members = F.one_hot(y, self._classes).double().t()
            counts += members.sum(1)
            maps = self._evidence(x.detach().to(_dtype(self._proxy)), y)
            parts = [members @ each.flatten(1).double() for each in maps]
            sums = [total.add_(part) for total, part in zip(sums, parts, strict=True)] if sums else parts
            shapes = [each.shape[1:] for each in maps]
        if missing := (counts == 0).nonzero().flatten().tolist():
            raise ConfigError(f"there is no image of {'class' if len(missing) == 1 else 'classes'} {', '.join(map(str, missing))}")
        return [(total / counts[:, None]).unflatten(1, shape) for total, shape in zip(sums, shapes, strict=True)]

    def _evidence(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return A of every image for its own class, one tensor (n, *map) for each map."""
        if self._relevance is not None:
            _, maps = last_map(self._proxy, x)
            return [maps * self._relevance[y]]
        if self._variant == "gradcam":
            return [grad_cam(self._proxy, x, self._ids[y])]
        return [f * g.relu() for f, g in stage_gradients(self._proxy, x, self._ids[y])]

    def _constant(self, example: Tensor) -> Tensor:
        """Return ReLU(g), (classes, C, H, W), after making sure that g does not depend on the map."""
        at, maps = last_map(self._proxy, example)
        # An opposite map switches every rectifier, so what is not linear gives itself away.
        values = 100 * torch.randn(maps.shape, generator=stream(0, "feature_distance", "probe")).to(maps)
        one, other = (_after(self._proxy, sign * values.expand(self._classes, -1, -1, -1), at, self._ids) for sign in (1, -1))
        if one.isfinite().all() and not torch.allclose(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max())):
            raise ConfigError(
                "variant: value 'last': the proxy's logits are not linear in its last map; allowed for it: layers, gradcam. "
                "A ResNet, or a ConvNet, is linear there"
            )
        return one.relu()


class Resized(nn.Module):
    """A network of `dd.networks` that was trained on images of one size, and sees images of any other enlarged or reduced to it.

    size: (height, width). Bilinear, with antialiasing, so that 256 pixels become 224 as they would when images are loaded. Of a network's
    methods it has those that evidence of a class is found with.
    """

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self._size = net, size

    def _resized(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == self._size:
            return x
        return F.interpolate(x, self._size, mode="bilinear", align_corners=False, antialias=True)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the output of every stage."""
        return cast(Network, self.net).stages(self._resized(x))

    def rear(self, h: Tensor, after: int) -> Tensor:
        """Return logits from the output of stage `after` on."""
        return cast(Network, self.net).rear(h, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, k)."""
        logits: Tensor = self.net(self._resized(x))
        return logits


def frozen(net: nn.Module) -> nn.Module:
    """Return a copy of the network in eval mode whose weights take no gradient."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def last_map(net: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Return (number, output (n, C, H, W) without gradient) of the last stage that has pixels.

    Raises:
        ConfigError: no stage has.
    """
    with torch.no_grad():
        return _spatial(cast(Network, net).stages(x))[-1]


def stage_gradients(net: nn.Module, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (f, g) of every stage that has pixels: its output, and the gradient of each image's logit y, both (n, C, H, W).

    The network must be in eval mode: batch statistics would mix images. Weights gather no gradient.

    Args:
        net: a network of `dd.networks`. x: (n, c, h, w). y: (n,) int64, its classes.

    Raises:
        ConfigError: no stage has pixels.
    """
    network = cast(Network, net)
    with torch.enable_grad():
        outputs = network.stages(x.detach().requires_grad_(True))
        maps = [f for _, f in _spatial(outputs)]
        gradients = torch.autograd.grad(_logits(network.rear(outputs[-1], len(outputs) - 1), y), maps)
    return [(f.detach(), g) for f, g in zip(maps, gradients, strict=True)]


def grad_cam(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""Return Grad-CAM's map ReLU(sum_k alpha_k f_k) of each image's class y at the last stage that has pixels, (n, H, W) >= 0.

    alpha_k is the mean over pixels of the gradient of the logit. Where the head sees the flattened map (a ConvNet's does), the mean hides
    where the head looks; with a mean over pixels before the head it loses nothing. Arguments and errors as in `stage_gradients`.
    """
    at, f = last_map(net, x)
    alpha = _after(net, f, at, y).mean((2, 3), keepdim=True)
    return (alpha * f).sum(1).relu()


def _after(net: nn.Module, f: Tensor, at: int, y: Tensor) -> Tensor:
    """Return the gradient of each image's logit y with respect to its map f, the output of stage `at`."""
    with torch.enable_grad():
        f = f.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(_logits(cast(Network, net).rear(f, at), y), f)
    return gradient


def _logits(logits: Tensor, y: Tensor) -> Tensor:
    """Return the sum of every image's own logit; its gradient at one image is that of this image's logit alone."""
    return logits.gather(1, y[:, None]).sum()


def _spatial(outputs: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    found = [(number, output) for number, output in enumerate(outputs) if output.dim() == 4]
    if not found:
        raise ConfigError("the proxy has no stage with pixels, (n, c, h, w); a ResNet or a ConvNet has")
    return found


def _dtype(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype
