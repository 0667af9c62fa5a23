"""Files that are made to harm: pickles in every place where a reader looks, and sizes that are lies."""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encoded, some_images, tiny_members, write_idx, write_npz
from PIL import Image
from project import ROOT
from samples import SAMPLES, WNIDS
from sound_files import ZIP, wav, zipped
from watching import Bomb, bomb, bounded, guarded

from dd.artifacts import load_tensors, read_json, read_meta
from dd.config import load_yaml
from dd.data import clips, npz, official, readers, speech, tiny
from dd.data.imagenet import square
from dd.errors import ArtifactError, ConfigError, DataError, DDError


def torch_file(marker):
    """Return what `torch.save` writes: a .zip with a pickle in it."""
    buffer = io.BytesIO()
    torch.save({"weight": Bomb(marker)}, buffer)
    return buffer.getvalue()


def object_array(marker):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(marker)], dtype=object))
    return buffer.getvalue()


def object_arrays(marker):
    """Return an .npz in which every array that any reader asks for is one of objects."""
    buffer = io.BytesIO()
    names = ("data", "labels", "mean", *(f"{split}_{what}" for split in ("train", "test", "val") for what in ("images", "labels")))
    np.savez(buffer, **{name: np.array([Bomb(marker)], dtype=object) for name in names})
    return buffer.getvalue()


def as_tar(marker):
    """Return a .tar.gz whose members, under every name that a reader asks for, are pickles; as are CIFAR's own Python archives."""
    buffer = io.BytesIO()
    names = ["cifar-10-batches-bin/test_batch.bin", "cifar-100-binary/train.bin", "cifar-100-binary/test.bin", "results/scores/a.json"]
    names += [f"cifar-10-batches-{kind}" for n in range(1, 6) for kind in (f"bin/data_batch_{n}.bin", f"py/data_batch_{n}")]
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(bomb(marker))
            tar.addfile(info, io.BytesIO(bomb(marker)))
    return buffer.getvalue()


def as_zip(marker):
    names = ["mini_speech_commands/no/a.wav", "mini_speech_commands/yes/a.wav", "mini_speech_commands/no/b.wav", "data.pkl"]
    names += [
        "mini_speech_commands/yes/b.wav",
        "tiny-imagenet-200/wnids.txt",
        *(f"tiny-imagenet-200/train/{w}/images/a.JPEG" for w in WNIDS),
    ]
    return zipped(dict.fromkeys(names, bomb(marker)))


def as_parquet(marker):
    """Return a table whose images are pickles, and whose type is one that old versions of pyarrow unpickle from the metadata."""
    storage = pa.array([bomb(marker)], pa.binary())
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb(marker)}
    fields = [pa.field("img", pa.binary(), metadata=extension), pa.field("label", pa.int64())]
    schema = pa.schema(fields, metadata={b"huggingface": bomb(marker), b"pandas": bomb(marker)})
    sink = io.BytesIO()
    pq.write_table(pa.table([storage, pa.array([0])], schema=schema), sink)
    return sink.getvalue()


def as_safetensors(marker):
    """Return a file in the right form whose tensor and metadata are pickles."""
    content = bomb(marker)
    header = {
        "__metadata__": {"dd": content.decode("latin-1")},
        "x": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def as_mat(marker):
    from scipy.io import savemat

    sink = io.BytesIO()
    cell = np.empty(1, dtype=object)
    cell[0] = np.frombuffer(bomb(marker), np.uint8)
    savemat(sink, {"X": cell, "y": cell})
    return sink.getvalue()


def as_yaml(marker):
    return f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]\n".encode()


