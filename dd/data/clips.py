"""Readers of sounds: each returns (train, test) as float32 spectrograms and int64 labels, and names the file that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from dd.data import speech, zips
from dd.data.readers import RawSplit
from dd.errors import DataError, nearest
from dd.progress import Progress

LARGEST = 64_000_000  # bytes of one clip in an archive; a second at 16 kHz has 32,044
EVERY = 8  # the share of test is 1 in 8
T = TypeVar("T")


def wav_folder(root: Path, known: Sequence[str] = ()) -> tuple[RawSplit, RawSplit]:
    """Read CLASS/*.wav, and split it by the order of file names: numbers 0, 8, 16 ... of each class are test, the others train.

    Labels follow the sorted names of the folders; names that are all numbers are sorted as numbers.

    Args:
        root: the folder that holds one folder for each class.
        known: the classes of a registered dataset, which the folders must be, and which its labels follow.

    Raises:
        DataError: missing or empty folders, other classes than expected, a class with fewer than 2 wav files, a damaged file.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"]
    if not found:
        raise DataError(f"{root}: has no folder for any class (CLASS/*.wav)")
    classes = list(known) or (sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found))
    if strange := sorted(set(found) - set(classes)):
        raise DataError(f"{root}: folder {strange[0]!r} is no class{nearest(strange[0], known)}")
    if missing := [name for name in classes if name not in found]:
        raise DataError(f"{root}: no folder {missing[0]!r}; the classes are: {', '.join(classes)}")
    files = {c: {path.name: path for path in (root / c).iterdir() if path.is_file()} for c in classes}
    return _splits(str(root), files, Path.read_bytes)


def speech_zip(archive: Path, classes: Sequence[str]) -> tuple[RawSplit, RawSplit]:
    """Read mini_speech_commands/CLASS/*.wav of the official archive, split as `wav_folder` does it.

    Members are read in place, and only those of exactly this form: paths that lead out, links and all else mean nothing.

    Raises:
        DataError: missing, truncated or damaged; a class is missing; a damaged clip.
    """
    files: dict[str, dict[str, str]] = {c: {} for c in classes}
    with zips.opened(archive) as opened:
        for member in opened.namelist():
            match member.split("/"):
                case ["mini_speech_commands", c, name] if c in files:
                    files[c][name] = member
        if missing := [c for c in classes if not files[c]]:
            raise DataError(f"{archive}: holds no mini_speech_commands/{missing[0]}/*.wav; is it another archive?")
        return _splits(f"{archive}: mini_speech_commands", files, lambda member: zips.member(opened, archive, member, LARGEST))


def _splits(where: str, files: Mapping[str, Mapping[str, T]], read: Callable[[T], bytes]) -> tuple[RawSplit, RawSplit]:
    """Return (train, test) of {class: {file name: what `read` takes}}, in which only .wav files count."""
    listed = [(number, c, name) for number, c in enumerate(files) for name in _wavs(f"{where}/{c}", files[c])]
    images = np.empty((len(listed), 1, 64, 64), dtype=np.float32)
    identities = np.empty((len(listed), 32), dtype=np.uint8)
    with Progress("reading clips", len(listed)) as progress:
        for row, (_, c, name) in enumerate(listed):
            samples = speech.decode(read(files[c][name]), f"{where}/{c}/{name}")
            images[row, 0], identities[row] = speech.spectrogram(samples), speech.identity(samples)
            progress.update(row + 1)
    labels = np.array([number for number, *_ in listed], dtype=np.int64)
    first = np.searchsorted(labels, labels)  # where each one's class begins
    test = (np.arange(len(labels)) - first) % EVERY == 0
    train_part, test_part = (RawSplit(images[part], labels[part], list(files), identities[part]) for part in (~test, test))
    return train_part, test_part


def _wavs(where: str, names: Mapping[str, object]) -> list[str]:
    wavs = sorted(name for name in names if PurePosixPath(name).suffix.lower() == ".wav" and not name.startswith("."))
    if not wavs:
        others = sorted({PurePosixPath(name).suffix or name for name in names if not name.startswith(".")})
        raise DataError(f"{where}: has no .wav files" + (f" (but {', '.join(others[:5])})" if others else ", it is empty"))
    if len(wavs) < 2:
        raise DataError(f"{where}: has only {wavs[0]}; a class needs 2 wav files at least, because number 0, 8, 16 ... of it are test")
    return wavs
