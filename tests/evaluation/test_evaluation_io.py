"""Sets and scores, to disk and back."""

import json

import pytest
import torch

from dd.artifacts import save_tensors, write_json
from dd.config import digest
from dd.data.load import manifest
from dd.errors import ArtifactError
from dd.evaluation.io import check_identity, read_distilled, read_scores, write_distilled, write_scores
from dd.types import DistilledSet, Score


def make(digits_dir, *, soft=False, indices=False, step_size=None, zca=False):
    g = torch.Generator().manual_seed(0)
    labels = torch.rand(4, 10, generator=g).softmax(1) if soft else torch.arange(4)
    images = torch.empty(0, 1, 16, 16) if indices else torch.rand(4, 1, 16, 16, generator=g) * 1.2 - 0.1
    meta = {"dataset": "digits", "fingerprint": manifest(digits_dir)["fingerprint"], "method": "dm"}
    positions = torch.tensor([3, 1, 4, 15]) if indices else None
    return DistilledSet(images, labels, torch.tensor([0.3]), torch.tensor([0.4]), positions, step_size, meta, zca=zca)


@pytest.mark.parametrize("kind", [{}, {"soft": True}, {"indices": True}, {"step_size": 0.03}, {"zca": True}])
def test_a_set_comes_back_as_it_was(digits_dir, tmp_path, kind):
    made = make(digits_dir, **kind)
    path = tmp_path / "distilled.safetensors"
    write_distilled(path, made)
    first = path.read_bytes()
    for found in (read_distilled(path), read_distilled(path, digits_dir)):
        for key in ("images", "labels", "mean", "std"):
            assert torch.equal(getattr(found, key), getattr(made, key)), key
            assert getattr(found, key).dtype == getattr(made, key).dtype
        assert (found.indices is None) == (made.indices is None)
        assert found.indices is None or torch.equal(found.indices, made.indices)
        assert (found.step_size, found.meta) == (made.step_size, made.meta)
        assert found.zca is made.zca is kind.get("zca", False)
        write_distilled(path, found)
        assert path.read_bytes() == first, "written again it has the same bytes"


def test_a_set_that_is_not_whitened_has_the_bytes_that_it_always_had(digits_dir, tmp_path):
    made = make(digits_dir)
    write_distilled(tmp_path / "set", made)
    tensors = {"images": made.images, "labels": made.labels, "mean": made.mean, "std": made.std}
    save_tensors(tmp_path / "old", tensors, {**made.meta, "step_size": None})
    assert (tmp_path / "old").read_bytes() == (tmp_path / "set").read_bytes()
    assert read_distilled(tmp_path / "old").zca is False


@pytest.mark.parametrize("size", [float("nan"), float("inf")])
def test_a_step_size_that_is_no_number_is_not_kept(digits_dir, tmp_path, size):
    write_distilled(tmp_path / "set", make(digits_dir, step_size=size))
    assert read_distilled(tmp_path / "set").step_size is None


def test_images_are_stored_as_float32(digits_dir, tmp_path):
    made = make(digits_dir)
    made.images = made.images.double()
    write_distilled(tmp_path / "set", made)
    assert read_distilled(tmp_path / "set").images.dtype == torch.float32


def test_a_set_of_other_images_is_refused(digits_dir, tmp_path):
    made = make(digits_dir)
    made.meta["fingerprint"] = "0"
    write_distilled(tmp_path / "set", made)
    read_distilled(tmp_path / "set")
    with pytest.raises(ArtifactError, match=r"set: was made from other images .* distil again"):
        read_distilled(tmp_path / "set", digits_dir)


def test_damage_is_named(digits_dir, tmp_path):
    path = tmp_path / "set"
    write_distilled(path, make(digits_dir))
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        read_distilled(path)
    save_tensors(path, {"images": torch.zeros(1)}, {"step_size": None})
    with pytest.raises(ArtifactError, match=r"not a distilled set.*'labels'"):
        read_distilled(path)
    short = make(digits_dir, indices=True)
    short.labels = short.labels[:3]
    write_distilled(path, short)
    with pytest.raises(ArtifactError, match="4 images, but 3 labels"):
        read_distilled(path)
    with pytest.raises(ArtifactError, match="no such file"):
        read_distilled(tmp_path / "none")


def test_scores_are_canonical_and_rounded(tmp_path):
    scores = [
        Score("convnet3_in", "dc", 0, 1, 1 / 3, 2 / 3, [0.1234567, 1.0]),
        Score("convnet3_in", "dc", 0, 2, 0.0, 0.0, [0.0, 0.0], "diverged", {"step": 3, "loss": "nan", "grad_norm": 1e30}),
    ]
    path = tmp_path / "set0-nets1-2.json"
    write_scores(path, {"settings": {"lr": 0.123456789}}, scores)
    text = path.read_text()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, separators=(",", ":"))
    assert data["config"]["settings"]["lr"] == 0.123456789, "configurations are not rounded"
    found = read_scores(path)
    assert (found[0].accuracy_last, found[0].accuracy_best_on_test, found[0].per_class) == (0.333333, 0.666667, [0.123457, 1.0])
    assert found[1] == scores[1]
    write_scores(path, {"settings": {"lr": 0.123456789}}, found)
    assert path.read_text() == text


@pytest.mark.parametrize("content", ["{}", "[]", '{"scores":[{"net":0}]}', '{"scores":3}', "{", '{"scores":[{"colour":1}]}'])
def test_a_file_that_holds_no_scores_is_named(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"scores\.json"):
        read_scores(path)


def test_a_set_must_be_the_one_that_was_promised(tmp_path):
    config = {"method": "dm", "ipc": 1}
    write_json(tmp_path / "config.json", config)
    for path in (tmp_path / "distilled.safetensors", tmp_path / "steps" / "10.safetensors"):
        check_identity(path, digest(config))
        with pytest.raises(ArtifactError, match="hashes to"):
            check_identity(path, "00000000")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        check_identity(tmp_path / "distilled.safetensors", digest(config))
