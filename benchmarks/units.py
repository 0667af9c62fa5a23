"""Our path: the units of `benchmarks.textbook`, done by the code of dd that jobs run.

A factory takes `Sizes` and `Data` and returns a `Unit`. Recipes are built from their own configuration and descended by
`dd.distill.Loop`, one iteration a call; nothing of a method is written here again. What a unit needs (networks, an expert, a
prepared dataset) is made before, by dd's own writers, in a temporary folder that is removed at the end.

`dd` is whatever is first on `sys.path`: this file also measures older checkouts (`--dd`).
"""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.textbook import MEAN, STD, Data, Sizes

NAME, SEED, FOREVER = "bench", 0, 10**9
EVAL_EPOCHS = 10  # of a call of `fit`, as an evaluation trains for about ten seconds between two questions whether to stop
EXPERT_STEPS = 4  # of an epoch
TESTED = 4  # images of each class that evaluated networks are tested on: a test is no part of the unit, and costs next to nothing


@dataclass(frozen=True)
class Unit:
    """Work that is ready to be done.

    work: does it and returns a tensor that nobody has waited for, finite as long as all is well. per_call: units in one call.
    """

    work: Callable[[], Tensor]
    per_call: int = 1


def network(sizes: Sizes) -> str:
    """Return the name of the ConvNet-3 of this width."""
    return f"convnet3_in_w{sizes.width}"


def folder() -> Path:
    """Return a new temporary folder, which is removed when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="dd-bench-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def facts(sizes: Sizes) -> dict[str, Any]:
    """Return the manifest of the resident images, which lie in no folder."""
    lineages = {name: {"mean": list(MEAN), "std": list(STD)} for name in ("dc", "idc")}
    return {
        "name": NAME, "classes": [f"{c:03d}" for c in range(sizes.classes)], "channels": 3, "size": [32, 32],
        "counts": {"train": [sizes.per_class] * sizes.classes, "test": [0] * sizes.classes}, "smallest_class": sizes.per_class,
        "fingerprint": "0" * 64, "lineages": lineages, "flip": True, "range": [0.0, 1.0], "augment": True,
    }  # fmt: skip


def pool(data: Data, classes: int, first: int | None = None) -> Any:
    """Return the resident images as dd holds them: all, or the `first` ones, which then go round the classes."""
    from dd.data.pool import RealPool

    images, labels = data.images, data.labels
    if first is not None:
        index = torch.arange(first, device=data.device)
        index = index % classes * data.per_class + index // classes % data.per_class
        images, labels = images[index], labels[index]
    return RealPool(images, labels.cpu(), classes, MEAN, STD, data.device)


def prepared(sizes: Sizes, each: int) -> Path:
    """Return the folder of a prepared dataset of random images, `each` of a class in train; for code that reads its images itself."""
    from PIL import Image

    from dd.data.config import load_datasets
    from dd.data.prepare import prepare

    root, numbers = folder(), torch.Generator().manual_seed(SEED)
    for split, n in (("train", each), ("test", TESTED)):
        for c in range(sizes.classes):
            (root / "raw" / split / f"{c:03d}").mkdir(parents=True)
            for i, image in enumerate(torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=numbers)):
                Image.fromarray(image.numpy()).save(root / "raw" / split / f"{c:03d}" / f"{i}.png")
    config = load_datasets({NAME: {"source": {"kind": "folder", "path": str(root / "raw")}}}, NAME)[NAME]
    prepare(NAME, config, root, root / "prepared")
    return root / "prepared"


def assembled(method: str, fields: dict[str, Any], sizes: Sizes, data: Data, *paths: list[Path]) -> Any:
    """Return the `Run` of a recipe over the resident images, as `dd.distill.distill` builds it."""
    from dd import recipes
    from dd.config import parse
    from dd.types import Inputs

    recipe, resident = recipes.load(method), pool(data, sizes.classes)
    config = parse(recipe.Config, {"iterations": FOREVER, **fields}, f"benchmark {method}")
    return recipe.build(config, Inputs(Path(NAME), facts(sizes), sizes.ipc, SEED, data.device, list(paths), lambda: resident))


def descending(run: Any) -> Unit:
    """Return a unit that is one iteration of `dd.distill.Loop`, which is asked to stop after each."""
    from dd.distill import Loop
    from dd.errors import Stopped

    loop = Loop(run, folder() / "state.safetensors", {})
    loop.save = lambda: None  # type: ignore[method-assign]  # it would write its state at every stop; jobs do once a minute

    def work() -> Tensor:
        with suppress(Stopped):
            loop.descend(lambda: True, math.inf, lambda step: None)
        images: Tensor = run.optimizer.param_groups[0]["params"][0]
        return images.detach()

    return Unit(work)


def dm_fields(sizes: Sizes) -> dict[str, Any]:
    """Return the fields of `dd.recipes.dm`."""
    return {"batch_real": sizes.real, "extractor": {"network": network(sizes)}}


def dm_iteration(sizes: Sizes, data: Data) -> Unit:
    """DM, with a random network in each iteration."""
    return descending(assembled("dm", dm_fields(sizes), sizes, data))


def dsa_fields(sizes: Sizes) -> dict[str, Any]:
    """Return the fields of `dd.recipes.dsa`: one update a network, so that no network is trained."""
    return {"batch_real": sizes.real, "network": network(sizes), "outer": 1, "inner": 1}


def dsa_step(sizes: Sizes, data: Data) -> Unit:
    """DSA's matching alone; a network is made for each step, which takes milliseconds and is in our time."""
    return descending(assembled("dsa", dsa_fields(sizes), sizes, data))


