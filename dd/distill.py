"""The loop: descend a recipe's objective, whatever the recipe, and never lose what was done.

A run that is stopped (asked to, or killed) and started again gives the same bytes as one that was not (on the CPU; on CUDA but for
operations of which PyTorch warns that they are not deterministic). Its state lives in an undeclared `.resume` folder beside the result,
and the result is published by rename at the end.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dd import recipes
from dd.artifacts import atomic, load_tensors, save_tensors, write_json, write_text
from dd.config import hashed, parse
from dd.config.stages import DistillConfig
from dd.data import load as prepared
from dd.data.load import manifest
from dd.data.pool import RealPool
from dd.errors import ArtifactError, ConfigError, Stopped
from dd.evaluation.io import write_distilled
from dd.images import write_grid
from dd.objectives.guidance import guided
from dd.optim import PerClassSGD
from dd.progress import Progress
from dd.sources.guides import Guidance, chosen
from dd.types import DistilledSet, Inputs, Need, Run

SAVE_EVERY = 60.0  # seconds between checkpoints of a running distillation
LOG_POINTS = 100  # rows of curve.csv, about


def distill(
    config: DistillConfig,
    dataset: Path,
    paths: list[list[Path]],
    seed: int,
    out: Path,
    *,
    epoch: int | None = None,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    save_every: float = SAVE_EVERY,
) -> int:
    """Make one distilled set and write distilled.safetensors, steps/, config.json, curve.csv and grid.png into `out`.

    Args:
        dataset: folder of the prepared dataset. paths: one list of files for every need, in order: of the recipe, then of its guidance.
        seed: which of the independent sets. epoch: of the guides, where the configuration leaves that to a choice.
        stop: asked between steps whether to save and stop.

    Returns:
        How often the run was continued from a checkpoint.

    Raises:
        Stopped: `stop` said so.
        ConfigError: a value does not fit the dataset, or files of a need are missing.
        ArtifactError: an input is damaged or a file cannot be written.
    """
    facts = manifest(dataset)
    recipe = recipes.load(config.method)
    fields = parse(recipe.Config, config.recipe, f"distill {config.method}")
    own, guides = recipes.needs_of(config, facts["name"])
    given = _given(config.method, [*own, *guides], paths)
    pool = _pool(dataset, recipes.lineage_of(recipe, fields), config.split, device)
    inputs = Inputs(dataset, facts, config.ipc, seed, device, given[: len(own)], pool)
    run: Run = recipe.build(fields, inputs)
    if config.guidance is not None:
        guidance = parse(Guidance, config.guidance, "guidance")
        run = guided(run, guidance, chosen(guidance, given[len(own) :], epoch), inputs)
    about = {"dataset": facts["name"], "fingerprint": facts["fingerprint"], "method": config.method, "ipc": config.ipc, "seed": seed}
    resume = out / ".resume"
    loop = Loop(run, resume / "state.safetensors", {"config": hashed(config), "seed": seed, "fingerprint": facts["fingerprint"]})
    loop.load()
    if loop.step == 0:
        shutil.rmtree(resume / "steps", ignore_errors=True)  # of a run that left no state: not this one's
    diverged = loop.descend(stop, save_every, lambda step: _write_set(resume / "steps" / f"{step}.safetensors", run.finish(), about))
    final = run.finish()
    if diverged:
        about["diverged"] = {name: value if math.isfinite(value) else str(value) for name, value in diverged.items()}
    _publish_steps(resume / "steps", out / "steps", run.steps, final, about)
    write_json(out / "config.json", hashed(config))
    write_text(out / "curve.csv", loop.curve())
    write_grid(out / "grid.png", *_shown(final, inputs), span=facts["range"])
    if final.indices is not None and config.split != "train":
        final.indices = prepared.positions(dataset, config.split)[final.indices]  # sets of positions mean those in all of train
    _write_set(out / "distilled.safetensors", final, about)
    loop.state.unlink(missing_ok=True)  # first: a state without its published steps would be continued without them
    shutil.rmtree(resume, ignore_errors=True)
    return loop.resumed


def _given(method: str, needs: list[Need], paths: list[list[Path]]) -> list[list[Path]]:
    """Return the files that are given, after checking that they are of as many needs as there are."""
    given = [group for group in paths if group]
    if len(given) != len(needs):
        names = ", ".join(f"{need.kind} {need.network}" for need in needs) or "nothing"
        raise ConfigError(f"distill {method}: need: files of {len(given)} needs are given; this configuration needs {len(needs)}: {names}")
    return given


def _shown(distilled: DistilledSet, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels for a picture: what is stored; of a set of positions, about a thousand, evenly spaced."""
    if distilled.stored is not None:
        return distilled.stored, distilled.labels[:: len(distilled.labels) // len(distilled.stored)]
    if distilled.indices is None or len(distilled.images):
        return distilled.images, distilled.labels
    every = max(1, len(distilled.labels) // 1000)
    return inputs.pool().raw(distilled.indices[::every]).cpu(), distilled.labels[::every]


def _pool(dataset: Path, lineage: str, split: str, device: str) -> Callable[[], RealPool]:
    made: list[RealPool] = []

    def pool() -> RealPool:
        if not made:
            made.append(prepared.pool(dataset, split, lineage, device))
        return made[0]

    return pool


def _write_set(path: Path, distilled: DistilledSet, about: dict[str, Any]) -> None:
    distilled.meta = dict(about)
    write_distilled(path, distilled)


def _publish_steps(hidden: Path, public: Path, steps: tuple[int, ...], final: DistilledSet, about: dict[str, Any]) -> None:
    public.mkdir(parents=True, exist_ok=True) if steps else None
    for step in steps:
        made = hidden / f"{step}.safetensors"
        if made.exists():
            with atomic(public / made.name) as temporary:  # a copy: a run that fails after this line needs it again
                shutil.copyfile(made, temporary)
        else:  # the run diverged, or ended, before this step: what there is
            _write_set(public / made.name, final, about)


def _sound(path: Path) -> bool:
    try:
        load_tensors(path)
    except ArtifactError:
        return False
    return True


class Loop:
    """One run's descent, with everything that it must remember."""

    def __init__(self, run: Run, state: Path, identity: dict[str, Any]) -> None:
        self.run = run
        self.state = state
        self.identity = identity
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.resumed = 0

    def descend(self, stop: Callable[[], bool], save_every: float, publish: Callable[[int], None]) -> dict[str, float] | None:
        """Run until the last iteration; return None, or where and how the run diverged."""
        run = self.run
        if run.optimizer is None or run.source is None or run.term is None or run.batches is None or run.parameterization is None:
            return None  # a method that only selects
        log_every = max(1, run.iterations // LOG_POINTS)
        saved = time.monotonic()
        with Progress("distill", run.iterations, self.step) as progress:
            while self.step < run.iterations and not (run.done and run.done()):
                if self.step in run.steps:
                    if not self._finite():
                        return {"step": self.step, "loss": math.nan, "grad_norm": math.nan}
                    publish(self.step)
                if self.step in run.spaces and run.hand_over and run.renew:
                    run.hand_over()
                    run.optimizer = run.renew()
                run.parameterization.project_()
                if isinstance(run.optimizer, PerClassSGD):
                    run.optimizer.begin()
                net = run.source.draw(self.step)
                batches = run.batches(self.step)
                loss = run.term(batches, net)
                run.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if self.step % log_every == 0 or self.step == run.iterations - 1:
                    row = self._log(loss)
                    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                        return row
                run.optimizer.step()
                if run.after is not None:
                    run.after(batches, net)
                run.source.advance(net, batches)
                if run.done and run.done() and self.rows[-1]["step"] != self.step:
                    self._log(loss)  # as the last step of a run of known length is
                self.step += 1
                progress.update(self.step)
                if stop():
                    self.save()
                    raise Stopped(f"stopped after {self.step} of {run.iterations} iterations; start again to continue")
                if time.monotonic() - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        if self.rows and not self._finite():
            return self.rows[-1]  # the last update broke them
        if run.iterations in run.steps:
            publish(run.iterations)
        return None

    def _finite(self) -> bool:
        """Tell whether all that is optimised is finite."""
        assert self.run.optimizer is not None
        return all(bool(p.detach().isfinite().all()) for group in self.run.optimizer.param_groups for p in group["params"])

    def _log(self, loss: torch.Tensor) -> dict[str, float]:
        assert self.run.optimizer is not None
        images = self.run.optimizer.param_groups[0]["params"]  # a step size has a group of its own, after them
        grads = [p.grad for p in images if p.grad is not None]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        facts = getattr(self.run.term, "facts", {})
        row = {"step": self.step, "loss": loss.item(), "grad_norm": norm.item(), **{name: fact.item() for name, fact in facts.items()}}
        self.rows.append(row)
        return row

    def curve(self) -> str:
        """Return the log as CSV: step, loss, norm of the gradient with respect to the images, and what the term reports."""
        text = io.StringIO()
        first = ["step", "loss", "grad_norm"]  # then by name: rows of a resumed run come back from JSON in another order
        more = sorted(set(self.rows[0]) - set(first)) if self.rows else []
        writer = csv.DictWriter(text, fieldnames=[*first, *more], lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: value if name == "step" else f"{value:.6g}" for name, value in row.items()})
        return text.getvalue()

    def save(self) -> None:
        """Write the whole state, atomically."""
        run = self.run
        assert run.parameterization is not None and run.optimizer is not None
        parts: dict[str, dict[str, torch.Tensor]] = {"parameterization": run.parameterization.state_dict()}
        for name, part in (("source", run.source), ("term", run.term)):
            parts[name] = part.state_dict() if hasattr(part, "state_dict") else {}  # type: ignore[union-attr]
        tensors = {f"{name}.{key}": value for name, state in parts.items() for key, value in state.items()}
        plain: dict[str, Any] = {}
        for number, state in run.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{number}.{key}"] = value
                else:
                    plain[f"{number}.{key}"] = value
        meta = {**self.identity, "step": self.step, "rows": self.rows, "optimizer": plain, "resumed": self.resumed}
        save_tensors(self.state, tensors, meta)

    def load(self) -> None:
        """Continue from a saved state, if there is one of this very run; one that is damaged is set aside.

        So is one whose published steps, which lie beside it, are damaged or gone: they come again only from the beginning.

        Raises:
            ArtifactError: the state is that of another run.
        """
        run = self.run
        if not self.state.exists() or run.optimizer is None or run.parameterization is None:
            return
        try:
            tensors, meta = load_tensors(self.state)
        except ArtifactError:
            self.state.unlink()  # killed while the disk was failing: begin anew rather than never end
            return
        if {key: meta.get(key) for key in self.identity} != self.identity:
            raise ArtifactError(f"{self.state}: belongs to another configuration, seed or dataset; delete its folder and run again")
        if not all(_sound(self.state.parent / "steps" / f"{step}.safetensors") for step in run.steps if step < meta["step"]):
            return
        pick = lambda prefix: {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}  # noqa: E731
        run.parameterization.load_state_dict(pick("parameterization"))
        if run.renew is not None:  # the tensors may be those of another space
            run.optimizer = run.renew()
        for name, part in (("source", run.source), ("term", run.term)):
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(pick(name))  # type: ignore[union-attr]
        state: dict[int, dict[str, Any]] = {}
        for key, value in {**pick("optimizer"), **meta["optimizer"]}.items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": state})
        self.step, self.rows, self.resumed = meta["step"], meta["rows"], meta["resumed"] + 1
