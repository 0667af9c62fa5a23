"""A job as a command: what follows `python -m dd STAGE`. Rules and `dd run` both take it from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from dd.plan.job import Job

DEVICED = ("pretrain", "generator", "quality", "experts", "distill", "evaluate", "analyse")  # stages that compute on a device
LONG = ("pretrain", "generator", "experts", "distill", "evaluate")  # stages that save their state when they are asked to stop


def shell(stage: str) -> str:
    """Return the command of a stage's rules, in Snakemake's form: it fills in params, threads, log and the Snakefile's DEVICE.

    Standard error goes to the log and to the screen. Signals that ask a job to save, as a terminal's Ctrl-C does, reach the shell and
    `tee` too: the former waits for the job's own status, the latter stays for its last words.
    """
    words = ["--config - {params.args} --threads {threads}"]
    words += ["--device {DEVICE}"] if stage in DEVICED else []
    words += ["--code {params.code} {params.stop}"] if stage in LONG else []
    patient = "trap : TERM USR1 INT; " if stage in LONG else ""
    return f"{patient}python -m dd {stage} {' '.join(words)} <<< {{params.cfg:q}} 2> >(trap '' TERM USR1 INT; exec tee {{log:q}} >&2)"


def arguments(job: Job) -> list[str]:
    """Return the arguments of a job but for --config, --device, --threads and --stop-after, unquoted."""
    return [str(item) for item in _ARGUMENTS[job.stage](job)]


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _dataset(job: Job) -> list[str]:
    return ["--dataset", f"data/prepared/{job.facts['dataset']}"]


def _needs(job: Job) -> list[str]:
    return [item for group in job.facts["groups"] for item in ("--need", *group)]


def _choice(job: Job) -> list[str]:
    return ["--choice", job.facts["choice"]] if job.facts["choice"] else []


def _milestone(job: Job) -> list[object]:
    facts = job.facts
    previous = ["--previous", *facts["previous"], "--previous-epoch", facts["previous_epoch"]] if facts["previous"] else []
    return [*_dataset(job), "--epoch", facts["epoch"], *previous]


def _file(job: Job) -> list[str]:
    return [*(f"--file={path}" for path in job.inputs), "--out", job.outputs[0]]


def _prepare(job: Job) -> list[object]:
    name = job.facts["dataset"]
    return ["--name", name, "--raw", f"data/raw/{name}", "--out", _folder(job.outputs[0])]


def _quality(job: Job) -> list[object]:
    return ["--generator", job.inputs[0], "--classifier", job.inputs[1], *_dataset(job), "--out", job.outputs[0]]


def _distill(job: Job) -> list[object]:
    measures = ["--quality", *job.facts["quality"]] if job.facts["quality"] else []
    return [*_dataset(job), "--seed", job.facts["seed"], *_needs(job), *_choice(job), *measures, "--out", _folder(job.outputs[0])]


def _evaluate(job: Job) -> list[object]:
    facts = job.facts
    return [*_dataset(job), "--distilled", job.inputs[0], "--set", facts["set"], "--nets", *facts["nets"], *_needs(job), *_choice(job),
            "--out", job.outputs[0]]  # fmt: skip


def _analyse(job: Job) -> list[object]:
    return [*_dataset(job), "--distilled", job.inputs[0], "--checkpoint", *job.facts["checkpoints"], "--out", job.outputs[0]]


_ARGUMENTS: dict[str, Callable[[Job], Sequence[object]]] = {
    "download": lambda job: ["--out", f"data/raw/{job.facts['dataset']}"],
    "prepare": _prepare,
    "whiten": lambda job: [*_dataset(job), "--out", job.outputs[0]],
    "teacher": _file,
    "generator_file": _file,
    "pretrain": lambda job: [*_milestone(job), "--seeds", *job.facts["seeds"], "--out", *job.outputs],
    "generator": lambda job: [*_milestone(job), "--out", job.outputs[0]],
    "quality": _quality,
    "experts": lambda job: [*_dataset(job), "--seeds", *job.facts["seeds"], "--out", *job.outputs],
    "distill": _distill,
    "evaluate": _evaluate,
    "choose": lambda job: ["--out", job.outputs[0]],
    "analyse": _analyse,
    "report": lambda job: ["--out", job.outputs[0]],
    "artifact": lambda job: ["--paper", job.facts["paper"], "--out", _folder(job.outputs[0])],
}
