"""Params of a model's encoders: those of the files that it names, or of a params file, checked."""

import dataclasses
import sys
from pathlib import Path

from model.emosem import preprocessing
from model.emosem.encoder_search import title
from model.emosem.network import EmoSEM
from model.emosem.provenance import Provenance
from model.predict.encoders import EncoderFiles, encoders_of
from model.predict.params import PredictParams
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.features.encoders import Encoders
from pipeline.features.params import FeaturesParams


def params_of_files(
    model: Path, provenance: Provenance | None, files: EncoderFiles, params: PredictParams
) -> tuple[FeaturesParams, BackbonesParams]:
    """Params of the encoders in `files`, which compute what the cached features of the training were.

    Raises `UserError` for an encoder that this version of the code does not have.
    """
    sam, clip = encoders_of(model, provenance)
    try:
        backbones = BackbonesParams(
            SamParams(sam.arch, files.sam),  # type: ignore[arg-type]  # pydantic looks
            ClipParams(clip.name, files.clip, clip.precision),
            device=params.torch_device(),
        )
        features = FeaturesParams(
            sam_dtype=sam.dtype, clip_normalisation=clip.normalisation, precision=sam.precision
        )
    except ValueError as error:
        raise UserError(f"{model} names encoders that are not known here: {error}") from None
    return features, backbones


def encoder_params(
    run: Path,
    provenance: Provenance | None,
    backbones: BackbonesParams,
    given: FeaturesParams,
    params: PredictParams,
) -> tuple[FeaturesParams, BackbonesParams]:
    """Params of the encoders as they were when the model's features were cached, on the device of `params`.

    Raises `UserError` when the weights are not the same; for a run without provenance, a warning on stderr.
    """
    backbones = dataclasses.replace(backbones, device=params.torch_device())
    sam_dtype = "float16" if given.sam_dtype == "none" else given.sam_dtype
    given = dataclasses.replace(given, sam_dtype=sam_dtype, clip_dtype="float16")
    if provenance is None or provenance.sam is None or provenance.clip is None:
        print(
            f"predict: WARNING: {run} does not say which SAM and CLIP it was trained on; taking those of the "
            "params' backbones section, which must be the same",
            file=sys.stderr,
        )
        return given, backbones
    sam, clip = provenance.sam, provenance.clip
    wanted = (("sam", sam.arch, sam.sha256), ("clip", clip.name, clip.sha256))
    there = (
        (backbones.sam.arch, backbones.sam.checkpoint),
        (backbones.clip.name, backbones.clip.checkpoint),
    )
    for (section, name, digest), (name_here, file) in zip(wanted, there, strict=True):
        if (found := (name_here, verify_weights(file))) != (name, digest):
            raise UserError(
                f"{run} was trained on other backbones: it reads the features of {section} {name} (SHA-256 "
                f"{digest}), but backbones.{section} is {found[0]}, {file} ({found[1]}); point the params' "
                "backbones section at the weights of its training"
            )
    made = dataclasses.replace(
        given,
        sam_dtype=sam.dtype,
        precision=sam.precision,
        clip_normalisation=clip.normalisation,
    )
    clip_params = dataclasses.replace(backbones.clip, precision=clip.precision)
    return made, dataclasses.replace(backbones, clip=clip_params)


def check_sizes(model: EmoSEM, encoders: Encoders) -> None:
    """The encoders must be of the sizes that the model was trained on."""
    if encoders.sam is None or encoders.clip is None:
        raise ValueError("a model needs both SAM's and CLIP's features")
    encoder, visual = encoders.sam.encoder, encoders.clip.model.visual
    grid, channels = encoder.pos_embed.shape[1], encoder.neck[0].weight.shape[0]
    found = (channels, grid, visual.ln_post.normalized_shape[0], encoders.sam.img_size)
    config = model.config
    wanted = (config.dim, config.grid, config.visual_dim, config.image_size)
    if found != wanted:
        raise UserError(
            "the model was trained on other backbones: SAM's channels and grid, CLIP's width and SAM's input "
            f"size are {found}, it needs {wanted}; point the params' backbones at those of its training"
        )


def check_preprocessing(provenance: Provenance | None, encoders: Encoders) -> None:
    """Raise `UserError` where loaded encoders take pictures otherwise than those that a model notes."""
    if provenance is None or encoders.sam is None or encoders.clip is None:
        return
    if (sam := provenance.sam) is not None:
        own = preprocessing.of_sam(encoders.sam.img_size, encoders.sam.mean, encoders.sam.std)
        preprocessing.check(sam, title(sam), own)
    if (clip := provenance.clip) is not None:
        preprocessing.check(clip, title(clip), preprocessing.of_clip(encoders.clip, clip.normalisation))
