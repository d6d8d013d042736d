"""How good a model is between epochs: losses and Pr@25/50 on the validation split's pseudo-masks."""

import numpy as np
import torch

from model.data.samples import Samples
from model.emosem.network import EmoSEM
from model.metrics.segmentation import score_maps
from model.train.objective import forward, losses_of
from model.train.params import TrainParams
from pipeline.common.errors import RunFailed
from pipeline.common.protocol import THRESHOLD


@torch.no_grad()
def validate(model: EmoSEM, samples: Samples, params: TrainParams, device: torch.device) -> dict[str, float]:
    """Losses, and Pr@25/50 (percent) against the pseudo-masks, over artworks spread through the split.

    One utterance of each (artwork, emotion) counts. There is no annotation here, so the pseudo-masks are the
    references. Leaves the model in eval mode. Raises `RunFailed` for a loss that is not finite.
    """
    model.eval()
    artworks = np.unique(samples.table[:, 0])
    chosen = artworks[np.linspace(0, len(artworks) - 1, params.validation_artworks).astype(int)]
    numbers = np.flatnonzero(np.isin(samples.table[:, 0], chosen) & (samples.table[:, 2] == 0))
    sums: dict[str, float] = {}
    maps: list[np.ndarray] = []
    references: list[np.ndarray] = []
    for start in range(0, len(numbers), params.batch_size):
        batch = samples[numbers[start : start + params.batch_size].tolist()].to(device)
        logits_QHW, word_logits = forward(model, batch)
        for name, loss in losses_of(logits_QHW, word_logits, batch).items():
            if not loss.isfinite():
                keys = ", ".join(samples.keys[artwork] for artwork in batch.artworks.tolist())
                raise RunFailed(f"validation: the {name} loss of the artworks {keys} is {float(loss)}")
            sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.tokens) / len(numbers)
        for logits_HW, target_HW, row in zip(logits_QHW, batch.target, batch.rows, strict=True):
            height, width = batch.valid[row].any(1).sum(), batch.valid[row].any(0).sum()
            maps.append(logits_HW[:height, :width].float().sigmoid().cpu().numpy())
            references.append(target_HW[:height, :width].cpu().numpy() > THRESHOLD)
    rates = score_maps(maps, references).rates()
    losses = {name: round(total, 6) for name, total in sums.items()}
    return losses | {name: rates[name] for name in ("seg_pr25", "seg_pr50") if name in rates}
