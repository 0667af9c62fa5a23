"""Readers on damaged, incomplete and strange files: every message names the file and what is wrong."""

import gzip
import io
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import cifar_members, encoded, some_images, write_folder, write_idx, write_mat, write_parquet, write_tar
from PIL import Image

from dd.data.official import cifar_binary, svhn_mat
from dd.data.readers import decode, folder, idx, parquet
from dd.errors import DataError

NAMES = ["cat", "dog", "eel"]


@pytest.fixture(scope="module")
def data():
    return some_images(3, 3, (8, 6))


@pytest.fixture(scope="module")
def grey():
    return some_images(3, 1, (8, 6))


def refused(*words):
    """Expect a DataError that holds all these words, in this order."""
    return pytest.raises(DataError, match="(?s)" + ".*".join(map(re.escape, map(str, words))))


def png(mode, value, size=(6, 8), form="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, form)
    return buffer.getvalue()


# -- images -------------------------------------------------------------------------------------------------------------


def test_decode_gives_one_channel_for_grey_and_three_for_colour():
    assert decode(png("L", 7), "x").tolist() == [[[7]] * 6] * 8
    assert decode(png("LA", (7, 255)), "x").shape == (8, 6, 1)
    assert decode(png("1", 1), "x").tolist() == [[[255]] * 6] * 8
    for mode, value in (("RGB", (1, 2, 3)), ("RGBA", (1, 2, 3, 255))):
        assert decode(png(mode, value), "x")[0, 0].tolist() == [1, 2, 3]
    palette = Image.new("RGB", (6, 8), (1, 2, 3)).quantize()
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    assert decode(buffer.getvalue(), "x")[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not an image", "not a readable image"),
        (png("RGB", (1, 2, 3))[:-30], "not a readable image"),
        (b"", "not a readable image"),
        (png("I;16", 300), "8 bits a channel"),
        (png("RGBA", (1, 2, 3, 0)), "transparent"),
        (png("LA", (1, 254)), "transparent"),
    ],
    ids=["text", "truncated", "empty", "16 bit", "RGBA", "LA"],
)
def test_decode_refuses(content, words):
    with refused("a/b.png", words):
        decode(content, "a/b.png")


# -- parquet ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize(("image", "label", "shards", "struct"), [("img", "label", 2, True), ("image", "fine_label", 1, False)])
def test_parquet_layouts(form, image, label, shards, struct, data, tmp_path):
    write_parquet(tmp_path, data, NAMES, image, label, shards, form, struct)
    for found, (images, labels) in zip(parquet(tmp_path), data.values(), strict=True):
        order = np.concatenate([np.arange(len(labels))[n::shards] for n in range(shards)])
        assert found.images.dtype == np.uint8 and found.labels.dtype == np.int64
        assert np.array_equal(found.images, images[order]) and np.array_equal(found.labels, labels[order])
        assert found.class_names == NAMES


def test_parquet_prefers_label_and_ignores_other_columns(data, tmp_path):
    write_parquet(tmp_path, data, shards=1)
    for split, (_, labels) in data.items():
        file = tmp_path / f"{split}.parquet"
        pq.write_table(pq.read_table(file).append_column("fine_label", pa.array(labels * 0)), file)
    assert np.array_equal(parquet(tmp_path)[0].labels, data["train"][1]) and parquet(tmp_path)[0].class_names is None


def test_parquet_without_labels(data, tmp_path):
    write_parquet(tmp_path, data, label="coarse_label")
    with refused(tmp_path / "train-00000-of-00002.parquet", "no column 'label' or 'fine_label'", "img, coarse_label"):
        parquet(tmp_path)


def test_parquet_without_images(data, tmp_path):
    write_parquet(tmp_path, data, image="picture")
    with refused("train-00000", "no column 'img' or 'image'", "picture"):
        parquet(tmp_path)


@pytest.mark.parametrize(
    ("labels", "words"), [(["cat", "dog"], "column 'label' holds string"), ([0.5, 1.0], "holds double"), ([0, None], "1 labels are empty")]
)
def test_parquet_with_labels_that_are_no_numbers(labels, words, tmp_path):
    pq.write_table(pa.table({"img": [png("L", 1)] * 2, "label": labels}), tmp_path / "train.parquet")
    with refused(tmp_path / "train.parquet", words):
        parquet(tmp_path)


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": "elsewhere.png"}])
def test_parquet_with_empty_cells(cell, tmp_path):
    good = {"bytes": png("L", 1), "path": None}
    pq.write_table(pa.table({"img": [good, cell], "label": [0, 1]}), tmp_path / "train.parquet")
    with refused(tmp_path / "train.parquet", "row 1", "no bytes of an image"):
        parquet(tmp_path)


