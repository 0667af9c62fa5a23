"""One distilled set under several pre-trained networks: where a class lies, and how far from the real images it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dd.analysis.look import Look
from dd.artifacts import save_tensors
from dd.config import hashed
from dd.config.stages import AnalyseConfig
from dd.objectives.distribution import embed_in_chunks
from dd.rng import stream


def models(
    config: AnalyseConfig, dataset: Path, distilled: Path, checkpoints: Sequence[Path], out: Path, *, device: str = "cpu"
) -> None:
    r"""Write `real` (M, n, d) and `syn` (M, m, d), the embeddings of class `config.label` under M networks, and `loss` (M, C, draws).

    loss[j, c, t] is the matching loss of class c under network j for the t-th batch of real images:

    .. math:: \| \frac{1}{B}\sum_{x \in X_{c,t}} f_j(x) - \frac{1}{m}\sum_{s \in S_c} f_j(s) \|^2

    (DSDM, equation 4, without its sum over classes.) All float32. The batches are the same for all networks. Networks are in eval mode,
    nothing is augmented, and all images are normalised with the statistics that the networks were trained with.

    Differs from the paper: it does not say how the loss of its figure 3 (b) is taken; its training augments both sides.

    Raises:
        ConfigError, ArtifactError: see `Look`; or the checkpoints are not those of seeds 0 to M - 1, in this order.
    """
    look = Look(config, dataset, distilled, checkpoints[0], device)
    batch = min(config.batch, look.pool.smallest)
    real, syn, loss = [], [], []
    with torch.no_grad():
        for seed, checkpoint in enumerate(checkpoints):
            net = look.network(checkpoint, seed)
            real.append(embed_in_chunks(net, look.real()))
            syn.append(embed_in_chunks(net, look.synthetic(config.label)))
            loss.append(_losses(look, net, batch, config.draws))
    tensors = {"real": torch.stack(real), "syn": torch.stack(syn), "loss": torch.stack(loss)}
    save_tensors(out, tensors, {"config": hashed(config), "batch": batch, **look.about()})


def _losses(look: Look, net: nn.Module, batch: int, draws: int) -> Tensor:
    """Return the matching losses of every class (rows) and every batch of real images (columns)."""
    means = [embed_in_chunks(net, look.synthetic(c)).mean(0) for c in range(look.pool.classes)]
    columns = []
    for draw in range(draws):
        index = look.pool.draw(stream(0, "analyse", "batch", draw), batch)
        rows = [embed_in_chunks(net, look.pool.x(index[c])).mean(0) - mean for c, mean in enumerate(means)]
        columns.append(torch.stack([row.square().sum() for row in rows]))
    return torch.stack(columns, 1)
