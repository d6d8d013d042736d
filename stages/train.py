"""Stage `train`: shards -> runs/VARIANT, a trained EmoSEM."""

from typing import Any

from model.train import train
from model.train_params import TrainParams
from pipeline.backbones import BackbonesParams, verify
from pipeline.params import Paths
from stages._run import Stage


def build(paths: Paths, params: TrainParams, backbones: BackbonesParams, variant: str) -> dict[str, Any]:
    """Check the pretrained parts' hashes, then train."""
    sam, language_model = backbones.sam.checkpoint, backbones.language_model
    verify(sam)
    verify(language_model)
    device = backbones.torch_device()
    return train(paths, params, variant, sam_checkpoint=sam, language_model=language_model, device=device)


STAGE = Stage("train", TrainParams, build, (("backbones", BackbonesParams),), variants=True)

if __name__ == "__main__":
    STAGE.main()
