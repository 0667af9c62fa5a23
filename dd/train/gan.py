"""Training of a small generator on real images, from milestone to milestone.

The recipe is StyleGAN2-ADA's for small images (Karras et al., NeurIPS 2020), with a discriminator that sees the label twice:

    D: softplus(-D(x, y)) + softplus(D(G(z, y'), y')), and every k updates one on k gamma / 2 * ||dD(x, y)/dx||^2 (R1, on images as
       they are in the dataset); G: softplus(-D(G(z, y'), y')); y' uniform over the classes, z normal.
    EMA: g <- b g + (1 - b) live, b = 0.5^(batch / min(half_life, ramp * images seen)).
    Adam of the discriminator with lr k/(k+1) and betas^(k/(k+1)), because of the extra updates.

An epoch is one pass over the split in whole batches; the rest of a shuffled pass, less than one batch, is not used in it. Every random
number is a function of (seed, names, epoch or update), so a training may stop after any update and continue, bit for bit.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dd import generators
from dd.artifacts import discard, load_tensors, save_tensors
from dd.data.load import load
from dd.errors import ArtifactError, ConfigError, Stopped
from dd.generators import Generator, to_gan
from dd.generators.discriminator import BACKGROUND, Discriminator
from dd.progress import Progress
from dd.rng import seeded, stream
from dd.train.gan_config import GanConfig
from dd.train.pretrain import SAVE_EVERY, check_continued, facts_of, identity_of, resumed, weights_of

SHIFT = 8  # `translation` moves by up to a side / SHIFT
SEEN = ("d_loss", "g_loss", "real_above_zero", "fake_above_zero")  # sums over the updates of an epoch; then these two:
R1, BAD = len(SEEN), len(SEEN) + 1  # the sum of penalties, and the first update whose losses were no numbers (-1: none)


def train(
    config: GanConfig,
    dataset: Path,
    epoch: int,
    out: Path,
    previous: Path | None = None,
    previous_epoch: int = 0,
    *,
    seed: int = 0,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> None:
    """Train a generator from `previous_epoch` to `epoch`, and write one file.

    A file holds `generator.*` (the average, to sample from), `live.*`, `discriminator.*`, `optimizer.*` and `health` (sums over the last
    epoch, which the metadata show as means). An interrupted job keeps its last saved update in an undeclared `.resume` folder; a file
    that is there already and is what this job makes is kept. A training that diverges is no error: its file says so (`diverged` in the
    metadata: epoch and step, which is the update, both counted from 0) and later milestones repeat it.

    Args:
        previous: file of the milestone before; None starts from the seeded initialisation (epoch 0).
        stop: asked after each update. save_every: seconds between saves.

    Raises:
        Stopped: `stop` said so.
        ArtifactError: `previous` is damaged, or is not of this configuration, dataset, seed or epoch; or the prepared dataset is not the
            configuration's.
        ConfigError: epochs that go backwards, no file for a `previous_epoch` after 0, images that are no uint8 pixels or of a size
            that the generator cannot make, a batch larger than the split, or `flip` where a mirrored image changes its class.
    """
    if previous_epoch > epoch or (previous_epoch > 0 and previous is None):
        files = "given" if previous else "missing"
        raise ConfigError(f"generator: epoch: value {epoch}, continued from epoch {previous_epoch} with the previous file {files}")
    learner = GanLearner(config, dataset, seed, device)
    kept, first, last = out.parent / ".resume" / out.name, previous_epoch * learner.updates, epoch * learner.updates
    if learner.resume(out, last, last):
        discard(kept)  # of a job that ended between its last two lines
        return
    if not learner.resume(kept, first + 1, last) and previous is not None:
        learner.load(previous, previous_epoch)
    with Progress(f"train {config.generator} to epoch {epoch}", max(1, last - first), learner.step - first) as progress:
        saved = time.monotonic()
        while learner.step < last:
            learner.advance()
            progress.update(learner.step - first)
            stopping = stop() and learner.step < last
            if stopping or time.monotonic() - saved > save_every:
                learner.save(kept)
                saved = time.monotonic()
            if stopping:
                raise Stopped(f"stopped after update {learner.step} of {last} of seed {seed}; start again to continue")
    learner.save(out)
    discard(kept)


def r1_penalty(discriminator: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean over images of ||d sum_i D(x, y)_i / dx||^2, with graph; x (n, c, h, w), y (n,) (Mescheder et al., 2018)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x, y).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def ema_decay(seen: int, batch: int, half_life: float, ramp: float) -> float:
    """Return how much of the average is kept at an update of `batch` images after `seen` ones: 0 at first, so it starts as a copy."""
    return 0.5 ** (batch / max(min(half_life, ramp * seen), 1e-8))


def translate(x: Tensor, by: Tensor) -> Tensor:
    """Return images (n, c, h, w) moved by (n, 2) whole pixels, down and to the right; what comes in is background."""
    n, _, h, w = x.shape
    reach = (h // SHIFT, w // SHIFT)
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]), value=BACKGROUND)
    rows = torch.arange(h, device=x.device) + reach[0] - by[:, :1]
    columns = torch.arange(w, device=x.device) + reach[1] - by[:, 1:]
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class GanLearner:
    """A generator on its way: both networks, their optimizers, the average, and how many updates it has behind it.

    updates: of an epoch. step: updates done.
    """

    def __init__(self, config: GanConfig, dataset: Path, seed: int, device: str) -> None:
        self.config, self.seed, self.device, self.step = config, seed, device, 0
        facts = self.facts = facts_of(config, dataset)
        self.classes, self.size = len(facts["classes"]), (int(facts["size"][0]), int(facts["size"][1]))
        self.channels, self.names = int(facts["channels"]), ("gan", config.generator)
        self._check()
        images, labels = load(dataset, config.split)
        if images.dtype != torch.uint8:
            raise ConfigError(f"dataset: value {facts['name']!r}: a generator learns uint8 images; these are {images.dtype}")
        self.images, self.labels = images.to(device), labels.to(device)
        self.updates = len(labels) // config.training.batch
        if self.updates == 0:
            most = f"the split {config.split!r} has {len(labels)} images, which is the most"
            raise ConfigError(f"batch: value {config.training.batch}: {most}")
        live = generators.build(config.generator, self.channels, self.size, self.classes, seed, *self.names)
        with seeded(seed, *self.names, "discriminator"):
            judge = Discriminator(self.channels, self.size, self.classes, live.width)
        self.generator = copy.deepcopy(live).to(device).requires_grad_(False).eval()
        self.live, self.discriminator = live.to(device), judge.to(device)
        t = config.training
        lazy = t.r1_every / (t.r1_every + 1)
        self.g_adam = torch.optim.Adam(self.live.parameters(), t.lr, (t.beta1, t.beta2))
        self.d_adam = torch.optim.Adam(self.discriminator.parameters(), t.lr * lazy, (t.beta1**lazy, t.beta2**lazy))
        self.sums = self._nothing()
        self.diverged: dict[str, int] | None = None
        self._shuffled = (-1, torch.empty(0, dtype=torch.int64))  # an epoch, and its order

    def _check(self) -> None:
        if self.config.training.augment == "flip" and not self.facts["flip"]:
            name = self.facts["name"]
            raise ConfigError(f"augment: value 'flip': mirrored images of {name} are not of their class; allowed: none, translation")

    def _nothing(self) -> Tensor:
        return torch.tensor([0.0] * (len(SEEN) + 1) + [-1.0], dtype=torch.float64, device=self.device)

    def advance(self) -> None:
        """Make one update of both networks and of the average; a training that diverged stays as it is but for the count."""
        epoch, at = divmod(self.step, self.updates)
        if self.diverged is None:
            if at == 0:
                self.sums = self._nothing()
            if epoch != self._shuffled[0]:
                self._shuffled = (epoch, torch.randperm(len(self.labels), generator=stream(self.seed, *self.names, "epoch", epoch)))
            index = self._shuffled[1][at * self.config.training.batch :][: self.config.training.batch].to(self.device)
            self._update(to_gan(self.images[index]), self.labels[index])
            if at + 1 == self.updates:
                self._look(epoch)
        self.step += 1

    def _update(self, x: Tensor, y: Tensor) -> None:
        t, numbers = self.config.training, stream(self.seed, *self.names, "update", self.step)
        z, labels = self._latents(numbers)
        with torch.no_grad():
            fake = self.live(z, labels)
        real = self.discriminator(self._augment(self._flip(x, numbers), numbers), y)
        false = self.discriminator(self._augment(fake, numbers), labels)
        d_loss = F.softplus(-real).mean() + F.softplus(false).mean()
        _descend(self.d_adam, d_loss)
        if self.step % t.r1_every == 0:
            penalty = r1_penalty(self.discriminator, x, y)
            _descend(self.d_adam, penalty * (t.r1_every * t.r1_gamma / 2))
            self.sums[R1] += penalty.detach()
        z, labels = self._latents(numbers)
        self.discriminator.requires_grad_(False)  # its weights' gradients would be thrown away
        g_loss = F.softplus(-self.discriminator(self._augment(self.live(z, labels), numbers), labels)).mean()
        _descend(self.g_adam, g_loss)
        self.discriminator.requires_grad_(True)
        decay = ema_decay(self.step * t.batch, t.batch, t.ema_half_life, t.ema_ramp)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.generator.parameters()), list(self.live.parameters()), 1.0 - decay)
        seen = torch.stack([d_loss.detach(), g_loss.detach(), (real > 0).float().mean(), (false > 0).float().mean()])
        self.sums[: len(SEEN)] += seen
        first = ~seen.isfinite().all() & (self.sums[BAD] < 0)
        self.sums[BAD] = torch.where(first, float(self.step), self.sums[BAD])

    def _latents(self, numbers: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.config.training.batch
        z, y = torch.randn(n, self.live.z_dim, generator=numbers), torch.randint(self.classes, (n,), generator=numbers)
        return z.to(self.device), y.to(self.device)

    def _flip(self, x: Tensor, numbers: torch.Generator) -> Tensor:
        if self.config.training.augment != "flip":
            return x
        return torch.where((torch.rand(len(x), generator=numbers) < 0.5).to(x.device)[:, None, None, None], x.flip(3), x)

    def _augment(self, x: Tensor, numbers: torch.Generator) -> Tensor:
        if self.config.training.augment != "translation":
            return x
        reach = self.size[0] // SHIFT
        return translate(x, torch.randint(-reach, reach + 1, (len(x), 2), generator=numbers).to(x.device))

    def _look(self, epoch: int) -> None:
        """Note at the end of an epoch, the only time when numbers are read back, whether it diverged."""
        first = int(self.sums[BAD])
        weights = get_total_norm([p.detach() for net in (self.live, self.generator, self.discriminator) for p in net.parameters()])
        if first < 0 and weights.isfinite():
            return
        self.diverged = {"epoch": epoch, "step": first if first >= 0 else self.step}
        print(f"gan {self.config.generator} seed {self.seed}: diverged: {self.diverged}", file=sys.stderr, flush=True)

    def identity(self) -> dict[str, Any]:
        """Return the metadata that a file must have to be this training."""
        return identity_of(self.config, self.seed, self.facts)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the training as it is: tensors and metadata of its file."""
        tensors = {f"{part}.{name}": value for part, net in self._parts().items() for name, value in net.state_dict().items()}
        for part, adam in self._adams().items():
            for name, parameter in self._parts()[part].named_parameters():
                tensors |= {f"optimizer.{part}.{name}.{key}": value for key, value in adam.state.get(parameter, {}).items()}
        tensors["health"] = self.sums
        meta = {
            **self.identity(), "epoch": self.step // self.updates, "step": self.step, "channels": self.channels,
            "size": list(self.size), "classes": self.classes, "health": self._health(), "diverged": self.diverged,
        }  # fmt: skip
        return tensors, meta

    def _parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "live": self.live, "discriminator": self.discriminator}

    def _adams(self) -> dict[str, torch.optim.Adam]:
        return {"live": self.g_adam, "discriminator": self.d_adam}

    def _health(self) -> dict[str, float | None]:
        """Return means over the updates of the last epoch, whole or begun; None where there is none, or no number."""
        last = self.step - 1
        done = range(last - last % self.updates, last + 1) if self.step else range(0)
        penalties = sum(step % self.config.training.r1_every == 0 for step in done)
        sums = self.sums.tolist()
        means = {name: sums[i] / len(done) if done else math.nan for i, name in enumerate(SEEN)}
        means["r1"] = sums[R1] / penalties if penalties else math.nan
        return {name: round(value, 6) if math.isfinite(value) else None for name, value in means.items()}

    def save(self, path: Path) -> None:
        """Write the training as it is."""
        save_tensors(path, *self.state())

    def load(self, path: Path, epoch: int) -> None:
        """Take over the training at the end of `epoch` from a file.

        Raises:
            ArtifactError: missing, damaged, or of another configuration, dataset, seed or epoch.
        """
        self.take(*load_tensors(path), path, epoch * self.updates)

    def take(self, tensors: dict[str, Tensor], meta: dict[str, Any], path: Path, step: int) -> None:
        """Take over the training after `step` updates from what `path` held; see `load` for errors."""
        check_continued(meta, {**self.identity(), "step": step}, path)
        weights = {part: weights_of(net, tensors, part, path) for part, net in self._parts().items()}
        moments = {part: self._moments(part, tensors, path) if step else {} for part in self._adams()}
        if "health" not in tensors or tensors["health"].shape != self.sums.shape:
            raise ArtifactError(f"{path}: its sums over an epoch (health) are missing; delete it and run again")
        for part, net in self._parts().items():  # from here on nothing can fail, so that a file is taken over whole or not at all
            net.load_state_dict(weights[part])
        for part, adam in self._adams().items():
            adam.state.clear()
            adam.state.update(moments[part])
        self.sums, self.step, self.diverged = tensors["health"].to(self.device, copy=True), step, meta.get("diverged")

    def _moments(self, part: str, tensors: dict[str, Tensor], path: Path) -> dict[Tensor, dict[str, Tensor]]:
        """Return what Adam knows of each parameter of a network."""
        result: dict[Tensor, dict[str, Tensor]] = {}
        for name, parameter in self._parts()[part].named_parameters():
            shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            found = {key: tensors[f"optimizer.{part}.{name}.{key}"] for key in shapes if f"optimizer.{part}.{name}.{key}" in tensors}
            if {key: value.shape for key, value in found.items()} != shapes:
                raise ArtifactError(f"{path}: optimizer.{part}.{name} does not fit its parameter; delete it and run again")
            place = {"step": "cpu"}  # where Adam counts
            result[parameter] = {key: value.to(place.get(key, self.device), copy=True) for key, value in found.items()}
        return result

    def resume(self, path: Path, first: int, last: int) -> bool:
        """Take over what an interrupted job left at `path`, if it is this training, sound, and after `first` to `last` updates."""
        return resumed(self.take, path, "step", first, last)


