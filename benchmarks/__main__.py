"""Measure units of work beside the textbook path and the machine's limit: `python -m benchmarks` from the root of the repository.

JSON on standard output, a table on standard error; both, and how cost grows, in the folder of --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import floor, growth, textbook
from benchmarks.measure import Machine, Measured, measure
from benchmarks.textbook import Sizes
from dd.artifacts import write_json
from dd.errors import DDError

QUICK = Sizes(classes=4, ipc=2, real=8, width=8, steps=2, epochs=2, networks=2, batch=16, per_class=16, gan_width=16, gan_batch=4)
# Shortest first: what they leave of their shares is there for the long ones, of which three rounds take more than a share.
ORDER = ("eval_epoch_ipc10", "expert_step256", "gan_step", "dm_iteration", "dsdm_iteration", "dsa_step", "eval_5x_ipc10", "mtt_iteration")
HEAD = f"{'unit':17} {'ours, s':>25} {'textbook, s':>25} {'speedup':>19} {'floor, s':>9} {'of it':>6} {'peak MB':>13} rounds"
SECONDS, GROWTH = 700.0, 190.0  # of all, and of them for the growth


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", nargs="+", choices=textbook.UNITS, default=list(textbook.UNITS), metavar="UNIT", help="default: all")
    parser.add_argument("--rounds", type=_positive, help="of each unit; default: 3 to 5, as time allows")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=_positive, default=_cores(), help="of both sides; default: all cores that are ours")
    parser.add_argument("--dd", type=Path, default=Path(__file__).parents[1], help="another checkout of this repository, to be measured")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--no-growth", dest="growth", action="store_false", help="do not measure how cost grows")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: shows that all works, measures nothing")
    return parser.parse_args(given)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"value {text!r}; allowed: a whole number above 0")
    return int(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_of(args: argparse.Namespace) -> Machine:
    """Return where to measure.

    Raises:
        DDError: there is no such device or checkout.
    """
    if not (args.dd / "dd" / "__init__.py").is_file():
        raise DDError(f"--dd: value {args.dd}: has no package dd; allowed: the root folder of a checkout")
    return Machine(_device(args.device), args.threads, args.dd.resolve())


def _commit(folder: Path) -> str:
    """Return the commit of a checkout, with a plus sign where files differ from it; empty where git does not say."""

    def said(*words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return said("rev-parse", "--short", "HEAD") + "+" * bool(said("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return ""


def run(args: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Measure the units that are asked for and return the report.

    Raises:
        DDError: a side failed.
    """
    import torch

    torch.set_num_threads(args.threads)
    load, began = os.getloadavg()[0], time.monotonic()
    if load > 0.5 and not args.quick:
        print(f"warning: something else is running here (load {load:.1f}): seconds will be too many", file=sys.stderr)
    rates, found, wanted = [floor.rate(machine.device)], {}, [unit for unit in ORDER if unit in args.units]
    rounds = args.rounds or (1 if args.quick else None)
    if args.quick:  # one pair of processes for all
        with machine.pair() as pair:
            found = {unit: measure(pair, unit, QUICK, 0.0, rounds, turn_s=0.0) for unit in wanted}
            about = pair[0].ask("about")
    else:
        print(HEAD, file=sys.stderr, flush=True)
        for number, unit in enumerate(wanted):
            if number == len(wanted) // 2:
                rates.append(floor.rate(machine.device))
            left = began + SECONDS - GROWTH * args.growth - time.monotonic()
            until = time.monotonic() + left / (len(wanted) - number)
            with machine.pair() as pair:
                found[unit] = measure(pair, unit, Sizes(), until, rounds)
                about = pair[0].ask("about")
            print(line(unit, found[unit].row(statistics.median(rates))), file=sys.stderr, flush=True)
    rates.append(floor.rate(machine.device))
    return report(machine, about, rates, load, {unit: found[unit] for unit in args.units})


def report(machine: Machine, about: dict[str, Any], rates: list[float], load: float, found: dict[str, Measured]) -> dict[str, Any]:
    """Return {"units", "machine"}; rates: of matrix products during the run; load: of the machine before it."""
    import torch

    rate = statistics.median(rates)
    where = {
        "commit": _commit(machine.dd), "device": machine.device, "name": about["name"] or _processor(), "cores": os.cpu_count(),
        "threads": machine.threads,
        "torch": torch.__version__, "python": platform.python_version(), "load_before": load, "gflops_per_s": rate / 1e9,
        "gflops_per_s_seen": [seen / 1e9 for seen in rates], "tf32_convolutions": machine.device == "cuda" and about["tf32"],
    }  # fmt: skip
    return {"units": {unit: one.row(rate) for unit, one in found.items()}, "machine": where}


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DDError("--device: value cuda: this machine has no CUDA device; allowed here: auto, cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def table(found: dict[str, Any]) -> str:
    """Return the report for people."""
    where = found["machine"]
    seen = where["gflops_per_s_seen"]
    lines = [
        f"{where['device']} ({where['name']}), {where['threads']} threads, torch {where['torch']}, load {where['load_before']:.1f} before",
        f"matrix product: {where['gflops_per_s']:.4g} GFLOP/s, seen {', '.join(f'{rate:.4g}' for rate in seen)}",
        HEAD,
    ]
    return "\n".join([*lines, *(line(unit, row) for unit, row in found["units"].items())])


def line(unit: str, row: dict[str, Any]) -> str:
    """Return a unit's line of the table."""
    ours = _spread(row["ours_s"], row["ours_range_s"])
    book = _spread(row["textbook_s"], row["textbook_range_s"])
    ratio = _spread(row["speedup"], row["speedup_range"])
    memory = f"{row['peak_mb']:.0f}/{row['textbook_peak_mb']:.0f}"
    ending = f"{row['rounds']:6}" + ("" if row["finite"] else "  NOT FINITE")
    return f"{unit:17} {ours:>25} {book:>25} {ratio:>19} {row['floor_s']:9.3g} {row['of_floor']:6.2f} {memory:>13} {ending}"


def _spread(middle: float, ends: list[float]) -> str:
    return f"{middle:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]"


def main() -> int:
    """Measure and print; 1 after an error."""
    args = arguments()
    try:
        machine = machine_of(args)
        began = time.monotonic()
        found = run(args, machine)
        write_json(args.out / "bench.json", found)
        print(table(found), file=sys.stderr)
        print(json.dumps(found, indent=1), flush=True)
        if args.growth:
            print("growth ...", file=sys.stderr, flush=True)
            base = QUICK if args.quick else growth.SMALL
            growth.grow(machine, args.out, base, until=max(began + SECONDS, time.monotonic() + GROWTH / 2), quick=args.quick)
    except DDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
