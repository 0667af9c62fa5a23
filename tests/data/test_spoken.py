"""Real speech, from a download to a network that understands it; and the fixture `spoken` itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from image_files import serving
from sound_files import ZIP, members, pretend_speech, zipped

from dd import networks
from dd.data.config import load_datasets
from dd.data.download import download
from dd.data.load import load, manifest
from dd.data.pool import RealPool
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.rng import stream

NAME = "mini_speech_commands"


@pytest.fixture(scope="module")
def prepared(spoken, tmp_path_factory):
    """Return the folder of the words, downloaded from this machine and prepared."""
    out = tmp_path_factory.mktemp("speech")
    with pytest.MonkeyPatch.context() as patch, serving() as host:
        patch.setenv("NO_PROXY", "127.0.0.1")
        host.files[f"/{ZIP}"] = zipped(members(spoken))
        pretend_speech(patch, (host.url,), 168, 24)
        download(NAME, out / "raw")
        prepare(NAME, load_datasets({}, "test")[NAME], out / "raw", out / "prepared")
    return out / "prepared"


def test_prepared_speech(prepared, spoken):
    facts = manifest(prepared)
    assert facts["classes"] == list(DATASETS[NAME].classes) and facts["counts"] == {"train": [21] * 8, "test": [3] * 8}
    images, labels = load(prepared, "train")
    assert images.shape == (168, 1, 64, 64) and images.dtype == torch.float32 and labels.tolist() == sorted(labels.tolist())
    low, high = facts["range"]
    assert float(images.min()) == low and high is None and float(images.max()) > 0
    for file in spoken.glob("*/*.wav"):  # what espeak says lies between 80 Hz and 8 kHz and takes some time
        assert 8_000 < file.stat().st_size < 32_100


def test_a_network_learns_the_words(prepared):
    facts = manifest(prepared)
    train, test = (RealPool(*load(prepared, split), 8, **facts["lineages"]["idc"]) for split in ("train", "test"))
    net = networks.build("convnet4_in_w16", 1, (64, 64), 8, 0)
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, weight_decay=5e-4)
    for step in range(60):
        index = train.draw(stream(0, step), 4).flatten()
        optimizer.zero_grad()
        F.cross_entropy(net(train.x(index)), train.y(index)).backward()
        optimizer.step()
    every = torch.arange(len(test))
    with torch.no_grad():
        right = (net(test.x(every)).argmax(1) == test.y(every)).float().mean()
    assert right > 0.6, f"{float(right):.0%} of 24 words; chance is 12.5%"


INNER = "def test_inner(spoken): assert len(list(spoken.glob('*/*.wav'))) == 192"


@pytest.mark.parametrize(
    ("require", "result", "words"),
    [
        ("slurm", "1 skipped", "espeak-ng is not installed"),
        ("slurm, espeak", "1 error", "espeak-ng is not installed, and DD_REQUIRE asks for espeak"),
    ],
)
def test_where_espeak_is_absent(require, result, words, tmp_path, monkeypatch):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_inner.py").write_text(INNER)
    monkeypatch.setenv("DD_REQUIRE", require)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = [sys.executable, "-m", "pytest", "-rsf", "--tb=short", "-p", "no:cacheprovider", str(tmp_path)]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
    assert result in out and words in out.replace("\n", " "), out
