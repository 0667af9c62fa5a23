"""A tiny StyleGAN-XL as published, and the file that the conversion script makes of it."""

from __future__ import annotations

import pytest
import torch
from published_xl import Published, conversion, published

from dd.generators import stylegan_xl


@pytest.fixture(scope="session")
def script():
    return conversion()


@pytest.fixture(scope="session")
def tiny():
    """Return (facts, the naive generator): 16 pixels, 5 layers, of which 2 stay, and 4 for 32 pixels."""
    torch.manual_seed(0)
    facts, filters = published(16, 4, [3], base=64, widest=6)
    facts |= {"z_dim": 4, "w_dim": 8, "classes": 3, "embedding": 5}
    return facts, Published(facts, filters).requires_grad_(False)


@pytest.fixture(scope="session")
def converted(script, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("xl") / "tiny.safetensors"
    script.write(str(path), *script.convert(tiny[1], "0" * 64))
    return path


@pytest.fixture(scope="session")
def net(converted):
    return stylegan_xl.load(converted).double()
