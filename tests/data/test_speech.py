"""One wav file to one image, against a discrete Fourier transform that is written out."""

import io
import math
import re
import struct

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from scipy.signal import stft
from sound_files import tone, wav

from dd.data.speech import decode, identity, magnitudes, spectrogram
from dd.errors import DataError


def refused(*words):
    return pytest.raises(DataError, match="(?s)" + ".*".join(map(re.escape, ("a/b.wav", *words))))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).uniform(-1, 1, 16_000)


# -- spectrogram --------------------------------------------------------------------------------------------------------


def naive(x):
    """Return 128x125 magnitudes: every sum is that of the definition, without an FFT; float64."""

    def at(i):  # reflected about the first and the last sample
        i = abs(i)
        return x[i] if i < 16_000 else x[2 * 15_999 - i]

    turns = np.exp(-2j * np.pi * np.outer(np.arange(128), np.arange(255)) / 255)
    columns = []
    for t in range(125):
        frame = np.array([at(128 * t + n - 127) * 0.5 * (1 - math.cos(2 * math.pi * n / 255)) for n in range(255)])
        columns.append(np.abs(turns @ frame))
    return np.stack(columns, 1)


def test_spectrogram_against_the_definition(noise):
    found, expected = magnitudes(noise), naive(noise)
    assert found.shape == (128, 125) and np.abs(found - expected).max() < 1e-10
    square = torch.zeros(1, 1, 128, 128, dtype=torch.float64)
    square[0, 0, :, 1:126] = torch.from_numpy(expected)  # one frame before, two after
    small = torch.nn.functional.interpolate(square, size=(64, 64), mode="bilinear", align_corners=False)
    image = spectrogram(noise)
    assert image.shape == (64, 64) and image.dtype == np.float32
    assert np.abs(image - (small[0, 0] + 1e-3).log().numpy()).max() < 1e-5


def test_magnitudes_against_scipy(noise):
    reflected = np.concatenate([noise[127:0:-1], noise, noise[-2:-129:-1]])
    _, _, z = stft(reflected, window="hann", nperseg=255, noverlap=127, boundary=None, padded=False)
    assert np.allclose(np.abs(z) * 127.5, magnitudes(noise), atol=1e-10)  # scipy divides by the sum of the window


def test_silence_and_a_tone():
    assert np.all(spectrogram(np.zeros(16_000)) == np.float32(np.log(1e-3)))
    image = spectrogram(tone(2_000))
    assert (image[:, 1:-2].argmax(0) == round(2_000 * 255 / 16_000) // 2).all()  # rows are frequencies, from low to high
    assert (image[:, -1] == np.float32(np.log(1e-3))).all()  # two frames of padding
    late = spectrogram(np.concatenate([np.zeros(8_000), tone(2_000, 0.5)]))
    assert late[:, :30].max() < late[:, 34:60].max(0).min()  # columns are time


# -- wav files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "step"), [("uint8", 2**-7), ("int16", 2**-15), ("int24", 2**-23), ("int32", 2**-31), ("float32", 2**-24), ("float64", 0)]
)
def test_every_depth(form, step, noise):
    x = noise * 0.9
    found = decode(wav(x, form=form), "x")
    assert found.dtype == np.float64 and found.shape == (16_000,) and np.abs(found - x).max() <= step / 2
    stereo = np.stack([x, tone(300)], 1)
    assert np.abs(decode(wav(stereo, form=form), "x") - stereo.mean(1)).max() <= step / 2


def test_the_extremes_of_16_bits():
    assert decode(wav(np.array([-1.0, 0.0, 32767 / 32768])), "x")[:4].tolist() == [-1, 0, 32767 / 32768, 0]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.7])
def test_a_clip_is_padded_at_the_end_or_cut(seconds):
    x = decode(wav(tone(440, seconds), form="float64"), "x")
    there = min(16_000, round(seconds * 16_000))
    assert np.array_equal(x[:there], tone(440, seconds)[:there]) and not x[there:].any() and len(x) == 16_000


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(rate):
    x = decode(wav(tone(440, 1.2, rate), rate, "float32"), "x")
    assert np.abs(x - tone(440))[200:-200].max() < 2e-3
    short = decode(wav(tone(440, 0.5, rate), rate, "float32"), "x")
    assert np.abs(short[200:7_800] - tone(440)[200:7_800]).max() < 2e-3 and not short[8_100:].any()


def test_identity_is_that_of_16_bits(noise):
    x = decode(wav(noise * 0.9), "x")
    same = [identity(x), identity(decode(wav(x, form="float32"), "x")), identity(decode(wav(x, form="int32"), "x"))]
    assert all(np.array_equal(one, same[0]) for one in same) and same[0].shape == (32,) and same[0].dtype == np.uint8
    assert np.array_equal(identity(x + 1e-9), same[0])
    other = x.copy()
    other[7] += 2**-15
    assert not np.array_equal(identity(other), same[0])
    assert not np.array_equal(identity(np.full(16_000, 1.01)), identity(np.full(16_000, -1.0)))  # clipped, not wrapped


def test_chunks_that_say_nothing_of_the_sound_are_passed_over(recwarn):
    plain = wav(tone(440))
    more = plain + b"bext" + struct.pack("<I", 6) + b"abcdef" + b"LIST" + struct.pack("<I", 4) + b"INFO"
    more = b"RIFF" + struct.pack("<I", len(more) - 8) + more[8:]
    assert np.array_equal(decode(more, "x"), decode(plain, "x")) and not recwarn.list


@pytest.mark.parametrize("kept", [0, 3, 11, 12, 20, 30, 43, 44, 45, 1000, 32_043])
def test_a_truncated_file(kept):
    whole = wav(tone(440))
    assert len(whole) == 32_044
    with refused("truncated, damaged or not a wav"):
        decode(whole[:kept], "a/b.wav")


def mu_law():
    data = bytearray(wav(tone(440)))
    data[20:22] = struct.pack("<H", 7)
    return bytes(data)


def with_rate(rate):
    data = bytearray(wav(tone(440)))
    data[24:32] = struct.pack("<II", rate, 2 * rate)
    return bytes(data)


def empty():
    buffer = io.BytesIO()
    wavfile.write(buffer, 16_000, np.zeros(0, np.int16))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"ID3\x04 this is an mp3" * 100, "not a wav file"),
        (mu_law(), "not a wav file of PCM or float"),
        (empty(), "holds no sound"),
        (with_rate(0), "0 samples a second; allowed: 1000 to 384000"),
        (with_rate(1_000_000_000), "1000000000 samples a second"),
        (wav(np.array([0.0, -3.0]), form="float32"), "floats up to 3; must lie in [-1, 1]"),
        (wav(np.array([0.0, np.nan]), form="float32"), "floats up to nan"),
        (wav(np.array([0.0, np.inf]), form="float64"), "floats up to inf"),
    ],
    ids=["mp3", "mu-law", "empty", "rate 0", "rate 1e9", "loud", "nan", "inf"],
)
def test_strange_files(data, words):
    with refused(words):
        decode(data, "a/b.wav")
