"""From a wav file to an image: one second of sound, its log-magnitude spectrogram, and the bytes that it is known by."""

from __future__ import annotations

import hashlib
import io
import math
import warnings

import numpy as np
from numpy.typing import NDArray

from dd.errors import DataError

RATE = LENGTH = 16_000  # samples a second; samples of a clip, which is one second
RATES = (1_000, 384_000)  # what is believed of a header
N_FFT, HOP = 255, 128
FLOOR = 1e-3  # under the logarithm
FORM = f"log-magnitude 64x64, {RATE} Hz, hann {N_FFT} by {HOP}, reflect, {FLOOR}"  # part of a fingerprint


def decode(data: bytes, name: str) -> NDArray[np.float64]:
    """Return (16000,) samples in [-1, 1] at 16 kHz of a wav file: its first second, zero-padded at the end.

    8 to 64-bit PCM and float; several channels are averaged. Other rates are resampled by a polyphase filter (Differs from the paper:
    librosa would use another filter; the official clips are all at 16 kHz).

    Raises:
        DataError: not a wav file, truncated or damaged, without sound, with an unlikely rate, or floats outside [-1, 1].
    """
    from scipy.signal import resample_poly

    rate, stored = _read(data, name)
    if not len(stored):
        raise DataError(f"{name}: holds no sound (0 samples)")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{name}: says that it has {rate} samples a second; allowed: {RATES[0]} to {RATES[1]}")
    samples = _scaled(stored, name)
    if samples.ndim == 2:
        samples = samples.mean(1)
    if rate != RATE:
        common = math.gcd(RATE, rate)
        samples = samples[: 2 * rate]  # the filter is shorter than a second: what comes later changes nothing in the first one
        samples = resample_poly(samples, RATE // common, rate // common)
    clip = np.zeros(LENGTH)
    clip[: min(LENGTH, len(samples))] = samples[:LENGTH]
    return clip


def _read(data: bytes, name: str) -> tuple[int, NDArray[np.generic]]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that say nothing about the sound
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            return wavfile.read(io.BytesIO(data))
    except Exception as error:  # scipy raises anything on damaged files
        raise DataError(f"{name}: is truncated, damaged or not a wav file of PCM or float samples ({error})") from None


def _scaled(stored: NDArray[np.generic], name: str) -> NDArray[np.float64]:
    samples = stored.astype(np.float64)
    if stored.dtype.kind == "f":
        peak = np.abs(samples).max()
        if not peak <= 1:  # also where it is not a number
            raise DataError(f"{name}: holds floats up to {peak:.6g}; must lie in [-1, 1]: scale it first")
        return samples
    if stored.dtype.kind == "u":  # 8 bits, the only unsigned ones
        return (samples - 128) / 128
    return samples / 2.0 ** (8 * stored.dtype.itemsize - 1)


def identity(samples: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (32,), the sha256 of the samples at 16 bits: what order and fingerprint of a dataset of sounds follow from.

    A spectrogram in floats may differ in its last digit between two machines, and then no hash of it is equal. The samples of a
    16-bit file at 16 kHz come back exactly, so the official clips have the same identity everywhere.
    """
    whole = np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2")
    return np.frombuffer(hashlib.sha256(whole.tobytes()).digest(), dtype=np.uint8)


def magnitudes(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return (128, 125): :math:`|\sum_n w_n x_{128 t + n} e^{-2 \pi i k n / 255}|`, frequencies k by frames t.

    w is the periodic Hann window :math:`0.5 - 0.5 \cos(2 \pi n / 255)`, as long as the transform. Frames are centred: x is padded by 127
    samples at both ends, by reflection about the first and last sample. That was librosa's default before 0.10, and IDC's code runs
    on no later one: it gives `sr` to `librosa.load` by position. Since 0.10 the default is zeros, which changes the outermost frames.
    """
    padded = np.pad(samples, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return np.abs(np.fft.rfft(frames * window)).T


def spectrogram(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    r"""Return (64, 64) float32, :math:`\log(v + 10^{-3})`: rows are frequencies from low to high, columns are time.

    v are the magnitudes with one frame of zeros before and two after, 128x128, halved bilinearly without antialiasing, which at this
    factor is the mean of 2x2. Differs from the paper: float64 until the last step, where librosa uses float32.
    """
    square = np.pad(magnitudes(samples), ((0, 0), (1, 2)))
    v = square.reshape(64, 2, 64, 2).mean((1, 3))
    return np.log(v + FLOOR).astype(np.float32)