FORMS = {
    "pickle": bomb, "pickle.gz": lambda marker: gzip.compress(bomb(marker)), "torch": torch_file, "npy": object_array,
    "npz": object_arrays, "tar": as_tar, "zip": as_zip, "parquet": as_parquet, "safetensors": as_safetensors, "mat": as_mat,
    "yaml": as_yaml,
}  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return {sample: (folder, {file: its bytes})}."""
    root = tmp_path_factory.mktemp("malicious")
    found = {}
    for name, sample in SAMPLES.items():
        (root / name).mkdir()
        sample.make(root / name)
        files = [file for file in sample.files(root / name) if file.suffix != ".sha256"]
        ends = [next((file for file in order if matters(sample, root / name, file)), None) for order in (files, files[::-1])]
        found[name] = root / name, {file: file.read_bytes() for file in ends if file}
    assert [name for name, (_, files) in found.items() if not files] == ["digits"], "all others read files"
    return found


def matters(sample, folder, file):
    """Tell whether a file is read: an empty one in its place is noticed."""
    content = file.read_bytes()
    file.write_bytes(b"")
    try:
        sample.read(folder)
    except DDError as error:
        return file.name in str(error) or not sample.refused
    finally:
        file.write_bytes(content)
    return False


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_in_place_of_any_file_is_refused_and_never_run(form, originals, tmp_path, monkeypatch):
    """In each sample the first and the last file are replaced, one after the other."""
    marker = tmp_path / "marker"
    content, tried = FORMS[form](marker), 0
    for name, (folder, files) in originals.items():
        for file, original in files.items():
            file.write_bytes(content)
            try:
                with guarded(monkeypatch, folder), pytest.raises(DDError) as caught:
                    SAMPLES[name].read(folder)
            finally:
                file.write_bytes(original)
            assert str(caught.value).strip() and not marker.exists(), (name, file)
            tried += 1
    assert tried >= 35


def test_the_command_line_refuses_a_pickle_and_says_so(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "evil.safetensors").write_bytes(bomb(marker))
    (tmp_path / "evil.pt").write_bytes(torch_file(marker))
    for file, words in (("evil.safetensors", "damaged or not a safetensors file"), ("evil.pt", "never opened here")):
        args = ["teacher", "--config", "-", f"--file={tmp_path / file}", "--out", str(tmp_path / "out.safetensors")]
        done = subprocess.run(
            [sys.executable, "-m", "dd", *args], input='{"teacher":"resnet18_tv"}', cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1 and words in done.stderr and file in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pt", "evil.safetensors"]


# -- sizes that are lies --------------------------------------------------------------------------------------------------


def refused(words, error=DataError):
    return pytest.raises(error, match=f"(?s){words}")


def zeros(megabytes):
    """Return so many zero bytes as a .gz of several parts."""
    return gzip.compress(bytes(1 << 22)) * (megabytes // 4)


def test_gzip_bombs(tmp_path):
    write_idx(tmp_path, some_images(2, 1, (4, 4)))
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    header = bytes((0, 0, 8, 1))
    for count, tail in ((100, 1024), (2**32 - 1, 0), (2**31, 4)):  # goes on; says too much; says too much for its own length
        file.write_bytes(gzip.compress(header + struct.pack(">I", count)) + zeros(tail))
        with bounded(), refused("t10k-labels-idx1-ubyte.gz: is (too long|truncated)"):
            readers.idx(tmp_path)
    plain = tmp_path / "t10k-labels-idx1-ubyte"
    plain.write_bytes(header + struct.pack(">I", 2**32 - 1))
    with bounded(), refused("t10k-labels-idx1-ubyte: is truncated"):
        readers.idx(tmp_path)


def header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_tar_bombs(tmp_path):
    archive = tmp_path / "x.tar.gz"
    test = "cifar-100-binary/test.bin"
    for raw, words in (
        (header(test, 10**12), "too many; allowed"),
        (header(test, official.LARGEST), "truncated or damaged"),
        (header("././@LongLink", 10**11, b"L"), "truncated or damaged"),
        (header("././@PaxHeader", 10**11, b"x"), "truncated or damaged"),
        (header("././@PaxHeader", 10**11, b"g"), "truncated or damaged"),
        (header("a", -10240), "truncated or damaged"),  # the next header would be this one again, for ever
        (header("././@LongLink", -10240, b"L"), "truncated or damaged"),
        (header("././@PaxHeader", -10240, b"x"), "truncated or damaged"),
        (header("a", 2**80), "truncated or damaged|no regular file"),
    ):
        archive.write_bytes(gzip.compress(raw) + zeros(8))
        with bounded(), refused(words):
            official.cifar_binary(archive, 100)


def test_tar_chains_of_long_names(tmp_path):
    """Each header says that the next one has the name: as many as Python could not follow."""
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress((header("././@LongLink", 1, b"L") + b"a".ljust(512, b"\0")) * 5000))
    with refused("truncated or damaged|no regular file"):
        official.cifar_binary(archive, 100)


def test_npz_bombs(tmp_path):
    file = tmp_path / "pathmnist.npz"
    write_npz(file, some_images(2, 3, (28, 28)))

    def member(shape, size, stated=None):
        """Write train_images of that shape, with `size` bytes of data; stated: what the archive's list says of its length."""
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("train_images.npy", "w", force_zip64=True) as out:
            out.write(head.getvalue())
            for _ in range(size >> 20):
                out.write(bytes(1 << 20))

    member((10**12, 28, 28, 3), 1 << 20)
    with bounded(), refused("pathmnist.npz: train_images: is damaged"):
        npz.pathmnist(tmp_path)
    member((10**6, 28, 28, 3), 1 << 20)
    with bounded(4000), refused("pathmnist.npz: train_images: is damaged"):
        npz.pathmnist(tmp_path)
    file.write_bytes(lying(file.read_bytes(), b"train_images.npy", 2**34))
    with bounded(), refused(r"pathmnist.npz: train_images: (has \d+ bytes, too many|is damaged)|no .npz"):
        npz.pathmnist(tmp_path)


