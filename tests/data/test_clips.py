"""Sounds from a folder and from the official archive: split, labels, prepared form, and what is refused."""

import hashlib
import json
import re
import stat
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sound_files import members, pretend_speech, tone, wav, write_tones, zipped

from dd.data.clips import speech_zip, wav_folder
from dd.data.config import load_datasets
from dd.data.load import indices, load, manifest
from dd.data.pool import RealPool
from dd.data.prepare import prepare
from dd.data.registry import DATASETS
from dd.data.speech import FORM, decode, identity, spectrogram
from dd.errors import DataError

NAME = "mini_speech_commands"
WORDS = DATASETS[NAME].classes
BIRDS = {"wren": 3000.0, "owl": 400.0, "crow": 900.0}


def refused(*words):
    return pytest.raises(DataError, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def config(path, name="mine", **more):
    return load_datasets({name: {"source": {"kind": "wav", "path": str(path)}, **more}}, "test")[name]


@pytest.fixture
def birds(tmp_path):
    return write_tones(tmp_path / "birds", BIRDS, 17)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("words"), {word: 300.0 * (n + 1) for n, word in enumerate(WORDS)})


def archive(path, contents):
    path.write_bytes(zipped(contents))
    return path


# -- what is read -------------------------------------------------------------------------------------------------------


def test_every_eighth_file_of_a_class_is_test(birds):
    (birds / "owl" / "notes.txt").write_text("not a sound")
    (birds / "owl" / "._00.wav").write_bytes(b"x")
    (birds / "owl" / "01.wav").rename(birds / "owl" / "01.WAV")
    (birds / ".git").mkdir()
    (birds / "__MACOSX").mkdir()
    train, test = wav_folder(birds)
    assert train.class_names == test.class_names == ["crow", "owl", "wren"]
    assert np.bincount(train.labels).tolist() == [14] * 3 and np.bincount(test.labels).tolist() == [3] * 3
    assert train.images.shape == (42, 1, 64, 64) and train.images.dtype == np.float32 and train.labels.dtype == np.int64
    rows = {True: iter(zip(test.images, test.labels, test.identity, strict=True)), False: iter(zip(train.images, train.labels, train.identity, strict=True))}
    for label, name in enumerate(("crow", "owl", "wren")):
        files = sorted(file for file in (birds / name).iterdir() if file.suffix in (".wav", ".WAV") and file.name[0] != ".")
        for i, file in enumerate(files):
            image, found, known_by = next(rows[i % 8 == 0])
            samples = decode(file.read_bytes(), "x")
            assert found == label and np.array_equal(image[0], spectrogram(samples)) and np.array_equal(known_by, identity(samples))


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    write_tones(tmp_path, {str(n): 200.0 * (n + 1) for n in range(11)}, 2)
    assert wav_folder(tmp_path)[0].class_names == [str(n) for n in range(11)]


def test_archive_and_folder_hold_the_same(words, tmp_path):
    of_folder, of_archive = wav_folder(words, WORDS), speech_zip(archive(tmp_path / "a.zip", members(words)), WORDS)
    for a, b in zip(of_folder, of_archive, strict=True):
        assert a.class_names == b.class_names == list(WORDS)
        assert np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels) and np.array_equal(a.identity, b.identity)


# -- the prepared form --------------------------------------------------------------------------------------------------


def test_prepared_order_holdout_and_statistics_against_naive_ones(birds, tmp_path):
    facts = prepare("birds", config(birds), tmp_path, tmp_path / "out")
    assert facts == manifest(tmp_path / "out")
    train, _ = wav_folder(birds)
    rows = sorted((int(c), hashlib.sha256(key.tobytes()).hexdigest(), n) for n, (c, key) in enumerate(zip(train.labels, train.identity, strict=True)))
    order = [n for *_, n in rows]
    there = load_file(tmp_path / "out" / "train.safetensors")
    assert there["images"].dtype == np.float32 and np.array_equal(there["images"], train.images[order])
    assert there["labels"].tolist() == [c for c, *_ in rows]
    expected = []
    for c in range(3):
        mine = [n for n in range(42) if there["labels"][n] == c]
        expected += sorted(mine, key=lambda n: hashlib.sha256(b"holdout" + train.identity[order[n]].tobytes()).hexdigest())[:1]
    assert indices(tmp_path / "out").tolist() == sorted(expected)

    x = train.images.astype(np.float64)
    for lineage in ("dc", "idc"):
        stated = facts["lineages"][lineage]
        assert stated["mean"] == [pytest.approx(x.mean(), abs=1e-6)] and stated["std"] == [pytest.approx(x.std(), abs=1e-6)]
    assert facts["range"] == [float(train.images.min()), None] == [pytest.approx(np.log(1e-3), abs=1e-6), None]
    assert (facts["augment"], facts["flip"], facts["channels"], facts["size"]) == (False, False, 1, [64, 64])
    assert facts["counts"] == {"train": [14] * 3, "test": [3] * 3} and facts["smallest_class"] == 14 and "downloads" not in facts

    pool = RealPool(*load(tmp_path / "out", "train"), 3, **facts["lineages"]["dc"])
    every = torch.arange(42)
    assert torch.equal(pool.raw(every), torch.from_numpy(there["images"]))
    assert abs(float(pool.x(every).mean())) < 1e-5 and abs(float(pool.x(every).std()) - 1) < 1e-4


