"""The textbook path: each unit of work as a careful reader of the papers would write it in plain PyTorch, without tricks.

A loop over classes, eager, float32, torch's own modules and optimizers. Real images are resident uint8; nothing is copied that need not be,
and nothing is read back from the device inside a unit. It imports nothing of `dd`, was committed before any optimisation, and is not
edited afterwards: it is the measure. Every function takes `Sizes` and `Data` and returns a function that does one unit of work and
returns its loss, a tensor that nobody has waited for.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Work = Callable[[], Tensor]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Sizes:
    """How much work a unit is.

    per_class: resident real images of a class. gan_width: the generator's own for 32x32 colours. gan_batch: divisible by 4.
    """

    classes: int = 10
    ipc: int = 10
    real: int = 256
    width: int = 128
    steps: int = 20
    epochs: int = 10
    networks: int = 5
    batch: int = 256
    per_class: int = 5000
    gan_width: int = 256
    gan_batch: int = 32


class Data:
    """Random uint8 images of 3x32x32, sorted by class, on the device; what the pixels show does not change what they cost."""

    def __init__(self, sizes: Sizes, device: str) -> None:
        n = sizes.classes * sizes.per_class
        self.device = device
        self.images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
        self.labels = torch.arange(sizes.classes, device=device).repeat_interleave(sizes.per_class)
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.per_class = sizes.per_class

    def x(self, index: Tensor) -> Tensor:
        return (self.images[index].float() / 255 - self.mean) / self.std

    def of_class(self, c: int, n: int) -> Tensor:
        return self.x(torch.randperm(self.per_class, device=self.device)[:n] + c * self.per_class)

    def start(self, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Return `ipc` real images of each class, and their labels: where synthetic images begin."""
        images = torch.cat([self.of_class(c, sizes.ipc) for c in range(sizes.classes)])
        return images, torch.arange(sizes.classes, device=self.device).repeat_interleave(sizes.ipc)