def lying(archive, name, size):
    """Return a .zip that says of a member that it has `size` bytes (up to 4 GB), wherever that is said."""
    size = min(size, 2**32 - 2)
    content, at = bytearray(archive), archive.rindex(b"PK\x01\x02", 0, archive.rindex(name))
    content[at + 24 : at + 28] = struct.pack("<I", size)
    return bytes(content)


@pytest.mark.parametrize("share", [1.0, 2.0])
def test_zip_bombs(share, tmp_path):
    content, limit = {"tiny-imagenet-200/wnids.txt": bytes(int(tiny.LARGEST * share) + 1)}, "too many; allowed: 10000000"
    path = tmp_path / "t.zip"
    path.write_bytes(zipped({**tiny_members(WNIDS, 1, 1)[1], **content}))
    with bounded(), refused(f"wnids.txt: has .* bytes, {limit}"):
        tiny.archive(path, 2)
    path.write_bytes(lying(path.read_bytes(), b"tiny-imagenet-200/wnids.txt", 100))  # now it says that it is small
    with bounded(), refused("truncated or damaged"):
        tiny.archive(path, 2)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_zips_that_the_official_archives_are_not(method, tmp_path):
    path = tmp_path / ZIP
    with zipfile.ZipFile(path, "w", method) as opened:
        for name in ("no/a.wav", "no/b.wav", "yes/a.wav", "yes/b.wav"):
            opened.writestr(f"mini_speech_commands/{name}", wav(np.zeros(100)))
    with refused(f"{ZIP}: mini_speech_commands/no/a.wav: is packed by method {method}; allowed: stored, deflated"):
        clips.speech_zip(path, ("no", "yes"))
    content = bytearray(path.read_bytes())
    content[80:120] = bytes(40)
    path.write_bytes(content)
    from dd.data.noted import whole

    assert whole(path) is False