def test_the_fingerprint_is_of_the_sounds_and_not_of_the_floats(birds, tmp_path, monkeypatch):
    first = prepare("birds", config(birds), tmp_path, tmp_path / "a")
    naive = hashlib.sha256(b'["crow","owl","wren"]')
    for split, data in zip(("test", "train"), wav_folder(birds)[::-1], strict=True):
        rows = sorted((int(c), hashlib.sha256(key.tobytes()).digest(), key.tobytes()) for c, key in zip(data.labels, data.identity, strict=True))
        naive.update(f"{split}:({len(rows)}, 1, 64, 64){FORM}".encode() + b"".join(key for *_, key in rows))
        naive.update(b"".join(c.to_bytes(8, "little") for c, *_ in rows))
    assert first["fingerprint"] == naive.hexdigest()

    real = spectrogram
    with monkeypatch.context() as patch:  # another machine, whose last digits differ
        patch.setattr("dd.data.speech.spectrogram", lambda x: np.nextafter(real(x), np.float32(9)))
        other = prepare("birds", config(birds), tmp_path, tmp_path / "b")
    assert other["fingerprint"] == first["fingerprint"]
    assert other["lineages"]["dc"]["mean"] == pytest.approx(first["lineages"]["dc"]["mean"], abs=2e-6)
    near, there = (load_file(tmp_path / name / "train.safetensors")["images"] for name in "ba")
    assert not np.array_equal(near, there) and np.allclose(near, there, atol=1e-5)

    (birds / "owl" / "03.wav").write_bytes(wav(tone(401)))
    prints = {first["fingerprint"], prepare("birds", config(birds), tmp_path, tmp_path / "c")["fingerprint"]}
    (birds / "owl").rename(birds / "hawk")
    prints.add(prepare("birds", config(birds), tmp_path, tmp_path / "d")["fingerprint"])
    assert len(prints) == 3
    with refused("config.yaml pins", first["fingerprint"]):
        prepare("birds", config(birds, fingerprint=first["fingerprint"]), tmp_path, tmp_path / "e")


def test_statistics_of_the_configuration(birds, tmp_path):
    facts = prepare("birds", config(birds, mean=[-4.0], std=[2.0]), tmp_path, tmp_path / "out")
    assert facts["lineages"]["idc"] == {"mean": [-4.0], "std": [2.0]} and facts["flip"] is False
    with refused("mean: value [0.5, 0.5] has 2 numbers, the images have 1 channels"):
        prepare("birds", config(birds, mean=[0.5, 0.5]), tmp_path, tmp_path / "out")


