"""Stretches of experts: which, where from, only what is wanted, and what is said of files that are wrong."""

import hashlib

import pytest
import torch

from dd.artifacts import save_tensors
from dd.errors import ArtifactError, ConfigError
from dd.sources import trajectories
from dd.sources.trajectories import Trajectories
from dd.train.functional import Flat

EPOCHS, P = 6, 11
ABOUT = {"fingerprint": "f", "network": "net", "lineage": "dc"}


def flat(size=P):
    return Flat(torch.nn.Linear(size - 1, 1))


def write(path, seed, epochs=EPOCHS, size=P, rows=None, hashes=None, **config):
    if rows is None:
        rows = torch.randn(epochs + 1, size, generator=torch.Generator().manual_seed(seed))
    sums = [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in rows]
    meta = {
        "config": {"network": "net", "lineage": "dc", "epochs": epochs, **config},
        "seed": seed,
        "fingerprint": "f",
        "rows": hashes or sums,
    }
    save_tensors(path, {"trajectory": rows}, meta)
    return rows


@pytest.fixture
def stored(tmp_path):
    """Five experts: (files, their rows)."""
    files = [tmp_path / f"expert{n}.safetensors" for n in range(5)]
    return files, [write(file, n) for n, file in enumerate(files)]


def where(segment, rows, span):
    """Return (expert, epoch) of a segment, after checking both its ends."""
    ((expert, t),) = [(n, t) for n, one in enumerate(rows) for t in range(len(one)) if torch.equal(one[t], segment.start)]
    assert torch.equal(segment.target, rows[expert][t + span])
    return expert, t


def test_every_expert_comes_once_in_each_pass_and_every_start_is_drawn(stored):
    files, rows = stored
    source = Trajectories(files, 2, 4, 0, flat(), ABOUT)
    found = [where(source.draw(step), rows, 2) for step in range(200)]
    passes = [[expert for expert, _ in found[k : k + 5]] for k in range(0, 200, 5)]
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len(set(map(tuple, passes))) > 10
    counts = torch.bincount(torch.tensor([t for _, t in found]), minlength=EPOCHS + 1).tolist()
    assert all(30 <= count <= 70 for count in counts[:4]) and not any(counts[4:])


def test_the_last_allowed_stretch_ends_at_the_last_row(stored):
    files, rows = stored
    source = Trajectories(files, 3, 4, 0, flat(), ABOUT)
    assert max(where(source.draw(step), rows, 3)[1] for step in range(40)) == 3


def test_it_is_a_function_of_seed_and_step(stored):
    files, rows = stored
    source, other, again = (Trajectories(files, 2, 4, seed, flat(), ABOUT) for seed in (0, 1, 0))
    found = [where(source.draw(step), rows, 2) for step in range(12)]
    assert found != [where(other.draw(step), rows, 2) for step in range(12)]
    assert found[::-1] == [where(again.draw(step), rows, 2) for step in reversed(range(12))]
    assert source.state_dict() == {}


def test_only_two_rows_are_read(stored, monkeypatch):
    files, rows = stored
    source, asked, real = Trajectories(files, 2, 4, 0, flat(), ABOUT), [], trajectories.safe_open

    class Watched:
        def __init__(self, *args, **named):
            self.opened = real(*args, **named)

        def __enter__(self):
            self.opened.__enter__()
            return self

        def __exit__(self, *args):
            return self.opened.__exit__(*args)

        def get_slice(self, name):
            part = self.opened.get_slice(name)

            class Slice:
                def __getitem__(self, row):
                    asked.append(row)
                    return part[row]

            return Slice()

    monkeypatch.setattr(trajectories, "safe_open", Watched)
    _, t = where(source.draw(0), rows, 2)
    assert asked == [t, t + 2]


def flip(path, rows, t):
    """Change one bit of row t in the file."""
    data = bytearray(path.read_bytes())
    start = data.rindex(rows[t].numpy().tobytes())
    data[start + 5] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_row_is_noticed_when_it_is_read(tmp_path):
    file = tmp_path / "expert0.safetensors"
    rows = write(file, 0)
    source = Trajectories([file], 2, 1, 0, flat(), ABOUT)
    flip(file, rows, 1)  # which no stretch from 0 to 2 looks at
    assert torch.equal(source.draw(0).target, rows[2])
    for t in (0, 2):
        write(file, 0)
        flip(file, rows, t)
        with pytest.raises(ArtifactError, match=rf"expert0\.safetensors: epoch {t} is damaged .*train the expert again"):
            Trajectories([file], 2, 1, 0, flat(), ABOUT).draw(0)


def test_files_that_are_wrong_are_named_at_once(stored, tmp_path):
    files, _ = stored

    def fails(error, match, **changes):
        write(files[3], 3, **changes)
        with pytest.raises(error, match=match) as caught:
            Trajectories(files, 2, 4, 0, flat(), ABOUT)
        assert str(files[3]) in str(caught.value)

    fails(ArtifactError, r"network: is 'other' of this expert, the method needs 'net'", network="other")
    fails(ArtifactError, r"lineage: is 'zca'", lineage="zca")
    fails(ArtifactError, r"has 12 parameters, the method's network 11", size=P + 1)
    fails(ArtifactError, r"not of the same training as .*expert0", training={"lr": 1.0})
    fails(ArtifactError, r"has 7 rows, but checksums of 2", hashes=["a", "b"])
    fails(ConfigError, r"trained for 4 epochs; with max_start 4 and expert_span 2 it must be 5 or more: set experts\.epochs", epochs=4)
    write(files[3], 3)
    Trajectories(files, 2, 4, 0, flat(), ABOUT)
    with pytest.raises(ArtifactError, match=r"fingerprint: is 'f'.*needs 'g'"):
        Trajectories(files, 2, 4, 0, flat(), {**ABOUT, "fingerprint": "g"})
    save_tensors(files[3], {"model.weight": torch.zeros(2)}, {"config": {"network": "net", "lineage": "dc"}, "fingerprint": "f"})
    with pytest.raises(ArtifactError, match="holds no trajectory"):
        Trajectories(files, 2, 4, 0, flat(), ABOUT)
    files[3].write_bytes(files[2].read_bytes()[:-30])
    with pytest.raises(ArtifactError, match=r"expert3\.safetensors: is damaged"):
        Trajectories(files, 2, 4, 0, flat(), ABOUT)
    files[3].unlink()
    with pytest.raises(ArtifactError, match=r"expert3\.safetensors: no such file"):
        Trajectories(files, 2, 4, 0, flat(), ABOUT)


def test_a_file_that_goes_away_is_an_error_for_people(stored):
    files, _ = stored
    source = Trajectories(files[:1], 2, 4, 0, flat(), ABOUT)
    files[0].unlink()
    with pytest.raises(ArtifactError, match=r"expert0\.safetensors: cannot be read"):
        source.draw(0)


def test_an_expert_that_stood_still_is_refused(tmp_path):
    file = tmp_path / "expert0.safetensors"
    write(file, 0, rows=torch.ones(EPOCHS + 1, P))
    with pytest.raises(ArtifactError, match="epochs 0 and 2 are equal"):
        Trajectories([file], 2, 1, 0, flat(), ABOUT).draw(0)


def test_nothing_to_draw_from_is_a_mistake(stored):
    for given in (([], 2, 4), (stored[0], 0, 4), (stored[0], 2, 0)):
        with pytest.raises(ValueError, match="Trajectories needs"):
            Trajectories(*given, 0, flat(), ABOUT)