def dsdm_fields(sizes: Sizes) -> dict[str, Any]:
    """Return the fields of `dd.recipes.dsdm`: the history acts from the second iteration on."""
    return {"batch_real": sizes.real, "history_start": 0, "extractor": {"network": network(sizes), "pool": 10}}


def checkpoints(sizes: Sizes, count: int = 10) -> list[Path]:
    """Return files of random networks, as pre-training writes them."""
    from dd.config.stages import Dataset
    from dd.train.config import PretrainConfig
    from dd.train.pretrain import Learner

    config, root = PretrainConfig(dataset=Dataset(name=NAME), network=network(sizes), lineage="idc"), folder()
    files = [root / f"{seed}.safetensors" for seed in range(count)]
    for seed, file in enumerate(files):
        Learner(config, facts(sizes), seed, "cpu").save(file)
    return files


def dsdm_iteration(sizes: Sizes, data: Data) -> Unit:
    """DSDM, with ten resident networks, random in the place of trained ones."""
    run = assembled("dsdm", dsdm_fields(sizes), sizes, data, checkpoints(sizes))
    for step in range(100):  # a function of the step; a network is read when it is first drawn
        run.source.draw(step)
    return descending(run)


def mtt_fields(sizes: Sizes) -> dict[str, Any]:
    """Return the fields of `dd.recipes.mtt`: one stretch of one expert."""
    experts = {"network": network(sizes), "count": 1, "epochs": 1}
    return {"syn_steps": sizes.steps, "expert_span": 1, "max_start": 1, "step_size": 0.01, "lr_lr": 1e-5, "experts": experts}


def expert_file(sizes: Sizes) -> Path:
    """Return the file of an expert that moved at random, as `dd.train.experts` writes it."""
    from dd.config.stages import Dataset
    from dd.train.config import ExpertConfig
    from dd.train.experts import Expert

    expert = Expert(ExpertConfig(dataset=Dataset(name=NAME), network=network(sizes), epochs=1), facts(sizes), SEED, "cpu")
    noise = torch.randn(expert.trajectory.shape[1], generator=torch.Generator().manual_seed(SEED))
    expert.trajectory[1] = expert.trajectory[0] + 0.01 * noise
    file = folder() / "0.safetensors"
    expert.finish(file)
    return file


def mtt_iteration(sizes: Sizes, data: Data) -> Unit:
    """MTT, with the recipe's own way to unroll."""
    return descending(assembled("mtt", mtt_fields(sizes), sizes, data, [expert_file(sizes)]))


def _distilled(sizes: Sizes, data: Data) -> tuple[Any, Tensor, Tensor]:
    """Return the resident images as a pool, and the positions and labels of a set of `ipc` a class."""
    from dd import select
    from dd.rng import stream

    resident = pool(data, sizes.classes)
    start = select.random(resident.labels.cpu(), sizes.classes, sizes.ipc, stream(SEED, "init")).to(data.device)
    return resident, start, resident.y(start)


