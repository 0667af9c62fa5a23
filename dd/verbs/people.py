"""What the verbs for people do."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from dd.errors import ConfigError, DDError

WORKFLOW = Path("workflow")


def _settings(args: Namespace) -> Any:
    from dd.plan.papers import load_settings

    settings = load_settings(args.settings)
    return settings.model_copy(update={"scale": args.scale}) if args.scale else settings


def plan(args: Namespace) -> None:
    """List the jobs of papers."""
    from dd.plan import Plan
    from dd.plan.cost import table
    from dd.plan.papers import load_paper

    settings = _settings(args)
    for name in args.papers:
        load_paper(WORKFLOW, name, "plan")
    print(table(Plan(settings, WORKFLOW, str(args.settings)), args.papers or settings.papers, args.rate, every=args.all))


def check(args: Namespace) -> int:
    """Check all papers at all scales; print every mistake."""
    from dd.data.config import check_paths, load_datasets
    from dd.figures.looks import mistakes
    from dd.plan import Plan
    from dd.plan.fits import misfits
    from dd.plan.papers import paper_names
    from dd.slurm.preflight import absent_named

    settings = _settings(args)
    wrong: dict[str, None] = {}
    try:
        check_paths(load_datasets(settings.datasets, f"{args.settings}: datasets"), f"{args.settings}: datasets")
    except DDError as error:
        wrong[str(error)] = None
    wrong |= dict.fromkeys(absent_named(settings, str(args.settings)).values())
    scales = sorted(path.stem for path in (WORKFLOW / "scales").glob("*.yaml"))
    for scale in {settings.scale, *scales}:
        for paper in sorted({*paper_names(WORKFLOW), *settings.papers}):
            try:
                made = Plan(settings.model_copy(update={"scale": scale, "papers": ()}), WORKFLOW, str(args.settings), only=[paper])
                file = str(WORKFLOW / "papers" / f"{paper}.yaml")
                if scale == "paper":  # where no point is left out
                    wrong |= dict.fromkeys(mistakes(made.drawing(paper), file))
                if scale == "paper" or paper in settings.papers:  # a record's own paper may be made for one scale only
                    wrong |= dict.fromkeys(misfits(made, f"{file} at scale {scale}"))
            except DDError as error:
                wrong[str(error)] = None
    if wrong:
        raise DDError("\n".join(wrong))
    print(f"{args.settings}: {len(paper_names(WORKFLOW))} papers at {len(scales)} scales: no mistakes found")
    return 0


def record(args: Namespace) -> None:
    """Keep measured numbers in records/."""
    from dd.plan import Plan
    from dd.plan.record import write

    print(write(Plan(_settings(args), WORKFLOW, str(args.settings)), args.paper, args.out))


def show(args: Namespace) -> None:
    """Write a distilled set as an image."""
    from dd.data.load import load, manifest
    from dd.data.normalise import raw
    from dd.evaluation.io import read_distilled
    from dd.images import write_grid

    distilled = read_distilled(args.file, args.dataset)
    images, labels = distilled.images, distilled.labels
    if distilled.stored is not None:
        images, labels = distilled.stored, labels[:: len(labels) // len(distilled.stored)]
    elif not len(images):
        if args.dataset is None:
            raise ConfigError(f"{args.file}: holds positions, not images; name its prepared dataset with --dataset")
        images = raw(load(args.dataset, "train")[0][distilled.indices])
    out = args.out or args.file.with_suffix(".png")
    write_grid(out, images, labels, span=manifest(args.dataset)["range"] if args.dataset else (0.0, 1.0))
    print(out)


def explain(args: Namespace) -> None:
    """Say what a result is made of, and why it would run again."""
    from dd.plan import Plan
    from dd.plan.explain import explain as tell

    print(tell(Plan(_settings(args), WORKFLOW, str(args.settings)), args.id))


def prune(args: Namespace) -> None:
    """List what no paper at any scale asks for; delete it if told to."""
    from dd.plan.prune import prune as sweep

    print(sweep(_settings(args), WORKFLOW, str(args.settings), args.yes))


def pulled(args: Namespace) -> None:
    """Check that DVC may record what is here."""
    from dd.plan import Plan
    from dd.plan.pulled import whole

    settings = _settings(args)
    whole(Plan(settings, WORKFLOW, str(args.settings), only=settings.papers).of(settings.papers))


def restart(args: Namespace) -> int:
    """Start a workflow again whose head process was killed while its jobs went on."""
    from dd.slurm.restart import restart as begin

    return begin(args.how, args.snakemake)


def run(args: Namespace) -> int:
    """Run the jobs of papers one after the other, without Snakemake."""
    from dd.plan import Plan
    from dd.plan.run import run as work

    plan = Plan(_settings(args), WORKFLOW, str(args.settings), only=args.papers)
    device = args.device or plan.settings.device
    return work(
        plan, args.papers, budget=args.budget, resume=args.resume, only=args.only, device=device, threads=args.threads, keep=args.keep
    )