def convnet(sizes: Sizes, device: str) -> nn.Sequential:
    """Return ConvNet-3 with instance norm, as the field writes it; all but the last layer are the features."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [nn.Conv2d(3 if i == 0 else sizes.width, sizes.width, 3, padding=1, device=device)]
        layers += [nn.GroupNorm(sizes.width, sizes.width, device=device), nn.ReLU(inplace=True), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(sizes.width * 16, sizes.classes, device=device))


def augment(x: Tensor, op: int, shared: Tensor | None) -> Tensor:
    """Apply one operation of DSA's color_crop_cutout_flip_scale_rotate, with `shared` (3,) values or, with None, values for each image."""
    n, _, h, w = x.shape
    u = torch.rand(n, 3, device=x.device) if shared is None else shared.expand(n, 3)
    a, b, c = (v.view(n, 1, 1, 1) for v in u.unbind(1))
    if op == 0:
        x = x + (a - 0.5)
        gray = x.mean(1, keepdim=True)
        x = (x - gray) * (2 * b) + gray
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (c + 0.5) + mean
    if op == 3:
        return torch.where(a < 0.5, x.flip(3), x)
    if op in (1, 2):
        rows, columns = torch.arange(h, device=x.device).view(1, h, 1), torch.arange(w, device=x.device).view(1, 1, w)
    if op == 1:
        k = int(h * 0.125 + 0.5)
        down, across = ((v.view(n, 1, 1) * (2 * k + 1)).long() for v in (a, b))
        image = torch.arange(n, device=x.device).view(n, 1, 1)
        return F.pad(x, (k, k, k, k)).permute(0, 2, 3, 1)[image, rows + down, columns + across].permute(0, 3, 1, 2).contiguous()
    if op == 2:
        top, left = ((v.view(n, 1, 1) * (h + 1)).long() - h // 4 for v in (a, b))
        hole = (rows >= top) & (rows < top + h // 2) & (columns >= left) & (columns < left + w // 2)
        return x * ~hole.unsqueeze(1)
    zero = torch.zeros(n, device=x.device)
    if op == 4:
        sx, sy = ((v.flatten() * (1.2 - 1 / 1.2)) + 1 / 1.2 for v in (a, b))
        theta = torch.stack([sx, zero, zero, zero, sy, zero], 1)
    else:
        angle = (a.flatten() * 2 - 1) * math.radians(15)
        theta = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1)
    return F.grid_sample(x, F.affine_grid(theta.view(n, 2, 3), list(x.shape), align_corners=False), align_corners=False)


def siamese(device: str) -> Callable[[Tensor], Tensor]:
    """Return one draw of the augmentation, to be applied to real and synthetic images alike."""
    op, values = int(torch.randint(6, ())), torch.rand(3, device=device)
    return lambda x: augment(x, op, values)


def each_its_own(x: Tensor) -> Tensor:
    """Return images augmented by one operation for all, with values for each image."""
    return augment(x, int(torch.randint(6, ())), None)


def dm_iteration(sizes: Sizes, data: Data) -> Work:
    """DM: a random network, means of features class by class, one step of the images."""
    images, _ = data.start(sizes)
    images.requires_grad_(True)
    optimizer = torch.optim.SGD([images], lr=1.0, momentum=0.5)

    def work() -> Tensor:
        features = convnet(sizes, data.device)[:-1].requires_grad_(False)
        loss = torch.zeros((), device=data.device)
        for c in range(sizes.classes):
            same = siamese(data.device)
            with torch.no_grad():
                target = features(same(data.of_class(c, sizes.real))).mean(0)
            loss = loss + (features(same(images[c * sizes.ipc : (c + 1) * sizes.ipc])).mean(0) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return work


def dsa_step(sizes: Sizes, data: Data) -> Work:
    """DSA: gradients of the weights class by class, the layer-wise cosine distance, one backward pass through all of them.

    The matching alone: the network does not learn between two steps.
    """
    images, labels = data.start(sizes)
    images.requires_grad_(True)
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)
    net = convnet(sizes, data.device)
    weights = list(net.parameters())

    def distance(one: Tensor, other: Tensor) -> Tensor:
        a, b = one.flatten(1), other.flatten(1)
        return (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()

    def work() -> Tensor:
        loss = torch.zeros((), device=data.device)
        for c in range(sizes.classes):
            same, part = siamese(data.device), slice(c * sizes.ipc, (c + 1) * sizes.ipc)
            target = torch.full((sizes.real,), c, device=data.device)
            real = torch.autograd.grad(F.cross_entropy(net(same(data.of_class(c, sizes.real))), target), weights)
            syn = torch.autograd.grad(F.cross_entropy(net(same(images[part])), labels[part]), weights, create_graph=True)
            loss = loss + sum(distance(a, b) for a, b in zip(syn, real, strict=True) if a.ndim > 1)
        optimizer.zero_grad()
        loss.backward(inputs=[images])
        optimizer.step()
        return loss.detach()

    return work


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)  # torch.cov waits for the device to check its arguments
    return centred.T @ centred / (len(features) - 1)


def dsdm_iteration(sizes: Sizes, data: Data) -> Work:
    """DSDM: prototypes, covariances and history, class by class, a step for each; images hold four parts; then the history moves.

    The released code's reading, with the history from the second iteration on; random networks in the place of trained ones.
    """
    images = (data.start(sizes)[0] * data.std + data.mean).requires_grad_(True)
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)
    nets = [convnet(sizes, data.device)[:-1].requires_grad_(False) for _ in range(10)]
    history: list[Tensor | None] = [None] * sizes.classes

    def decode(c: int) -> Tensor:
        stored = images[c * sizes.ipc : (c + 1) * sizes.ipc]
        parts = torch.cat([stored[:, :, i : i + 16, j : j + 16] for i in (0, 16) for j in (0, 16)])
        return (F.interpolate(parts, size=32, mode="bilinear") - data.mean) / data.std

    def several(x: Tensor, values: Tensor) -> Tensor:
        for op, value in zip((0, 1, 2), values, strict=True):
            x = augment(x, op, value)
        return x

    def work() -> Tensor:
        net, total = nets[int(torch.randint(10, ()))], torch.zeros((), device=data.device)
        with torch.no_grad():
            images.clamp_(0, 1)
        for c in range(sizes.classes):
            values = torch.rand(3, 3, device=data.device)
            with torch.no_grad():
                real = net(several(data.of_class(c, sizes.real), values))
            syn = net(several(decode(c), values))
            d, mean = real.shape[1], syn.mean(0)
            gap = (_covariance(real) - _covariance(syn)).square().sum()
            loss = (real.mean(0) - mean).square().sum() + 50 / d * gap
            if history[c] is not None:
                loss = loss + 0.2 / d * (mean - history[c]).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total = total + loss.detach()
        with torch.no_grad():
            for c in range(sizes.classes):
                now = net(several(decode(c), torch.rand(3, 3, device=data.device))).mean(0)
                history[c] = now if history[c] is None else 0.99 * history[c] + 0.01 * now
        return total

    return work