def eval_epoch_ipc10(sizes: Sizes, data: Data) -> Unit:
    """An epoch of one evaluation network, of `EVAL_EPOCHS` in a call of `fit`, with the training of the protocol `dc`."""
    from dd import networks
    from dd.evaluation.protocols.dc import Dc
    from dd.train.supervised import Fitted, fit

    resident, start, labels = _distilled(sizes, data)
    images, names, training = resident.x(start), ("evaluate", network(sizes), 0), Dc(batch=sizes.batch)
    net = networks.build(network(sizes), 3, (32, 32), sizes.classes, SEED, *names).to(data.device)
    state: dict[str, Any] = {"epoch": 0, "fitted": Fitted()}

    def work() -> Tensor:
        first, state["epoch"] = state["epoch"], state["epoch"] + EVAL_EPOCHS
        state["fitted"] = fit(
            net, lambda index: (images[index], labels[index]), len(labels), training, seed=SEED, names=names, first_epoch=first,
            last_epoch=state["epoch"], shape=(3, 32, 32), flip=True, use="eval", momentum=state["fitted"].momentum,
        )  # fmt: skip
        return torch.tensor(state["fitted"].loss)

    return Unit(work, EVAL_EPOCHS)


def eval_5x_ipc10(sizes: Sizes, data: Data) -> Unit:
    """Fresh evaluation networks, one after the other, by `dd.evaluation.run.evaluate`, which tests each at its end."""
    from dd.evaluation.protocols.dc import Dc
    from dd.evaluation.run import evaluate
    from dd.types import DistilledSet

    resident, start, labels = _distilled(sizes, data)
    whole = DistilledSet(resident.raw(start).cpu(), labels.cpu(), *resident.statistics)
    protocol, dataset = Dc(epochs=sizes.epochs, extra_passes=0, schedule="constant", batch=sizes.batch), prepared(sizes, TESTED)

    def work() -> Tensor:
        scores = evaluate(whole, network(sizes), "dc", protocol, dataset, SEED, range(sizes.networks), device=data.device)
        return torch.tensor([score.detail["train_loss"] if score.status == "ok" else math.nan for score in scores])

    return Unit(work)


def expert_step256(sizes: Sizes, data: Data) -> Unit:
    """One step of an expert on augmented real images, of `EXPERT_STEPS` in an epoch."""
    from dd.config.stages import Dataset
    from dd.train.config import ExpertConfig, ExpertTraining
    from dd.train.pretrain import Learner

    config = ExpertConfig(dataset=Dataset(name=NAME), network=network(sizes), training=ExpertTraining(batch=sizes.batch))
    learner, resident = Learner(config, facts(sizes), SEED, data.device, "expert"), pool(data, sizes.classes, EXPERT_STEPS * sizes.batch)

    def work() -> Tensor:
        learner.advance(resident)
        return torch.tensor(learner.fitted.loss)

    return Unit(work, EXPERT_STEPS)


def gan_step(sizes: Sizes, data: Data) -> Unit:
    """One update of discriminator, generator and average; those on which R1 is due are left out."""
    from dd.config.stages import Dataset
    from dd.train.gan import GanLearner
    from dd.train.gan_config import GanConfig, GanTraining

    training = GanTraining(batch=sizes.gan_batch)
    config = GanConfig(dataset=Dataset(name=NAME), generator=f"mini_w{sizes.gan_width}", training=training)
    learner = GanLearner(config, prepared(sizes, 64), SEED, data.device)

    def work() -> Tensor:
        learner.step += learner.step % training.r1_every == 0
        learner.advance()
        return learner.sums.detach()

    return Unit(work)


UNITS: dict[str, Callable[[Sizes, Data], Unit]] = {
    unit.__name__: unit
    for unit in (dm_iteration, dsa_step, dsdm_iteration, mtt_iteration, eval_epoch_ipc10, eval_5x_ipc10, expert_step256, gan_step)
}


def experts(sizes: Sizes, data: Data) -> Unit:
    """Train `networks` experts for an epoch and write their files, whose bytes are returned; for the growth with their number."""
    from dd.config.stages import Dataset
    from dd.train.config import ExpertConfig
    from dd.train.experts import experts as train

    dataset, root = prepared(sizes, sizes.per_class), folder()
    config = ExpertConfig(dataset=Dataset(name=NAME), network=network(sizes), epochs=1)
    files = [root / f"{seed}.safetensors" for seed in range(sizes.networks)]

    def work() -> Tensor:
        for file in files:
            file.unlink(missing_ok=True)  # what is there is not made again
        train(config, dataset, range(sizes.networks), files, device=data.device)
        return torch.tensor(float(sum(file.stat().st_size for file in files)))

    return Unit(work)