def test_parquet_truncated(data, tmp_path):
    write_parquet(tmp_path, data)
    file = tmp_path / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with refused(file, "truncated"):
        parquet(tmp_path)


def test_parquet_missing_files(data, tmp_path):
    with refused(tmp_path, "neither train.parquet nor train-*.parquet"):
        parquet(tmp_path)
    write_parquet(tmp_path, data, shards=3)
    (tmp_path / "test-00001-of-00003.parquet").unlink()
    with refused(tmp_path, "test-00001-of-00003.parquet is missing"):
        parquet(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"")
    with refused(tmp_path, "train.parquet", "are not the shards of one train split"):
        parquet(tmp_path)


def test_parquet_with_images_of_mixed_sizes(tmp_path):
    pq.write_table(pa.table({"img": [png("L", 1), png("L", 1, (5, 5))], "label": [0, 1]}), tmp_path / "train.parquet")
    with refused("train.parquet: row 1: image of 5x5 with 1 channel", "row 0 has 6x8 with 1 channel", "resize"):
        parquet(tmp_path)


# -- folders ------------------------------------------------------------------------------------------------------------


def test_folder_follows_sorted_names(data, tmp_path):
    write_folder(tmp_path, data, ["eel", "cat", "dog"])
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    train, test = folder(tmp_path)
    assert train.class_names == test.class_names == NAMES
    assert np.bincount(train.labels).tolist() == [3, 3, 3] and np.bincount(test.labels).tolist() == [2, 2, 2]
    cats = data["train"][0][data["train"][1] == 1]
    assert sorted(x.tobytes() for x in train.images[train.labels == 0]) == sorted(x.tobytes() for x in cats)


def test_folder_sorts_numbers_as_numbers(tmp_path):
    write_folder(tmp_path, some_images(11, 1, (4, 4)), [str(c) for c in range(11)])
    assert folder(tmp_path)[0].class_names == [str(c) for c in range(11)]


def test_folder_of_registered_classes_follows_the_registry(data, tmp_path):
    write_folder(tmp_path / "named", data, ["eel", "cat", "dog"])
    assert folder(tmp_path / "named", ("eel", "cat", "dog"))[0].class_names == ["eel", "cat", "dog"]
    write_folder(tmp_path / "numbered", data, ["0", "1", "2"])
    assert folder(tmp_path / "numbered", ("eel", "cat", "dog"))[0].class_names == ["0", "1", "2"]
    with refused(tmp_path / "named/train", "'eel' is no class; did you mean 'eels'", "0 to 2"):
        folder(tmp_path / "named", ("eels", "cat", "dog"))
    with refused("no folder 'bat'"):
        folder(tmp_path / "named", ("eel", "cat", "dog", "bat"))


def test_folder_mistakes(data, tmp_path):
    with refused(tmp_path / "train", "no such folder"):
        folder(tmp_path)
    (tmp_path / "train").mkdir()
    with refused(tmp_path / "train", "no folder for any class"):
        folder(tmp_path)
    write_folder(tmp_path, data, NAMES)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogs")
    with refused(tmp_path, "'dog' is a class in only one of train and test"):
        folder(tmp_path)
    (tmp_path / "test" / "dogs").rename(tmp_path / "test" / "dog")
    (tmp_path / "train" / "eel" / "zz.png").write_bytes(encoded(data["train"][0][0][:, :7]))
    with refused("eel/zz.png", "6x7 with 3 channels", "6x8"):
        folder(tmp_path)
    (tmp_path / "train" / "eel" / "zz.png").write_bytes(b"")
    with refused("eel/zz.png", "not a readable image"):
        folder(tmp_path)
    for file in (tmp_path / "train" / "cat").iterdir():
        file.unlink()
    with refused(tmp_path / "train" / "cat", "has no images", ".png"):
        folder(tmp_path)


