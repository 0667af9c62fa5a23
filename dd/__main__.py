"""The command line: `python -m dd VERB`. Rules call the first verbs, people the others."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all that takes time to import
    from dd.warm.client import ask

    ask(sys.argv[1:])

import argparse
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dd.errors import DDError, Stopped
from dd.stopping import CONTINUE
from dd.verbs import jobs, people


def _positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"value {text!r}; allowed: a number above 0")
    return value


def _seconds(text: str) -> float:
    """Read a number of seconds, 0 or more."""
    return 0.0 if text == "0" else _positive(text)


def _count(text: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"value {text!r}; allowed: a whole number above 0")
    return int(text)


def _device(text: str) -> str:
    """Read the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"value {text!r}; allowed: auto, cpu, cuda, cuda:N")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status: 0, 1 for a mistake that was explained, 2 for wrong usage, 75 for "to be continued"."""
    args = _parser().parse_args(argv)
    try:
        return int(args.call(args) or 0)
    except DDError as error:
        return _say(args, str(error), 1)
    except Stopped as error:
        return _say(args, str(error), CONTINUE)
    except MemoryError:
        return _say(args, "out of memory; make batch_real, ipc or the network smaller, or ask for more", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 0 if args.call.__module__ == people.__name__ else 1  # `dd plan | head`: whoever reads has seen enough
    except OSError as error:
        return _say(args, f"{error.filename or ''}: {error.strerror or error}", 1)


def _say(args: argparse.Namespace, text: str, status: int) -> int:
    """Say how a verb ended, if anybody still listens; return its exit status."""
    with suppress(BrokenPipeError):
        print(f"dd {args.verb}: {text}", file=sys.stderr, flush=True)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dd", description="Reproduce the dataset-distillation literature.")
    verb = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, call: object, help_: str, *, job: bool = True, device: bool = True) -> argparse.ArgumentParser:
        sub = verb.add_parser(name, help=help_, description=help_)
        sub.set_defaults(call=call)
        if job:
            sub.add_argument("--config", required=True, help="JSON (or YAML) file; - reads standard input")
            sub.add_argument("--threads", type=_count, default=1)
        if device:
            sub.add_argument("--device", type=_device, default="auto", help="cpu, cuda, cuda:N, or auto")
        return sub

    _add_jobs(add)
    _add_people(add)
    return parser


class _Add(Protocol):
    def __call__(self, name: str, call: object, help_: str, *, job: bool = True, device: bool = True) -> argparse.ArgumentParser: ...


def _add_jobs(add: _Add) -> None:
    def long(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--stop-after", type=_seconds, metavar="SECONDS", help="save, and exit with status 75, after this long")
        sub.add_argument("--code", help="identity of the code: a state that other code left is not continued")

    path: dict[str, Any] = {"type": Path, "required": True}
    sub = add("download", jobs.download, "fetch and check the files of a dataset", device=False)
    sub.add_argument("--out", **path)
    sub = add("prepare", jobs.prepare, "bring a dataset into its prepared form", device=False)
    sub.add_argument("--name", required=True)
    sub.add_argument("--raw", **path)
    sub.add_argument("--out", **path)
    sub = add("whiten", jobs.whiten, "fit the whitening (ZCA) of a prepared dataset", device=False)
    sub.add_argument("--dataset", **path)
    sub.add_argument("--out", **path)
    sub = add("teacher", jobs.teacher, "check a file of pre-trained weights and convert it", device=False)
    sub.add_argument("--file", type=Path, help="absent: say where to get one")
    sub.add_argument("--out", **path)
    sub = add("experts", jobs.experts, "train experts and keep their trajectories")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--seeds", type=int, nargs="+", required=True)
    sub.add_argument("--out", type=Path, nargs="+", required=True)
    long(sub)
    sub = add("pretrain", jobs.pretrain, "train networks from one milestone to the next")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--epoch", type=int, required=True)
    sub.add_argument("--seeds", type=int, nargs="+", required=True)
    sub.add_argument("--previous", type=Path, nargs="*", default=[])
    sub.add_argument("--previous-epoch", type=int, default=0)
    sub.add_argument("--out", type=Path, nargs="+", required=True)
    long(sub)
    sub = add("generator", jobs.generator, "train a generator from one milestone to the next")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--epoch", type=int, required=True)
    sub.add_argument("--previous", type=Path)
    sub.add_argument("--previous-epoch", type=int, default=0)
    sub.add_argument("--out", **path)
    long(sub)
    sub = add("quality", jobs.quality, "measure a generator")
    sub.add_argument("--generator", **path)
    sub.add_argument("--classifier", **path)
    sub.add_argument("--dataset", **path)
    sub.add_argument("--out", **path)
    sub = add("generator_file", jobs.generator_file, "check a file of a converted generator and install it", device=False)
    sub.add_argument("--file", type=Path, help="absent: say where to get one")
    sub.add_argument("--out", **path)
    sub = add("distill", jobs.distill, "distil one set")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--seed", type=int, required=True)
    sub.add_argument("--need", type=Path, nargs="+", action="append", default=[], help="files of one need")
    sub.add_argument("--choice", type=Path, help="file that says which of several epochs of the guides is taken")
    sub.add_argument("--quality", type=Path, nargs="+", default=[], help="measures of generators; refuse those below a gate")
    sub.add_argument("--out", **path, help="folder")
    sub.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS")
    long(sub)
    sub = add("evaluate", jobs.evaluate, "train networks on one set and test them")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--distilled", **path)
    sub.add_argument("--set", type=int, required=True)
    sub.add_argument("--nets", type=int, nargs=2, required=True, metavar=("FIRST", "LAST"))
    sub.add_argument("--need", type=Path, nargs="+", action="append", default=[], help="files of one need of the protocol")
    sub.add_argument("--choice", type=Path, help="file that says which published step counts")
    sub.add_argument("--out", **path)
    long(sub)
    sub = add("choose", jobs.choose, "pick a value from the results of its candidates", device=False)
    sub.add_argument("--out", **path)
    sub = add("analyse", jobs.analyse, "run networks over a finished set")
    sub.add_argument("--dataset", **path)
    sub.add_argument("--distilled", **path)
    sub.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    sub.add_argument("--out", **path)
    sub = add("artifact", jobs.artifact, "draw every table and figure of one paper", device=False)
    sub.add_argument("--paper", required=True)
    sub.add_argument("--out", **path, help="folder")
    sub = add("report", jobs.report, "write the report and the index", device=False)
    sub.add_argument("--out", **path)


def _add_people(add: _Add) -> None:
    path: dict[str, Any] = {"type": Path, "required": True}

    def person(name: str, call: object, help_: str) -> argparse.ArgumentParser:
        sub = add(name, call, help_, job=False, device=False)
        sub.add_argument("--settings", type=Path, default=Path("config.yaml"), help="default: config.yaml")
        sub.add_argument("--scale", help="instead of the one in config.yaml")
        return sub

    sub = person("plan", people.plan, "list jobs, what is there already, hours and disk")
    sub.add_argument("papers", nargs="*", metavar="PAPER", help="default: those of config.yaml")
    sub.add_argument("--all", action="store_true", help="list every job")
    sub.add_argument("--rate", type=_positive, help="GFLOP/s of one worker; default: measured here, now")
    person("check", people.check, "check every configuration file and say all that is wrong")
    sub = person("record", people.record, "keep the measured numbers of a paper or experiment in records/")
    sub.add_argument("paper", metavar="NAME")
    sub.add_argument("--out", type=Path, default=Path("records"))
    sub = add("show", people.show, "write a distilled set as an image", job=False, device=False)
    sub.add_argument("file", type=Path)
    sub.add_argument("--out", type=Path, help="default: beside the file, .png")
    sub.add_argument("--dataset", type=Path, help="prepared dataset, for sets that hold positions only")
    sub = person("explain", people.explain, "say what a result is made of, and why it would run again")
    sub.add_argument("id", metavar="ID", help="8 hex digits, four or more of them, or the path of a result")
    person("pulled", people.pulled, "check that DVC may record what is here")
    sub = person("prune", people.prune, "list results that no paper at any scale asks for")
    sub.add_argument("--yes", action="store_true", help="delete them")
    sub = person("run", people.run, "run the jobs of papers one after the other, without Snakemake")
    sub.add_argument("papers", nargs="+", metavar="PAPER")
    sub.add_argument("--budget", type=_positive, required=True, metavar="SECONDS", help="stop in time: save, pack, exit with status 75")
    sub.add_argument("--resume", **path, metavar="DIR", help="folder to continue from, and to pack results into")
    sub.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="artifacts, or patterns of files, with what they need")
    sub.add_argument("--keep", nargs="+", default=[], metavar="KIND", help="pack these folders of results/ too")
    sub.add_argument("--device", type=_device, help="cpu, cuda, cuda:N, or auto; default: that of config.yaml")
    sub.add_argument("--threads", type=_count, default=1)
    sub = add("restart", people.restart, "start a workflow again whose head process was killed", job=False, device=False)
    sub.add_argument("how", choices=("wait", "cancel"), help="what to do with its jobs that are still queued or running")
    sub.add_argument("snakemake", nargs="*", metavar="ARGUMENT", help="of snakemake, after --")


if __name__ == "__main__":
    sys.exit(main())