def png(width, height, rows=1):
    """Return a PNG that says so of its size, with a few rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(bytes((width + 1) * rows) if width < 10**6 else b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(65_000, 65_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1), (0, 5)])
def test_pictures_that_say_they_are_huge(size):
    with bounded(), refused("a.png: is not a readable image"):
        readers.decode(png(*size), "a.png")
    with bounded(), refused("a.png: is not a readable image"):
        square(png(*size), 4, "a.png")


def test_a_picture_with_a_text_that_unpacks_to_a_gigabyte():
    head, tail = png(4, 4, 4)[:33], png(4, 4, 4)[33:]
    data = b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    with bounded(300), refused("a.png: is not a readable image"):
        readers.decode(head + chunk + tail, "a.png")


def test_forms_that_run_other_programs_are_no_images(tmp_path, monkeypatch):
    """Pillow goes by the bytes, not by the name: Encapsulated PostScript would start Ghostscript."""
    script = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(" + bytes(str(tmp_path / "marker"), "ascii") + b") (w) file\n"
    )
    assert Image.open(io.BytesIO(script)).format == "EPS", "it is one that Pillow would take"
    with guarded(monkeypatch, tmp_path):
        for read in (lambda data, name: readers.decode(data, name), lambda data, name: square(data, 4, name)):
            with refused("a.png: is not a readable image"):
                read(script, "a.png")
        for form in ("PPM", "PCX", "TGA", "ICO", "SGI"):
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4)).save(buffer, form)
            with refused("a.png: is not a readable image"):
                readers.decode(buffer.getvalue(), "a.png")


def test_an_npz_that_is_honest_and_larger_than_the_memory(tmp_path):
    file = tmp_path / "pathmnist.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (180_000, 28, 28, 3)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened, opened.open("train_images.npy", "w") as out:
        out.write(head.getvalue())
        for _ in range(180):
            out.write(bytes(1000 * 28 * 28 * 3))
    with bounded(300), refused(r"pathmnist.npz: train_images: has 4233\d+ bytes and finds no place in memory"):
        npz.pathmnist(tmp_path)


def test_images_whose_sum_is_more_than_the_memory(tmp_path):
    one = encoded(np.zeros((3, 2000, 2000), np.uint8))
    with bounded(300), refused(r"a.png: 1000 images of 2000x2000 with 3 channels have no place in memory"):
        readers.stack([("a.png", one)] * 1000, 1000, rgb=False)


@pytest.mark.parametrize("form", ["uint8", "float32"])
def test_only_the_first_two_seconds_of_a_sound_are_resampled(form):
    """An hour at another rate would become sixteen times as much; the first second is the same, bit by bit."""
    rng = np.random.default_rng(0)
    for rate in (1_000, 11_025, 44_100, 48_000):
        samples = rng.uniform(-0.9, 0.9, rate * 3)
        whole = speech.decode(wav(samples, rate, form), "a.wav")
        assert np.array_equal(whole, speech.decode(wav(samples[: 2 * rate], rate, form), "a.wav"))
        from math import gcd

        from scipy.signal import resample_poly

        stored = speech._scaled(speech._read(wav(samples, rate, form), "a.wav")[1], "a.wav")
        common = gcd(16_000, rate)
        assert np.array_equal(whole, resample_poly(stored, 16_000 // common, rate // common)[:16_000])
    long = wav(np.zeros(8_000_000), 1_000, "uint8")
    with bounded(400):  # all of it at 16 kHz would take a gigabyte
        assert speech.decode(long, "a.wav").shape == (16_000,)


def test_sounds_that_say_they_are_huge():
    content = bytearray(wav(np.zeros(100)))
    for size in (2**31, 2**32 - 1):  # of the samples; programs that do not know it write the latter
        content[40:44] = struct.pack("<I", size)
        with bounded():
            assert np.array_equal(speech.decode(bytes(content), "a.wav"), np.zeros(16_000))
    content = bytearray(wav(np.zeros(100)))
    content[22:24], content[32:34] = struct.pack("<H", 65_535), struct.pack("<H", 65_535)  # channels, bytes of a sample of all
    with bounded(), refused("a.wav"):
        speech.decode(bytes(content), "a.wav")


def test_matlab_files_that_lie(tmp_path):
    from scipy.io import savemat

    SAMPLES["svhn"].make(tmp_path)
    file = tmp_path / "test_32x32.mat"
    images, labels = np.zeros((32, 32, 3, 2), np.uint8), np.ones((2, 1))
    savemat(file, {"X": images, "y": labels})
    good = file.read_bytes()
    at = good.index(struct.pack("<4i", 32, 32, 3, 2))
    for shape in ((2**31 - 1, 2**31 - 1, 3, 2), (-32, -32, 3, 2), (2**20, 2**10, 3, 2), (32, 32, 3, 100)):
        file.write_bytes(good[:at] + struct.pack("<4i", *shape) + good[at + 16 :])
        with bounded(), refused("test_32x32.mat: (X is|is truncated or damaged|y is)"):
            official.svhn_mat(tmp_path)
    for wrong, words in (
        ({"y": np.array([["a"], ["b"]])}, "y is char"), ({"y": np.array([1, "x"], dtype=object)}, "y is cell"), ({"y": {"a": 1}}, "y is struct"),
        ({"y": np.array([1.0, np.nan])}, "numbers from 1 to 10"), ({"y": np.array([1, 11])}, "numbers from 1 to 10"), ({"y": np.ones(3)}, "for each of 2"),
        ({"X": images.astype(object)}, "X is cell"), ({"X": images[..., 0]}, "must be uint8"),
    ):  # fmt: skip
        savemat(file, {"X": images, "y": labels, **wrong})
        with refused(f"test_32x32.mat: .*{words}"):
            official.svhn_mat(tmp_path)


def safetensors(text, length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"{}", 2**63), safetensors(b"{}", 2**64 - 1), safetensors(b"{}", 99_999_999), safetensors(b"[" * 100_000), b"", b"\0" * 7,
        safetensors(b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        safetensors(b'{"x":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}') + bytes(8),
        safetensors(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + bytes(4),
        safetensors(json.dumps({"__metadata__": {"dd": "[" * 100_000}}).encode()),
        safetensors(json.dumps({"__metadata__": {"dd": '{"meta":' * 50_000 + "1" + "}" * 50_000}}).encode()),
        safetensors(json.dumps({"__metadata__": {"dd": "[]"}}).encode()), safetensors(json.dumps({"__metadata__": {"dd": "null"}}).encode()),
        safetensors(json.dumps({"__metadata__": {"dd": '{"meta":1,"sha256":2}'}}).encode()),
        safetensors(json.dumps({"__metadata__": {"dd": '{"meta":{},"sha256":"\\ud800"}'}}).encode()),
    ],
    ids=range(15),
)  # fmt: skip
def test_headers_that_lie(content, tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    for read in (load_tensors, lambda path: read_meta(path)["x"]):
        with bounded(), pytest.raises((ArtifactError, KeyError), match=r"a\.safetensors|x") as caught:
            read(file)
        assert read is not load_tensors or isinstance(caught.value, ArtifactError)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 499, "\ud83d", "1" * 10_000, "\0", ""])
def test_json_that_is_too_deep_or_none(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with refused("a.json: is not readable JSON", ArtifactError):
        read_json(tmp_path / "a.json")


def test_class_names_in_parquet_that_are_no_names(tmp_path):
    for names in ("[" * 100_000, json.dumps({"info": {"features": {"label": {"names": 5}}}}), "[]", '{"info": []}', "\ud83d"):
        metadata = {b"huggingface": names.encode(errors="surrogatepass")}
        for split in ("train", "test"):
            table = pa.table({"img": [encoded(np.zeros((3, 4, 4), np.uint8))], "label": [0]})
            pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{split}.parquet")
        assert readers.parquet(tmp_path)[0].class_names is None


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {0}']", "a: !!python/object/new:pathlib.Path ['{0}']", "!!python/name:os.system",
        "!!python/module:os", "a: !!python/object:pathlib.Path {{}}", "? !!python/object/apply:os.system ['touch {0}']\n: 1",
        "a: !!binary x", "a: !!timestamp x", "a: !!int x", "a: !!float x", "a: !!bool x", "a: 2001-99-99", "a: !!omap x", "a: !<!x> y",
        "a: &a [*a]", "a: &a {{b: *a}}", "? [1]\n: 2", "{{[1]: 2, [1]: 3}}", "a: 1\na: 2", "a: *b", "- 1", "3", "", "a: {1}",
        "\0", "a: \udcff", "%YAML 9.9\n---\na: 1", "--- a\n--- b",
    ],
)  # fmt: skip
def test_yaml_that_is_none(text, tmp_path):
    marker = tmp_path / "marker"
    file = tmp_path / "config.yaml"
    file.write_bytes(text.format(marker, "9" * 5000).encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        load_yaml(file)
    assert not marker.exists()


def test_yaml_bombs(tmp_path):
    file = tmp_path / "config.yaml"
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    merges = ["a0: &a0 {x: 1, y: 2}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    for text, words in (("\n".join(laughs), "more than"), ("\n".join(merges), "more than"), ("a: " + "[" * 50_000, "brackets in brackets")):
        file.write_text(text)
        with bounded(), refused(f"config.yaml: .*{words}", ConfigError):
            load_yaml(file)
    file.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert load_yaml(file) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
