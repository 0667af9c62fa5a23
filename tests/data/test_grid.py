"""Pictures of sets: what is black and what is white."""

import numpy as np
import pytest
import torch
from PIL import Image

from dd.images import write_grid


def drawn(path, *args, **more):
    write_grid(path, *args, **more)
    return np.asarray(Image.open(path)).astype(int)


def cell(sheet, row, column):
    """Return the grey of the middle of one 24x24 image, which is shown twice as large."""
    return sheet[2 + row * 50 + 24, 2 + column * 50 + 24].tolist()


@pytest.fixture
def levels():
    def make(*values):
        return torch.tensor(values)[:, None, None, None].expand(-1, 1, 24, 24), torch.zeros(len(values), dtype=torch.int64)

    return make


def test_images_are_clipped_to_0_and_1(levels, tmp_path):
    sheet = drawn(tmp_path / "a.png", *levels(0.0, 0.5, 1.0, -3.0, 7.0))
    assert sheet.shape == (52, 252, 3)
    assert [cell(sheet, 0, n) for n in range(5)] == [[g] * 3 for g in (0, 128, 255, 0, 255)]
    colour = torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1).expand(1, 3, 24, 24)
    assert cell(drawn(tmp_path / "b.png", colour, torch.tensor([[0.3, 0.7]])), 0, 0) == [255, 0, 51]


def test_sounds_are_scaled_to_their_range(levels, tmp_path):
    sheet = drawn(tmp_path / "a.png", *levels(-6.0, -2.0, 2.0, -9.0), span=[-6.0, None])
    assert [cell(sheet, 0, n)[0] for n in range(4)] == [0, 128, 255, 0]
    sheet = drawn(tmp_path / "a.png", *levels(-6.0, -2.0, 2.0), span=(None, None))
    assert [cell(sheet, 0, n)[0] for n in range(3)] == [0, 128, 255]


def test_of_a_run_that_diverged(levels, tmp_path):
    inf = float("inf")
    for span in ((0.0, 1.0), (0.0, None)):
        sheet = drawn(tmp_path / "a.png", *levels(float("nan"), inf, -inf, 0.0, 1.0), span=span)
        assert [cell(sheet, 0, n)[0] for n in range(5)] == [128, 255, 0, 0, 255]
    for span in ((0.0, 1.0), (-6.0, None), (None, None)):
        assert cell(drawn(tmp_path / "a.png", *levels(float("nan")), span=span), 0, 0) == [128] * 3
        drawn(tmp_path / "a.png", *levels(-6.0, -6.0), span=span)
