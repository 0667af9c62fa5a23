"""Writes the same small images in every form that dd reads, and serves files over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dd.data.registry import DATASETS, Download


def some_images(classes: int, channels: int, size: tuple[int, int], train: int = 3, test: int = 2, seed: int = 0):
    """Return {split: (images, labels)}: `train` and `test` images a class, in a shuffled order."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, each in (("train", train), ("test", test)):
        labels = rng.permutation(np.repeat(np.arange(classes), each))
        made[split] = (rng.integers(0, 256, (len(labels), channels, *size), dtype=np.uint8), labels.astype(np.int64))
    return made


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def write_folder(root: Path, data, names: list[str]) -> Path:
    for split, (images, labels) in data.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = root / split / names[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(image))
    return root


def write_parquet(root: Path, data, names: list[str] | None = None, image="img", label="label", shards=2, form="PNG", struct=True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    metadata = None
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, (images, labels) in data.items():
        for shard in range(shards):
            cells = [encoded(x, form) for x in images[shard::shards]]
            columns = {image: [{"bytes": c, "path": None} for c in cells] if struct else cells, label: labels[shard::shards].tolist()}
            name = f"{split}.parquet" if shards == 1 else f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            pq.write_table(pa.table(columns).replace_schema_metadata(metadata), root / name)
    return root


def write_idx(root: Path, data, packed: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = data[split]
        for name, array in ((f"{prefix}-images-idx3-ubyte", images[:, 0]), (f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8))):
            raw = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            (root / (name + ".gz" if packed else name)).write_bytes(gzip.compress(raw) if packed else raw)
    return root


def cifar_members(data, classes: int) -> dict[str, bytes]:
    def records(images, labels):
        before = [b""] * len(labels) if classes == 10 else [bytes([label // 5]) for label in labels]
        return b"".join(b + bytes([label]) + x.tobytes() for b, label, x in zip(before, labels, images, strict=True))

    if classes == 100:
        return {f"cifar-100-binary/{split}.bin": records(*data[split]) for split in ("train", "test")}
    images, labels = data["train"]
    batches = zip(np.array_split(images, 5), np.array_split(labels, 5), strict=True)
    members = {f"cifar-10-batches-bin/data_batch_{n}.bin": records(*batch) for n, batch in enumerate(batches, 1)}
    return {"cifar-10-batches-bin/readme.html": b"<html>", "cifar-10-batches-bin/test_batch.bin": records(*data["test"]), **members}


def write_tar(path: Path, members: dict[str, bytes], special: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info in special:
            tar.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_mat(root: Path, data) -> Path:
    from scipy.io import savemat

    for split, (images, labels) in data.items():
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(root / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y}, do_compression=True)
    return root


def write_npz(file: Path, data, size: int = 28) -> Path:
    """Write images (n, 3, 28, 28) as MedMNIST does, with a val split of other images."""
    arrays = {"val_images": np.full((4, size, size, 3), 9, np.uint8), "val_labels": np.zeros((4, 1), np.uint8)}
    for split, (images, labels) in data.items():
        arrays |= {f"{split}_images": images.transpose(0, 2, 3, 1), f"{split}_labels": labels.astype(np.uint8)[:, None]}
    np.savez_compressed(file, **arrays)
    return file


def enlarged(images: np.ndarray) -> np.ndarray:
    """Return 32x32 of 28x28: bilinear at pixel centres, columns first, each pass rounded half up. All weights are sixteenths."""
    for axis in (3, 2):
        lines = []
        for new in range(32):
            centre = 14 * new - 1  # in sixteenths of an old pixel: 16 * ((new + 1/2) * 28/32 - 1/2)
            low, share = divmod(centre, 16)
            before, after = (images.take(min(max(at, 0), 27), axis).astype(np.int64) for at in (low, low + 1))
            lines.append(((16 - share) * before + share * after + 8) // 16)
        images = np.stack(lines, axis)
    return images.astype(np.uint8)


def tiny_members(wnids: list[str], train: int = 3, test: int = 2, grey: tuple[int, ...] = (0,), root: str = "tiny-imagenet-200/"):
    """Return (images, members) of Tiny ImageNet's archive: labels by sorted wnids, the images numbered `grey` of a split without colour."""
    rng = np.random.default_rng(0)
    members = {f"{root}wnids.txt": "".join(f"{wnid}\n" for wnid in wnids).encode(), f"{root}words.txt": b"n01443537\tgoldfish\n"}
    data, lines = {}, []
    for split, each in (("train", train), ("test", test)):
        labels = rng.permutation(np.repeat(np.arange(len(wnids)), each))
        images = np.empty((len(labels), 3, 64, 64), np.uint8)
        for number, label in enumerate(labels):
            coarse = rng.integers(0, 256, (8, 8) if number in grey else (8, 8, 3), dtype=np.uint8)
            buffer, wnid = io.BytesIO(), wnids[label]
            Image.fromarray(coarse).resize((64, 64)).save(buffer, "JPEG")
            images[number] = np.asarray(Image.open(buffer).convert("RGB")).transpose(2, 0, 1)
            file = f"train/{wnid}/images/{wnid}_{number}.JPEG" if split == "train" else f"val/images/val_{number}.JPEG"
            members[root + file] = buffer.getvalue()
            lines += [f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n"] if split == "test" else []
        members |= {f"{root}train/{wnid}/{wnid}_boxes.txt": b"" for wnid in wnids}
        data[split] = (images, np.argsort(np.argsort(wnids))[labels])
    members[f"{root}val/val_annotations.txt"] = "".join(lines).encode()
    members[f"{root}test/images/test_0.JPEG"] = b"has no label"
    return data, members


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def some_wnids(count: int) -> list[str]:
    """Return wnids that are not sorted."""
    return [f"n{(k * 7919 + 104729) % 10**8:08d}" for k in np.random.default_rng(1).permutation(count)]


def official(name: str, folder: Path) -> tuple[dict, dict[str, bytes]]:
    """Return (images, files) of a small dataset in the form of the official download of `name`."""
    spec = DATASETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    if spec.layout == "pathmnist":
        small = some_images(len(spec.classes), 3, (28, 28))
        file = write_npz(folder / spec.downloads[0].file, small)
        return {split: (enlarged(images), labels) for split, (images, labels) in small.items()}, {file.name: file.read_bytes()}
    if spec.layout == "tiny_imagenet":
        data, members = tiny_members(some_wnids(len(spec.classes)))
        file = write_zip(folder / spec.downloads[0].file, members)
        return data, {file.name: file.read_bytes()}
    data = some_images(len(spec.classes), spec.channels, spec.size)
    if spec.layout == "idx":
        write_idx(folder, data)
    elif spec.layout == "svhn":
        write_mat(folder, data)
    elif spec.layout == "cifar":
        write_tar(folder / spec.downloads[0].file, cifar_members(data, len(spec.classes)))
    return data, {item.file: (folder / item.file).read_bytes() for item in spec.downloads}


def pretend(monkeypatch, name: str, data, files: dict[str, bytes] | None = None, mirrors: tuple[str, ...] = ()) -> None:
    """Register `name` with the counts of `data`, no fingerprint, and `files` under the mirrors."""
    downloads = tuple(
        Download(file, tuple(f"{mirror}/{file}" for mirror in mirrors), f"md5:{hashlib.md5(content).hexdigest()}")
        for file, content in (files or {}).items()
    )
    spec = DATASETS[name]
    counts = {split: len(labels) for split, (_, labels) in data.items()}
    monkeypatch.setitem(DATASETS, name, replace(spec, downloads=downloads or spec.downloads, fingerprint=None, **counts))


class Host:
    """What a test's HTTP server has, and what it was asked.

    files: content by path. ranges: whether it answers to Range. cut: after how many bytes it hangs up, by path, once each.
    headers: more headers of every answer. asked: (path, Range or None), in order.
    """

    def __init__(self, url: str) -> None:
        self.url, self.files, self.ranges, self.cut = url, {}, True, {}
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []


@contextmanager
def serving():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            host.asked.append((self.path, asked))
            if self.path not in host.files:
                self.send_error(404)
                return
            content, start = host.files[self.path], 0
            if asked and host.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            for key, value in host.headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[start : host.cut.pop(self.path, len(content))])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = Host(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