# -- idx ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_idx(packed, grey, tmp_path):
    write_idx(tmp_path, grey, packed)
    for found, (images, labels) in zip(idx(tmp_path), grey.values(), strict=True):
        assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
        assert found.labels.dtype == np.int64


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_idx_truncated(share, grey, tmp_path):
    write_idx(tmp_path, grey)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    packed, plain = file.read_bytes(), gzip.decompress(file.read_bytes())
    file.write_bytes(packed[: int(len(packed) * share)])
    with refused(file, "truncated"):
        idx(tmp_path)
    file.write_bytes(gzip.compress(plain[: 16 + int((len(plain) - 16) * share)]))
    with refused(file, "is truncated", "expected for shape (9, 8, 6)"):
        idx(tmp_path)


def test_idx_damaged(grey, tmp_path):
    write_idx(tmp_path, grey)
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed = bytearray(file.read_bytes())
    for position in range(12, len(packed), 7):
        packed[position] ^= 0x5A
    file.write_bytes(bytes(packed))
    with refused(file, "truncated or damaged"):
        idx(tmp_path)
    file.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(100)))  # floats
    with refused(file, "not an idx file of unsigned bytes with 3 dimensions"):
        idx(tmp_path)
    file.unlink()
    with refused(tmp_path, "neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz"):
        idx(tmp_path)


# -- official archives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_binary(classes, tmp_path):
    made = some_images(classes, 3, (32, 32), 2, 1)
    archive = write_tar(tmp_path / "a.tar.gz", cifar_members(made, classes))
    for found, (images, labels) in zip(cifar_binary(archive, classes), made.values(), strict=True):
        assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)


def test_cifar_binary_damaged(tmp_path):
    members = cifar_members(some_images(10, 3, (32, 32), 2, 1), 10)
    archive = tmp_path / "a.tar.gz"
    with refused(archive, "no such file"):
        cifar_binary(archive, 10)
    whole = write_tar(archive, members).read_bytes()
    for share in (0.001, 0.2, 0.5, 0.9):
        archive.write_bytes(whole[: int(len(whole) * share)])
        with refused(archive, "truncated or damaged", "delete it"):
            cifar_binary(archive, 10)
    write_tar(archive, {name: content for name, content in members.items() if "batch_4" not in name})
    with refused(archive, "no regular file cifar-10-batches-bin/data_batch_4.bin"):
        cifar_binary(archive, 10)
    write_tar(archive, members | {"cifar-10-batches-bin/test_batch.bin": bytes(3074)})
    with refused(archive, "test_batch.bin: 3074 bytes", "records of 3073"):
        cifar_binary(archive, 10)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archives_are_never_extracted(kind, tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3073))
    members = cifar_members(some_images(10, 3, (32, 32), 2, 1), 10)
    bad = {"../../planted": b"!", str(tmp_path / "absolute"): b"!", "../cifar-10-batches-bin/test_batch.bin": bytes(3073)}
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = kind, str(secret)
    before = sorted(tmp_path.rglob("*"))
    archive = write_tar(inside / "x.tar.gz", {**bad, **members})
    train, test = cifar_binary(archive, 10)
    assert len(train.labels) == 20 and len(test.labels) == 10
    del members["cifar-10-batches-bin/test_batch.bin"]
    write_tar(archive, {**bad, **members}, (link,))
    with refused(archive, "no regular file cifar-10-batches-bin/test_batch.bin"):
        cifar_binary(archive, 10)
    archive.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_svhn_mat(tmp_path):
    made = some_images(10, 3, (32, 32), 2, 1)
    write_mat(tmp_path, made)
    for found, (images, labels) in zip(svhn_mat(tmp_path), made.values(), strict=True):
        assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
    file = tmp_path / "test_32x32.mat"
    file.write_bytes(file.read_bytes()[:3000])
    with refused(file, "truncated or damaged"):
        svhn_mat(tmp_path)
    from scipy.io import savemat

    savemat(file, {"X": made["test"][0].astype(float), "y": made["test"][1]})
    with refused(file, "X is float64", "must be uint8"):
        svhn_mat(tmp_path)
    savemat(file, {"X": made["test"][0]})
    with refused(file, "no variable y"):
        svhn_mat(tmp_path)
    file.unlink()
    with refused(file, "no such file"):
        svhn_mat(tmp_path)
