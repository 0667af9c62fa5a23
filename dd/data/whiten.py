"""The whitening of a prepared dataset, fitted once and kept beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from dd.artifacts import save_tensors
from dd.data.load import load, manifest
from dd.data.normalise import EPS, ZCA


def whiten(dataset: Path, out: Path) -> None:
    """Fit `dd.data.normalise.ZCA` on the whole train split, and write its float32 tensors `mean`, `transform` and `inverse`.

    The metadata have the dataset's name and fingerprint and epsilon; `dd.data.load.normalisation` checks them. The held-out tenth
    takes part in the fit, as it does in the means and deviations of the other lineages.

    Args:
        dataset: the folder of a prepared dataset. out: the file, `zca.safetensors` in that folder; its folder is made.

    Raises:
        ArtifactError: the dataset is missing or damaged, or the file cannot be written.
    """
    facts = manifest(dataset)
    images, _ = load(dataset, "train")
    state = {name: tensor.to(torch.float32) for name, tensor in ZCA.fit(images).state_dict().items()}
    save_tensors(out, state, {"dataset": facts["name"], "fingerprint": facts["fingerprint"], "eps": EPS})
