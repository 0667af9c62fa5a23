"""No room, no permission, no data: a clear error, nothing half done, nothing lost; with the cause mended, the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from damage import cut, flip
from faulty import KINDS, Faulty, job_of
from zygote import Ended, Zygote

from dd.plan.job import Job

MORE = pytest.mark.faults


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 1, ended
    assert "Traceback" not in ended.text, ended.text
    assert [word for word in words if word not in ended.text] == [], ended.text


def mended(project: Faulty, job: Job, wanted: dict[str, bytes]) -> None:
    ended = project.do(job)
    assert ended.code == 0, ended.text
    assert project.bytes_of(job) == wanted
    assert project.strays() == [] and project.leftovers() == []


def some(chance: random.Random, kills: int) -> list[str]:
    """Return as many kinds of jobs; all, if there are no more."""
    return chance.sample(sorted(KINDS), min(kills, len(KINDS)))


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[bool]:
    """Mount something at a folder for a while, if that is permitted; tell whether it is."""
    done = os.geteuid() == 0 and subprocess.run(["mount", *options, folder], capture_output=True, timeout=30).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", folder], check=True, timeout=30)


def test_a_full_disk(tmp_path: Path, whole: Faulty, zygote: Zygote, kills: int, chance: random.Random) -> None:
    """Each kind of job with a random bit of room, on a small disk of its own; without the right to mount one, with a limit on files."""
    folder, tried = tmp_path / "small", 0
    folder.mkdir()
    size = sum(path.stat().st_size // 4096 + 2 for path in whole.root.rglob("*")) * 4096
    with mounted(folder, "-t", "tmpfs", "-o", f"size={2 * size}", "tmpfs") as small:
        project = Faulty(folder / "project", zygote, made=True)
        shutil.copytree(whole.root, project.root)
        for kind in some(chance, kills):
            job = job_of(whole, kind)
            wanted, filler = whole.bytes_of(job), folder / "filler"
            sizes = [(whole.root / path).stat().st_size for path in job.outputs]
            project.unmake(job)
            room = chance.randrange(sum(sizes) if small else max(sizes))
            if small:
                free = os.statvfs(folder)
                with filler.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)
            ended = project.do(job, **({} if small else {"largest": room}))
            found = project.bytes_of(job)
            assert [path for path in found if found[path] != wanted[path]] == [], f"{kind}, {room} bytes: half a file has a final name"
            filler.unlink(missing_ok=True)
            if ended.code:
                refused(ended, "No space left" if small else "File too large", str(Path(job.outputs[0]).parent))
                tried += 1
            assert project.strays() == []
            mended(project, job, wanted)
    print(f"{tried} jobs ran out of room, {'tmpfs' if small else 'limit on files'}")
    assert tried


@pytest.mark.parametrize("share", [0.0, 0.4, *(pytest.param(share, marks=MORE) for share in (0.1, 0.2, 0.6, 0.8, 0.95))])
def test_a_paper_on_a_full_disk(share: float, copy: Faulty, whole: Faulty) -> None:
    """Each of its formats has a writer of its own, each with an idea of its own of what an error is."""
    job = job_of(whole, "artifact")
    wanted = whole.bytes_of(job)
    copy.unmake(job)
    refused(copy.do(job, largest=int(share * max(map(len, wanted.values())))), "results/papers/paper/faulty/", "cannot be written: File too large")
    found = copy.bytes_of(job)
    assert [path for path in found if found[path] != wanted[path]] == []
    mended(copy, job, wanted)


def test_an_error_at_any_write(copy: Faulty, whole: Faulty, kills: int, chance: random.Random) -> None:
    """The disk fails once, at a random point of a job that writes again and again."""
    import errno

    for kind in some(chance, kills):
        job = job_of(whole, kind)
        wanted = whole.bytes_of(job)
        copy.unmake(job)
        ended = copy.do(job, write=chance.randint(1, whole.writes[job.outputs[0]]), errno=chance.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT]))
        found = copy.bytes_of(job)
        assert [path for path in found if found[path] != wanted[path]] == [], f"{kind}: half a file has a final name"
        assert ended.code in (0, 1) and "Traceback" not in ended.text, ended.text  # 0: what could not be written was no result
        mended(copy, job, wanted)


@pytest.mark.parametrize("kind", ["pretrain", "distill, steps", *(pytest.param(kind, marks=MORE) for kind in ("prepare", "evaluate", "artifact"))])
def test_results_that_are_read_only(kind: str, copy: Faulty, whole: Faulty) -> None:
    job = job_of(whole, kind)
    wanted, folder = whole.bytes_of(job), copy.root / Path(job.outputs[0]).parts[0]
    copy.unmake(job)
    with mounted(folder, "--bind", str(folder)) as bound:
        if bound:
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, timeout=30)
        elif os.geteuid():
            subprocess.run(["chmod", "-R", "a-w", folder], check=True, timeout=30)
        else:
            pytest.skip("root, who writes everywhere, may not mount here")
        ended = copy.do(job)
        refused(ended, str(Path(job.outputs[0]).parent), "Read-only" if bound else "Permission denied")
        assert copy.bytes_of(job) == {}
    if not bound:
        subprocess.run(["chmod", "-R", "u+w", folder], check=True, timeout=30)
    mended(copy, job, wanted)


def test_inputs_that_are_damaged_or_gone(copy: Faulty, whole: Faulty, kills: int, chance: random.Random) -> None:
    """A job names the file, says what to do, and writes nothing; files that nobody reads do no harm."""
    tried = 0
    for kind in some(chance, kills):
        job = job_of(whole, kind)
        wanted = whole.bytes_of(job)
        for path in chance.sample(job.inputs, min(kills, len(job.inputs))):
            ways: list[Callable[[Path, random.Random], None] | None] = [flip, cut] if path.endswith(".safetensors") else [cut]
            way = chance.choice(ways if kind == "artifact" else [*ways, None])  # a paper is drawn without what is missing, and says so
            full = copy.root / path
            content = full.read_bytes()
            copy.unmake(job)
            way(full, chance) if way else full.unlink()
            ended = copy.do(job)
            if ended.code:
                refused(ended, path)
                left = copy.bytes_of(job)  # of a paper, what was drawn before
                assert [file for file in left if left[file] != wanted[file]] == [] and len(left) < len(wanted), f"{kind} without {path}"
                if way:
                    assert "delete" in ended.text, ended.text
                tried += 1
            else:
                assert copy.bytes_of(job) == wanted, f"{kind}: nobody saw what happened to {path}"
            full.write_bytes(content)
        mended(copy, job, wanted)
    print(f"{tried} inputs damaged or gone")


@pytest.mark.parametrize(
    "kind", ["pretrain", "distill, steps", *(pytest.param(kind, marks=MORE) for kind in ("whiten", "experts", "generator", "evaluate", "analyse"))]
)
def test_a_dataset_that_vanished(kind: str, copy: Faulty, whole: Faulty) -> None:
    job = job_of(whole, kind)
    before = {name: content for name, content in copy.results().items() if name not in job.outputs and not name.startswith("data/")}
    copy.unmake(job)
    shutil.rmtree(copy.root / "data/prepared/digits")
    refused(copy.do(job), "data/prepared/digits/manifest.json", "no such file")
    assert copy.bytes_of(job) == {}
    after = copy.results()
    assert {name for name in before if after.get(name) != before[name]} == set()
    shutil.copytree(whole.root / "data/prepared/digits", copy.root / "data/prepared/digits")
    mended(copy, job, whole.bytes_of(job))


def test_a_source_that_vanished(tmp_path: Path, zygote: Zygote) -> None:
    """What was prepared of it stays, and preparing it again says what is gone."""
    from PIL import Image

    source, kept = tmp_path / "pictures", tmp_path / "kept"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (source / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (16, 16), (number * 20, len(name + split) * 9, ord(name[0]))).save(source / split / name / f"{number}.png")
    argv = ["prepare", "--config", "-", "--name", "mine", "--raw", "data/raw/mine", "--out", "data/prepared/mine"]
    config = f'{{"source": {{"kind": "folder", "path": "{source}"}}}}'
    assert zygote.run(tmp_path, argv, config).code == 0
    results = lambda: {path.name: path.read_bytes() for path in (tmp_path / "data/prepared/mine").iterdir() if path.name != "run.json"}  # noqa: E731
    before = results()
    source.rename(kept)
    refused(zygote.run(tmp_path, argv, config), str(source))
    assert results() == before
    kept.rename(source)
    picture = source / "train/dog/1.png"
    content = picture.read_bytes()
    for broken in (content[:20], b""):
        picture.write_bytes(broken)
        refused(zygote.run(tmp_path, argv, config), str(picture))
        assert results() == before
    picture.write_bytes(content)
    assert zygote.run(tmp_path, argv, config).code == 0
    assert results() == before
