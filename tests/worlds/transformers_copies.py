"""Small SAM and CLIP made by transformers itself, saved as it saves them, with our sizes of them beside."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, SamConfig, SamModel

from pipeline.common.files import write_json
from tests.worlds import backbones


def _random(model: torch.nn.Module) -> Any:
    """Every number drawn anew: fresh networks have zeros and ones where names could be mixed up unseen."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def sam(folder: Path) -> SamModel:
    """A `SamModel` of the sizes of `backbones.SAM`, saved into `folder`."""
    torch.manual_seed(1)
    ours = backbones.SAM
    shared = {"image_size": ours.img_size, "patch_size": ours.patch_size}
    config = SamConfig(
        vision_config=shared
        | {
            "hidden_size": ours.embed_dim,
            "mlp_dim": ours.embed_dim * 4,
            "output_channels": ours.out_chans,
            "num_hidden_layers": ours.depth,
            "num_attention_heads": ours.num_heads,
            "num_pos_feats": ours.out_chans // 2,
            "window_size": ours.window_size,
            "global_attn_indexes": list(ours.global_attn_indexes),
        },
        prompt_encoder_config=shared
        | {
            "hidden_size": ours.out_chans,
            "mask_input_channels": ours.mask_in_chans,
            "image_embedding_size": ours.img_size // ours.patch_size,
        },
        mask_decoder_config={
            "hidden_size": ours.out_chans,
            "mlp_dim": ours.decoder_mlp_dim,
            "num_hidden_layers": ours.decoder_depth,
            "num_attention_heads": ours.decoder_num_heads,
            "iou_head_hidden_dim": ours.iou_head_hidden_dim,
        },
    )
    model: SamModel = _random(SamModel(config))
    model.save_pretrained(folder)
    write_json(folder / "model.json", vars(ours))
    return model


def clip(folder: Path, config: dict[str, Any]) -> CLIPModel:
    """A `CLIPModel` of the sizes of an open_clip config with quick_gelu, saved into `folder`."""
    torch.manual_seed(2)
    vision, text = config["vision_cfg"], config["text_cfg"]
    theirs = CLIPConfig(
        projection_dim=config["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": vision["width"] * 4,
            "projection_dim": config["embed_dim"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": text["width"] * 4,
            "projection_dim": config["embed_dim"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
        },
    )
    model: CLIPModel = _random(CLIPModel(theirs))
    model.save_pretrained(folder)
    write_json(folder / "model.json", config | {"quick_gelu": True})
    return model
