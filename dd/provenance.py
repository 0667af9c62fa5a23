"""How a result was made: `run.json` beside it, with all that may differ between two honest runs. Nothing takes it as input."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dd import __version__
from dd import device as machine
from dd.artifacts import write_text
from dd.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[1]
CODE = ("dd", "workflow", "Snakefile")  # what results are made by: a change elsewhere does not make a commit dirty
PACKAGES = ("torchvision", "numpy", "snakemake", "snakemake-executor-plugin-slurm")
# As SLURM names what it says to a job -> as run.json does.
SLURM = {
    "SLURM_JOB_ID": "job",
    "SLURMD_NODENAME": "node",
    "SLURM_JOB_PARTITION": "partition",
    "SLURM_JOB_ACCOUNT": "account",
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_RESTART_COUNT": "restarts",
}


@contextmanager
def noted(path: Path, device: str = "cpu", **facts: Any) -> Iterator[dict[str, Any]]:
    """Time the block and write its run.json when it ends well; what the block adds to the yielded dict goes in as well.

    The block writes the result. A run.json that cannot be written is told on standard error and loses nothing: the result stays, and a
    run.json of an earlier run, which would describe another, is removed.

    Args:
        path: of the run.json.
        device: on which the block computes: cpu, cuda or cuda:N.
        facts: go in as they are; they must be JSON. But for `earlier_seconds`, which earlier runs of the job took: seconds count them too.
    """
    before = {"started": _now(), **_git()}  # as the job began: a commit made meanwhile is not what it runs
    began = time.perf_counter()
    more: dict[str, Any] = {}
    yield more
    seconds = round(time.perf_counter() - began + facts.pop("earlier_seconds", 0.0), 3)
    try:
        write_run(path, **{**before, "device": device, "seconds": seconds, **_gpu(device), **facts, **more})
    except (ArtifactError, TypeError, ValueError) as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        print(f"warning: the result is there, but not how it was made: {error}", file=sys.stderr)


def write_run(path: Path | str, **facts: Any) -> None:
    """Write what may differ between two honest runs to a run.json; `facts` go before what is found out here.

    Keys: commit, code_commit (the last one that changed dd, workflow or Snakefile), dirty (these differ from it, or have files that it
    lacks), git (why these are not known; otherwise absent); python, dd and `PACKAGES` (versions); host; torch, threads and deterministic
    (its version and how it computed; absent where the process was not prepared for that), cuda_visible_devices (absent where it is not
    set), slurm and attempt (absent outside of a cluster's job), peak_memory_mb, started and finished (UTC).

    Raises:
        ArtifactError: the file cannot be written. TypeError: a fact is not JSON.
    """
    record = {
        **({} if "commit" in facts else _git()),
        **versions(),
        **_torch(),
        **scheduled(),
        "host": platform.node(),
        "peak_memory_mb": _peak_memory_mb(),
        "finished": _now(),
        **facts,
    }
    write_text(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of python, of dd, and of what is installed of `PACKAGES`. Nothing is imported."""
    found = {"python": platform.python_version(), "dd": __version__}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def scheduled() -> dict[str, Any]:
    """Return which GPUs the job may see, and what SLURM says of it; each only where it is set."""
    found: dict[str, Any] = {}
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        found["cuda_visible_devices"] = visible
    if "SLURM_JOB_ID" in os.environ:
        found["slurm"] = {name: os.environ[key] for key, name in SLURM.items() if key in os.environ}
    if (attempt := _attempt()) is not None:
        found["attempt"] = attempt
    return found


def _attempt() -> int | None:
    """Return Snakemake's count of how often a cluster job was submitted, from 1; None elsewhere.

    It stands nowhere but in the command line of the Snakemake inside the cluster job, which is an ancestor of this process.
    """
    process = os.getppid()
    try:
        for _ in range(8):  # shells and launchers stand between; no job is deeper
            words = Path("/proc", str(process), "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "--attempt" in words:
                return int(words[words.index("--attempt") + 1])
            process = int(Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _torch() -> dict[str, Any]:
    """Return torch's version and how it computed, if `prepare_process` was called: that it is loaded says nothing (see `dd.warm`)."""
    if not machine.prepared:
        return {}
    import torch

    return {
        "torch": str(torch.__version__),  # its own word: the package's metadata lack what it was built for
        "threads": torch.get_num_threads(),
        "deterministic": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
    }


def _gpu(device: str) -> dict[str, Any]:
    """Return the name of the GPU and the most of its memory that tensors took, for a job that computed on one."""
    if not device.startswith("cuda"):
        return {}
    import torch

    return {"gpu": torch.cuda.get_device_name(device), "peak_gpu_memory_mb": torch.cuda.max_memory_allocated(device) // 2**20}


def _git() -> dict[str, Any]:
    """Return the commit of the project and whether its code differs from it; or, where that cannot be told, why."""
    try:
        top = Path(_run("rev-parse", "--show-toplevel"))
        if top.resolve() != ROOT:
            raise OSError(f"the project is no git checkout of its own, but lies in {top.name}")
        head, code = _run("rev-parse", "HEAD"), _run("log", "-1", "--format=%H", "--", *CODE)
        return {"commit": head, "code_commit": code or head, "dirty": bool(_run("status", "--porcelain", "--", *CODE))}
    except subprocess.CalledProcessError as error:
        return {"commit": None, "dirty": None, "git": (error.stderr.strip().splitlines() or ["it failed"])[0]}
    except (OSError, subprocess.SubprocessError) as error:
        return {"commit": None, "dirty": None, "git": str(error)}


def _run(*args: str) -> str:
    # Jobs run side by side: none of them may take the lock of git's index.
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=30, check=True, env=env).stdout.strip()


def _peak_memory_mb() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 1024)