def mtt_iteration(sizes: Sizes, data: Data) -> Work:
    """MTT: a student of plain gradient steps from an expert's weights, every graph kept, and one backward pass through all.

    The expert's stretch is the same in every unit, and resident.
    """
    images, labels = data.start(sizes)
    images.requires_grad_(True)
    rate = torch.tensor(0.01, device=data.device, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [images], "lr": 100.0}, {"params": [rate], "lr": 1e-5}], momentum=0.5)
    net = convnet(sizes, data.device)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    target = start + 0.01 * torch.randn_like(start)

    def forward(theta: Tensor, x: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes.values()])
        return functional_call(net, {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}, (x,))

    def work() -> Tensor:
        theta = start.clone().requires_grad_(True)
        for _ in range(sizes.steps):
            order = torch.randperm(len(images), device=data.device)
            loss = F.cross_entropy(forward(theta, each_its_own(images[order])), labels[order])
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            theta = theta - rate * gradient
        loss = (theta - target).square().sum() / (start - target).square().sum()
        optimizer.zero_grad()
        loss.backward(inputs=[images, rate])
        optimizer.step()
        return loss.detach()

    return work


def _sgd(net: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def _epoch(sizes: Sizes, net: nn.Module, optimizer: torch.optim.SGD, images: Tensor, labels: Tensor) -> Tensor:
    """Train a network for one epoch as an evaluation does, on augmented mini-batches; return the last loss."""
    loss = torch.zeros((), device=images.device)
    for index in torch.randperm(len(images), device=images.device).split(sizes.batch):
        loss = F.cross_entropy(net(each_its_own(images[index])), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


def eval_epoch_ipc10(sizes: Sizes, data: Data) -> Work:
    """An epoch of one evaluation network on the synthetic images: a single step."""
    images, labels = data.start(sizes)
    net = convnet(sizes, data.device)
    optimizer = _sgd(net)
    return lambda: _epoch(sizes, net, optimizer, images, labels)


def eval_5x_ipc10(sizes: Sizes, data: Data) -> Work:
    """Five fresh evaluation networks, ten epochs each, one after the other."""
    images, labels = data.start(sizes)

    def one() -> Tensor:
        net = convnet(sizes, data.device)
        optimizer = _sgd(net)
        return [_epoch(sizes, net, optimizer, images, labels) for _ in range(sizes.epochs)][-1]

    return lambda: torch.stack([one() for _ in range(sizes.networks)])


def expert_step256(sizes: Sizes, data: Data) -> Work:
    """One step of an expert on augmented real images."""
    net = convnet(sizes, data.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def work() -> Tensor:
        index = torch.randint(len(data.images), (sizes.batch,), device=data.device)
        loss = F.cross_entropy(net(each_its_own(data.x(index))), data.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return work


def _unit(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _bent(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


class _Scaled(nn.Module):
    """A linear layer (side 0) or a convolution with an equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, side: int = 0, slow: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[side] * 2 * (side > 0)) / slow)
        self.bias = nn.Parameter(torch.full((outputs,), bias / slow))
        self.scale, self.slow, self.side = slow / math.sqrt(inputs * max(side, 1) ** 2), slow, side

    def forward(self, x: Tensor) -> Tensor:
        if self.side:
            return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.side // 2)
        return F.linear(x, self.weight * self.scale, self.bias * self.slow)


class TextbookGenerator(nn.Module):
    """The small conditional generator of 32x32 colour images: styles on the inputs of each convolution, demodulation on its outputs."""

    def __init__(self, width: int, classes: int, z: int = 64, w: int = 128) -> None:
        super().__init__()
        at = [width, width, width // 2, width // 4]  # channels at 4, 8, 16 and 32 pixels
        self.embedding = nn.Parameter(torch.randn(classes, z))
        self.mapping = nn.ModuleList([_Scaled(2 * z, w, slow=0.01), _Scaled(w, w, slow=0.01)])
        self.constant = nn.Parameter(torch.randn(width, 4, 4))
        pairs = [(width, width)] + [pair for i in (1, 2, 3) for pair in ((at[i - 1], at[i]), (at[i], at[i]))]
        self.doubles = [i in (1, 3, 5) for i in range(7)]
        self.styles = nn.ModuleList([_Scaled(w, n, bias=1.0) for n in [width, *(inputs for inputs, _ in pairs), at[3]]])
        self.convs = nn.ModuleList([_Scaled(inputs, outputs, 3) for inputs, outputs in pairs] + [_Scaled(at[3], 3, 1)])

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        w = torch.cat([_unit(z), _unit(self.embedding[y])], 1)
        for layer in self.mapping:
            w = _bent(layer(w))
        f = self.constant * self.styles[0](w)[:, :, None, None]
        for style, conv, double in zip(self.styles[1:], self.convs, [*self.doubles, False], strict=True):
            s, weight = style(w), conv.weight * conv.scale
            f = f * s[:, :, None, None]
            if conv.side == 1:
                return F.conv2d(f, weight, conv.bias)
            if double:
                f = F.interpolate(f, scale_factor=2, mode="bilinear")
            back = (s.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
            f = _bent(F.conv2d(f, weight, padding=1) * back[:, :, None, None] + conv.bias[:, None, None])
        return f


class TextbookDiscriminator(nn.Module):
    """Two convolutions at each resolution, the spread of the mini-batch, and a projection on the label."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        at = [width // 4, width // 2, width, width]  # channels at 32, 16, 8 and 4 pixels
        self.first, self.last = _Scaled(3, at[0], 1), _Scaled(width + 1, width, 3)
        self.blocks = nn.ModuleList([nn.ModuleList([_Scaled(a, a, 3), _Scaled(a, b, 3)]) for a, b in itertools.pairwise(at)])
        self.hidden, self.free = _Scaled(width * 16, width), _Scaled(width, 1)
        self.embedding = nn.Parameter(torch.randn(classes, width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        f = _bent(self.first(x))
        for one, two in self.blocks:
            f = F.avg_pool2d(_bent(two(_bent(one(f)))), 2)
        n = len(f)
        groups = f.view(4, n // 4, *f.shape[1:])
        spread = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
        f = torch.cat([f, spread[:, None, None, None].expand(n, 1, 4, 4)], 1)
        h = _bent(self.hidden(_bent(self.last(f)).flatten(1)))
        return self.free(h).squeeze(1) + (h * _unit(self.embedding[y])).sum(1) / math.sqrt(h.shape[1])


def gan_step(sizes: Sizes, data: Data) -> Work:
    """One update of discriminator, generator and the generator's average, without the gradient penalty of every sixteenth update."""
    generator = TextbookGenerator(sizes.gan_width, sizes.classes).to(data.device)
    average = copy.deepcopy(generator).requires_grad_(False)
    judge = TextbookDiscriminator(sizes.gan_width, sizes.classes).to(data.device)
    lazy = 16 / 17
    of_judge = torch.optim.Adam(judge.parameters(), 2.5e-3 * lazy, (0.0, 0.99**lazy))
    of_generator = torch.optim.Adam(generator.parameters(), 2.5e-3, (0.0, 0.99))

    def latents() -> tuple[Tensor, Tensor]:
        n = sizes.gan_batch
        return torch.randn(n, 64, device=data.device), torch.randint(sizes.classes, (n,), device=data.device)

    def work() -> Tensor:
        index = torch.randint(len(data.images), (sizes.gan_batch,), device=data.device)
        x, y = data.images[index].float() / 127.5 - 1, data.labels[index]
        z, labels = latents()
        with torch.no_grad():
            fake = generator(z, labels)
        loss = F.softplus(-judge(x, y)).mean() + F.softplus(judge(fake, labels)).mean()
        of_judge.zero_grad()
        loss.backward()
        of_judge.step()
        z, labels = latents()
        judge.requires_grad_(False)
        g_loss = F.softplus(-judge(generator(z, labels), labels)).mean()
        of_generator.zero_grad()
        g_loss.backward()
        of_generator.step()
        judge.requires_grad_(True)
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), generator.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return g_loss.detach()

    return work


UNITS: dict[str, Callable[[Sizes, Data], Work]] = {
    unit.__name__: unit
    for unit in (dm_iteration, dsa_step, dsdm_iteration, mtt_iteration, eval_epoch_ipc10, eval_5x_ipc10, expert_step256, gan_step)
}
