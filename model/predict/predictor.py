"""A trained model with its frozen encoders, for pictures of one's own.

predictor = Predictor.from_params("runs/single", "params.yaml")
found = predictor.predict(["painting.jpg"], ["awe"])[0]["awe"]
found.mask, found.explanations
"""

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from model.data.cached_features import Features
from model.emosem.config import read_config
from model.emosem.network import EmoSEM
from model.emosem.provenance import Provenance
from model.predict.answer import BatchQuery, Prediction, PredictParams, predict_batch
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Params
from pipeline.features.encoders import Encoders, Prepared
from pipeline.features.params import FeaturesParams
from pipeline.releases.wikiart import read_image


@dataclasses.dataclass(frozen=True)
class PicturePrediction:
    """A model's prediction for a picture and an emotion."""

    mask: np.ndarray
    """float32 (height, width) of the picture, probability in [0, 1] that a pixel evokes the emotion."""
    explanations: tuple[str, ...]
    """One per seed of the params."""


class Picture(NamedTuple):
    """What a model needs of a picture, which may itself be large."""

    prepared: Prepared
    height: int
    width: int
    key: str
    """Digest of the pixels: with emotion and seed it decides the explanation, whatever the file is called."""


class Predictor:
    """A trained model with the frozen encoders that it was trained on."""

    def __init__(self, model: EmoSEM, encoders: Encoders, params: PredictParams) -> None:
        self.model, self.encoders, self.params = model, encoders, params
        _check_sizes(model, encoders)

    @classmethod
    def load(
        cls,
        run: Path,
        backbones: BackbonesParams,
        params: PredictParams | None = None,
        given: FeaturesParams | None = None,
    ) -> "Predictor":
        """A trained run with its encoders.

        Args:
            run: see `EmoSEM.from_pretrained`.
            backbones: weights of SAM and CLIP, those of the run's training.
            params: see `PredictParams`.
            given: how the features were made; only for a run without provenance.

        Raises:
            UserError: no model, or other weights than those of its training.
        """
        params = params or PredictParams()
        _, provenance = read_config(run)
        encoders = Encoders(*encoder_params(run, provenance, backbones, given or FeaturesParams(), params))
        return cls(EmoSEM.from_pretrained(run, params.torch_device()), encoders, params)

    @classmethod
    def from_params(cls, run: str | Path, params_file: str | Path = "params.yaml") -> "Predictor":
        """As `load`, with the sections `backbones`, `predict` and `features` of a params file."""
        params = Params.read(Path(params_file))
        return cls.load(
            Path(run),
            params.section("backbones", BackbonesParams),
            params.section("predict", PredictParams),
            params.section("features", FeaturesParams),
        )

    def predict(
        self,
        images: Sequence[np.ndarray | str | Path] | str | Path,
        emotions: Sequence[str] | str = EMOTIONS,
        keys: Sequence[str] | None = None,
    ) -> list[dict[str, PicturePrediction]]:
        """Masks and explanations of pictures, each by emotion.

        Args:
            images: uint8 RGB (H, W, 3) of any sizes, or files; or one file.
            emotions: of the eight, see `parse_emotions`.
            keys: names that decide the explanations with emotion and seed; None for digests of the pixels.

        Raises:
            BadImage: a file that is no picture.
            UserError: an unknown emotion.
            ValueError: an array that is no uint8 RGB picture.
        """
        wanted = parse_emotions(emotions)
        images = [images] if isinstance(images, str | Path) else images
        found: list[dict[str, PicturePrediction]] = []
        for start in range(0, len(images), self.params.batch):
            part = images[start : start + self.params.batch]
            pixels = [image if isinstance(image, np.ndarray) else read_image(Path(image)) for image in part]
            pictures = [self.prepare(image) for image in pixels]
            if keys is not None:
                named = zip(pictures, keys[start : start + self.params.batch], strict=True)
                pictures = [picture._replace(key=key) for picture, key in named]
            predictions = self.predict_prepared(pictures, [wanted] * len(pictures))
            for picture, by_emotion in zip(pictures, predictions, strict=True):
                found.append({emotion: _of_picture(picture, p) for emotion, p in by_emotion.items()})
        return found

    def prepare(self, image: np.ndarray) -> Picture:
        """A uint8 RGB picture (H, W, 3) resized for the encoders; safe on any thread. Raises `ValueError`."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture is uint8 RGB (height, width, 3), not {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        digest = hashlib.sha256(f"{height}x{width} ".encode())
        digest.update(np.ascontiguousarray(image).data)
        return Picture(self.encoders.prepare(image), height, width, digest.hexdigest()[:16])

    def encode(self, pictures: Sequence[Picture]) -> list[Features]:
        """What `features` would have cached of pictures, at once."""
        rows = [{"key": p.key, "height": p.height, "width": p.width} for p in pictures]
        encoded = self.encoders.encode([(row, p.prepared) for row, p in zip(rows, pictures, strict=True)])
        found = []
        for _, arrays, card in encoded:
            height, width = card["sam"]["input_size"]
            scale = arrays.get("sam_scale")
            found.append(Features(arrays["sam"], arrays["clip"], height, width, scale))
        return found

    def predict_prepared(
        self, pictures: Sequence[Picture], emotions: Sequence[Sequence[str]]
    ) -> list[dict[str, Prediction]]:
        """Predictions for one batch of pictures, each by emotion; `emotions` are those wanted of each."""
        queries = [
            BatchQuery(row, picture.key, emotion)
            for row, (picture, wanted) in enumerate(zip(pictures, emotions, strict=True))
            for emotion in wanted
        ]
        found: list[dict[str, Prediction]] = [{} for _ in pictures]
        predictions = predict_batch(self.model, self.encode(pictures), queries, self.params)
        for query, prediction in zip(queries, predictions, strict=True):
            found[query.row][query.emotion] = prediction
        return found


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


def _check_sizes(model: EmoSEM, encoders: Encoders) -> None:
    """The encoders must be of the sizes that the model was trained on."""
    if encoders.sam is None or encoders.clip is None:
        raise ValueError("a model needs both SAM's and CLIP's features")
    encoder, visual = encoders.sam.encoder, encoders.clip.model.visual
    grid, channels = encoder.pos_embed.shape[1], encoder.neck[0].out_channels
    found = (channels, grid, visual.ln_post.normalized_shape[0], encoders.sam.img_size)
    config = model.config
    wanted = (config.dim, config.grid, config.visual_dim, config.image_size)
    if found != wanted:
        raise UserError(
            "the model was trained on other backbones: SAM's channels and grid, CLIP's width and SAM's input "
            f"size are {found}, it needs {wanted}; point the params' backbones at those of its training"
        )


def parse_emotions(emotions: Sequence[str] | str) -> list[str]:
    """Emotions in EMOTIONS' order, each once, of words and comma-separated words; "all" is all of them.

    Raises `UserError` for any other word.
    """
    emotions = [emotions] if isinstance(emotions, str) else emotions
    words = {word.strip().lower() for words in emotions for word in words.split(",")} - {""}
    if unknown := sorted(words - {*EMOTIONS, "all"}):
        raise UserError(f"unknown emotion {unknown[0]!r}; use any of {', '.join(EMOTIONS)}, or all")
    if not words:
        raise UserError(f"no emotion given; use any of {', '.join(EMOTIONS)}, or all")
    return [emotion for emotion in EMOTIONS if emotion in words or "all" in words]


def _of_picture(picture: Picture, found: Prediction) -> PicturePrediction:
    size = (picture.width, picture.height)
    return PicturePrediction(
        np.asarray(cv2.resize(found.probability, size, interpolation=cv2.INTER_LINEAR)), found.explanations
    )
