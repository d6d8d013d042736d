"""Stage `train`: shards -> runs/VARIANT, a trained EmoSEM."""

from typing import Any

from model.train.params import TrainParams
from model.train.tally import tally_training
from model.train.train import train
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.params import Paths
from stages._run import Stage


def build(paths: Paths, params: TrainParams, backbones: BackbonesParams, variant: str) -> dict[str, Any]:
    """Check the pretrained parts' hashes, then train."""
    sam, language_model = backbones.sam.checkpoint, backbones.language_model
    verify_weights(sam)
    verify_weights(language_model)
    device = backbones.torch_device()
    return train(paths, params, variant, sam_checkpoint=sam, language_model=language_model, device=device)


STAGE = Stage("train", TrainParams, build, (("backbones", BackbonesParams),), tally_training, variants=True)

if __name__ == "__main__":
    STAGE.main()