def _descend(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    adam.step()


def load_generator(path: Path, device: str = "cpu", classes: Sequence[int] | None = None) -> Generator:
    """Return the generator that a file of ours holds: the average, in eval mode, without gradients of its weights.

    Args:
        path: written by `train`, or a converted StyleGAN-XL (see `dd.generators.stylegan_xl`).
        classes: of a StyleGAN-XL, which was trained on other data: its class for each label 0 .. C - 1 of the dataset. Of one that `train`
            wrote, whose labels are the dataset's own: None.

    Raises:
        ArtifactError: missing, damaged, not a generator, or of a training that diverged, which there is nothing to learn from.
        ConfigError: `classes` is given or missing where it must not be, or has ids that the generator does not have, or one twice.
    """
    from dd.generators import stylegan_xl

    tensors, meta = load_tensors(path)
    config = meta.get("config")
    if isinstance(config, dict) and config.get("generator") == stylegan_xl.KIND:
        if classes is None:
            raise ConfigError(f"{path}: classes: is missing; a StyleGAN-XL needs its own class for each label of the dataset")
        return stylegan_xl.from_tensors(tensors, meta, path, classes).to(device).eval()
    if classes is not None:
        raise ConfigError(f"{path}: classes: given for a generator that is no StyleGAN-XL; its labels are those of the dataset it learned")
    try:
        name, shape, seed = meta["config"]["generator"], (meta["channels"], tuple(meta["size"]), meta["classes"]), meta["seed"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: is not a trained generator (its metadata lack {error})") from None
    if meta.get("diverged") is not None:
        raise ArtifactError(f"{path}: its training diverged ({meta['diverged']}); train it with another lr, r1_gamma or seed")
    net = generators.build(name, *shape, seed, "load")  # with a seed, so that torch's global generator is left alone
    net.load_state_dict(weights_of(net, tensors, "generator", path))
    return cast(Generator, net.to(device).eval().requires_grad_(False))
