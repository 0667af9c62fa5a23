"""Which GPU a job takes where several jobs of one user run side by side on one machine.

A slot is a lock on a small file, one for every GPU and depth: the first job on a GPU holds its depth 0, the next one its depth 1. A job
takes the lowest depth that is free on any GPU, so jobs spread evenly, and none waits: how many run is Snakemake's business. The system
lets go of a lock when its holder ends, however it ends. No torch here: CUDA reads CUDA_VISIBLE_DEVICES once, when it starts.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import platform
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
LISTING = 60  # seconds that nvidia-smi may take; without its daemon it wakes one GPU after the other
_held: list[int] = []  # open files whose locks this process holds until it ends


def claim() -> str | None:
    """Give this process a GPU of its own, if there is a choice: set CUDA_VISIBLE_DEVICES; call it before CUDA is initialised.

    Nothing is done where the variable names one GPU or none, as SLURM sets it for a job that asked for one; and where the machine has
    one GPU or none. Of several GPUs in the variable one of those is taken, otherwise one of those that `nvidia-smi -L` lists. Only jobs
    that name GPUs in the same way see each other: by number in the variable, or by UUID as nvidia-smi has it; under SLURM, which may
    number the GPUs of each of its jobs from 0, only what runs in one SLURM job does.

    Returns:
        The GPU, held until the process ends; or None.
    """
    named = os.environ.get(VISIBLE)
    devices = _installed() if named is None else _named(named)
    if len(devices) < 2:
        return None
    for folder in _folders():
        try:
            taken = _take(folder, devices, _numbering(named))
        except OSError:
            continue  # not ours, read-only, full, or without locks
        os.environ[VISIBLE] = taken
        return taken
    where = f"{tempfile.gettempdir()} or the home"
    print(f"warning: no folder for locks in {where}; jobs may share a GPU while another is idle", file=sys.stderr)
    return None


def _named(visible: str) -> list[str]:
    """Return the GPUs that the variable lists; CUDA stops reading at the first that is none, such as -1."""
    names = [name.strip() for name in visible.split(",")]
    return list(dict.fromkeys(itertools.takewhile(lambda name: re.fullmatch(r"[0-9]+|(GPU|MIG)-[\w/-]+", name), names)))


@cache
def _installed() -> list[str]:
    """Return the UUIDs of the machine's GPUs, of a divided one those of its parts; none without NVIDIA's driver."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LISTING, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    devices: list[str] = []
    for name in re.findall(r"\(UUID: ([\w/-]+)\)", listing):
        if name.startswith("MIG-") and devices and devices[-1].startswith("GPU-"):
            devices.pop()  # CUDA takes its parts, not the whole
        devices.append(name)
    return devices


def _folders() -> Iterator[Path]:
    """Yield where this user's locks of this machine may lie, the best place first."""
    name = f"dd-gpus-{os.getuid()}-{re.sub(r'[^A-Za-z0-9.-]', '_', platform.node())}"
    yield Path(tempfile.gettempdir(), name)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, name)
    yield Path(os.path.expanduser("~"), ".cache", name)


def _numbering(named: str | None) -> str:
    """Return what tells GPUs of one number apart in names of locks: the SLURM job, if there is one and the variable lists them."""
    job = os.environ.get("SLURM_JOB_ID") if named is not None else None
    return f".job{re.sub(r'[^0-9A-Za-z_]', '_', job)}" if job else ""


def _take(folder: Path, devices: Sequence[str], numbering: str) -> str:
    """Lock the first free slot; return its GPU. Raises OSError where the folder cannot be used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        facts = os.fstat(place)
        if facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o022:
            raise PermissionError(f"{folder}: belongs to another user, or others can write to it")
        for depth in itertools.count():
            for device in devices:
                if _lock(place, f"{device.replace('/', '_')}{numbering}.{depth}"):
                    return device
    finally:
        os.close(place)
    raise AssertionError("unreachable: some depth is free")


def _lock(place: int, name: str) -> bool:
    """Take the lock of a file in a folder, and keep it; tell whether it was free. A program that this one starts does not inherit it."""
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.utime(file)  # what tidies the temporary folder up looks for old files
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            return False
        raise
    _held.append(file)
    return True
