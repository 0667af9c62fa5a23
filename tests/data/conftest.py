"""Real sounds: command words spoken by espeak-ng."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

WORDS = ("yes", "no", "go", "stop", "left", "right", "up", "down")
VOICES = ("en-us", "en-gb", "en-us+f2", "en-gb+f4", "en-us+m3", "en-gb-scotland+m7", "en-us+f5", "en-gb-x-rp+m1")
SPEAKING = ((35, 130), (50, 160), (65, 190))  # pitch, words a minute


def speak(folder: Path) -> None:
    """Write `folder`/WORD/*.wav as the official clips are: 24 a word, 16 kHz, 16 bits, a second or less, not all begun at once."""
    from scipy.io import wavfile
    from scipy.signal import resample

    rng = np.random.default_rng(0)
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for voice in VOICES:
            for number, (pitch, speed) in enumerate(SPEAKING):
                name = f"{hashlib.sha256(voice.encode()).hexdigest()[:8]}_nohash_{number}.wav"
                out = folder / word / name
                options = ["-v", voice, "-p", str(pitch), "-s", str(speed), "-w", str(out), word]
                subprocess.run(["espeak-ng", *options], check=True, timeout=30)
                rate, sound = wavfile.read(out)
                sound = resample(sound / 32768, round(len(sound) * 16_000 / rate))[:14_000]
                quiet = np.zeros(int(rng.integers(2_000)))
                wavfile.write(out, 16_000, np.rint(np.concatenate([quiet, sound]).clip(-1, 0.9999) * 32768).astype(np.int16))


@pytest.fixture(scope="session")
def spoken(tmp_path_factory) -> Path:
    """Return a folder of spoken words; it skips where espeak-ng is absent, unless DD_REQUIRE has espeak."""
    if shutil.which("espeak-ng") is None:
        reason = "espeak-ng is not installed"
        if "espeak" in map(str.strip, os.environ.get("DD_REQUIRE", "").split(",")):
            pytest.fail(f"{reason}, and DD_REQUIRE asks for espeak")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("spoken")
    speak(folder)
    return folder