def test_download_and_folder_are_prepared_alike(words, tmp_path, monkeypatch):
    pretend_speech(monkeypatch, (), 64, 16)
    (tmp_path / "raw").mkdir()
    archive(tmp_path / "raw" / "mini_speech_commands.zip", members(words))
    monkeypatch.setitem(DATASETS, NAME, DATASETS[NAME])
    with refused("train has 56 images, mini_speech_commands has 64", "name of its own"):
        prepare(NAME, config(words, NAME), tmp_path, tmp_path / "b")
    pretend_speech(monkeypatch, ("https://nowhere",), 56, 16)
    of_archive = prepare(NAME, load_datasets({}, "test")[NAME], tmp_path / "raw", tmp_path / "a")
    of_folder = prepare(NAME, config(words, NAME), tmp_path, tmp_path / "b")
    assert of_archive.pop("downloads") and of_archive == of_folder and of_folder["classes"] == list(WORDS)
    for split in ("train", "holdout", "test"):
        assert (tmp_path / "a" / f"{split}.safetensors").read_bytes() == (tmp_path / "b" / f"{split}.safetensors").read_bytes()
    assert json.loads((tmp_path / "b" / "manifest.json").read_text()) == of_folder


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_folders_that_are_not_as_they_should_be(words, birds, tmp_path):
    with refused(tmp_path / "none", "no such folder"):
        wav_folder(tmp_path / "none")
    (tmp_path / "bare").mkdir()
    with refused(tmp_path / "bare", "no folder for any class (CLASS/*.wav)"):
        wav_folder(tmp_path / "bare")
    (birds / "empty").mkdir()
    with refused(birds / "empty", "no .wav files, it is empty"):
        wav_folder(birds)
    (birds / "empty" / "a.flac").write_bytes(b"x")
    with refused(birds / "empty", "no .wav files (but .flac)"):
        wav_folder(birds)
    (birds / "empty" / "a.wav").write_bytes(wav(tone(440)))
    with refused(birds / "empty", "has only a.wav; a class needs 2 wav files"):
        wav_folder(birds)
    (birds / "empty" / "b.wav").write_bytes(wav(tone(440))[:-7])
    with refused(birds / "empty" / "b.wav", "truncated"):
        wav_folder(birds)
    (birds / "empty" / "b.wav").write_bytes((birds / "empty" / "a.flac").read_bytes())
    with refused(birds / "empty" / "b.wav", "not a wav file"):
        wav_folder(birds)
    with refused(words, "folder 'down' is no class; did you mean 'downs'"):
        wav_folder(words, (*WORDS[:-1], "downs"))
    with refused(words, "no folder 'eight'; the classes are: yes, no, go"):
        wav_folder(words, (*WORDS, "eight"))


@pytest.fixture
def official(words):
    return members(words)


def test_archives_that_are_not_as_they_should_be(official, tmp_path):
    path = tmp_path / "a.zip"
    with refused(path, "no such file"):
        speech_zip(path, WORDS)
    whole = zipped(official)
    for damaged in (b"", b"<html>", whole[:1000], whole[:-30]):
        path.write_bytes(damaged)
        with refused(path, "truncated or damaged", "delete it"):
            speech_zip(path, WORDS)
    clip = "mini_speech_commands/left/03.wav"
    with zipfile.ZipFile(archive(path, official)) as opened:
        start = opened.getinfo(clip).header_offset
    path.write_bytes(whole[: start + 200] + bytes(40) + whole[start + 240 :])
    with refused(path, "truncated or damaged"):
        speech_zip(path, WORDS)
    with refused(path, clip, "not a wav file"):
        speech_zip(archive(path, official | {clip: b"hello"}), WORDS)
    with refused(path, clip, "has 64000001 bytes, too many; allowed: 64000000"):
        speech_zip(archive(path, official | {clip: bytes(64_000_001)}), WORDS)
    without = {name: content for name, content in official.items() if "/stop/" not in name}
    with refused(path, "holds no mini_speech_commands/stop/*.wav; is it another archive?"):
        speech_zip(archive(path, without), WORDS)
    with refused(path, "mini_speech_commands/stop", "no .wav files (but .txt)"):
        speech_zip(archive(path, without | {"mini_speech_commands/stop/a.txt": b"x"}), WORDS)
    with refused(path, "holds no mini_speech_commands/yes/"):
        speech_zip(archive(path, {"other/a.txt": b"x"}), WORDS)


def test_nothing_leaves_the_archive(official, tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    loud = wav(tone(440))
    bad = {
        "../../planted.wav": loud,
        f"{tmp_path}/absolute.wav": loud,
        "mini_speech_commands/yes/../../../planted.wav": loud,
        "mini_speech_commands/../yes/planted.wav": loud,
        "../mini_speech_commands/yes/planted.wav": loud,
        "mini_speech_commands/yes/sub/planted.wav": loud,
        "mini_speech_commands\\yes\\planted.wav": loud,
        "/mini_speech_commands/yes/planted.wav": loud,
    }
    path = archive(inside / "x.zip", {**bad, **official})
    for found, right in zip(speech_zip(path, WORDS), speech_zip(archive(inside / "y.zip", official), WORDS), strict=True):
        assert np.array_equal(found.identity, right.identity)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["x.zip", "y.zip"]
    secret = tmp_path / "secret.wav"
    secret.write_bytes(loud)
    link = zipfile.ZipInfo("mini_speech_commands/yes/00.wav")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in official.items():
            opened.writestr(link if name == link.filename else name, str(secret) if name == link.filename else content)
    with refused(path, "mini_speech_commands/yes/00.wav", "not a wav file"):  # its bytes are a path, which nobody follows
        speech_zip(path, WORDS)
