"""How a process prepares the machine that it computes on: threads, repeatable arithmetic, memory, and which device."""

from __future__ import annotations

import ctypes
import os
import sys

from dd import gpu
from dd.dynamo import without_dynamo
from dd.errors import ConfigError

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt, in glibc's malloc.h
prepared = False  # whether `prepare_process` was called: `dd.provenance` notes how torch computed only then


def prepare_process(threads: int) -> None:
    """Set the threads, make the arithmetic repeatable, and keep the memory that is given back. Call it before anything is computed."""
    global prepared
    import torch

    prepared = True
    keep_memory()
    without_dynamo()
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's matrix products are not repeatable
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which loads the compiler besides
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid, slow


def device_of(wanted: str, threads: int) -> str:
    """Return the device for `wanted` (auto, cpu, cuda, cuda:N), among several GPUs one that is free, after `prepare_process`.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if wanted in ("auto", "cuda"):
        gpu.claim()  # before CUDA looks which there are
    prepare_process(threads)
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = wanted.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"device: value {wanted!r}; allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: value {wanted!r}: this machine has no CUDA device; allowed here: auto, cpu")
    if kind == "cuda" and wanted != kind and int(wanted.partition(":")[2]) >= torch.cuda.device_count():
        raise ConfigError(f"device: value {wanted!r}: there are {torch.cuda.device_count()} CUDA devices here, counted from 0")
    return wanted


def keep_memory() -> bool:
    """Let the C library keep freed memory for the next tensor, and say whether it does so (glibc only).

    By default it asks the system for every block above 32 MB anew and gives it back at once; the system then fills it with zeros, page by
    page, when it is first written to. For the activations of a small network that takes as long as all of its arithmetic. The process's
    memory now stays at its peak until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, -1))  # never
