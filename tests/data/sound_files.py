"""Writes small wav files in every form that dd reads, and archives of them."""

from __future__ import annotations

import io
import wave
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dd.data.registry import DATASETS, Download

ZIP = "mini_speech_commands.zip"


def tone(hertz: float, seconds: float = 1.0, rate: int = 16_000, loud: float = 0.5) -> np.ndarray:
    return loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: np.ndarray, rate: int = 16_000, form: str = "int16") -> bytes:
    """Return a wav file of (n,) or (n, channels) samples in [-1, 1]; form: uint8, int16, int24, int32, float32 or float64."""
    buffer = io.BytesIO()
    if form == "int24":
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            file.setsampwidth(3)
            file.setframerate(rate)
            whole = np.rint(samples * 2**23).astype("<i4").reshape(-1)
            file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
        return buffer.getvalue()
    from scipy.io import wavfile

    scaled = {
        "uint8": lambda: np.rint(samples * 128 + 128).astype(np.uint8),
        "int16": lambda: np.rint(samples * 2**15).astype(np.int16),
        "int32": lambda: np.rint(samples * 2**31).astype(np.int32),
        "float32": lambda: samples.astype(np.float32),
        "float64": lambda: samples.astype(np.float64),
    }[form]()
    wavfile.write(buffer, rate, scaled)
    return buffer.getvalue()


def write_tones(root: Path, classes: dict[str, float], each: int = 9) -> Path:
    """Write `root`/CLASS/NN.wav: tones around the hertz of each class."""
    for name, hertz in classes.items():
        (root / name).mkdir(parents=True)
        for n in range(each):
            (root / name / f"{n:02}.wav").write_bytes(wav(tone(hertz + n, 0.5 + 0.02 * n)))
    return root


def members(root: Path) -> dict[str, bytes]:
    """Return the members of the official archive, and what lies about in it, from a folder of CLASS/*.wav."""
    found = {f"mini_speech_commands/{file.parent.name}/{file.name}": file.read_bytes() for file in sorted(root.glob("*/*.wav"))}
    rubbish = {"mini_speech_commands/README.md": b"#", "__MACOSX/mini_speech_commands/yes/._a.wav": b"x", "__MACOSX/._mini": b"x"}
    return {**rubbish, **found, "mini_speech_commands/yes/._a.wav": b"x"}


def zipped(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def pretend_speech(monkeypatch, mirrors: tuple[str, ...], train: int, test: int) -> None:
    """Register mini_speech_commands with other counts, on these mirrors."""
    item = Download(ZIP, tuple(f"{mirror}/{ZIP}" for mirror in mirrors))
    spec = replace(DATASETS["mini_speech_commands"], downloads=(item,), train=train, test=test)
    monkeypatch.setitem(DATASETS, "mini_speech_commands", spec)
