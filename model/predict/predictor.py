"""A trained model with its frozen encoders, for pictures of one's own.

predictor = Predictor.from_pretrained("MODEL")
found = predictor.predict("painting.jpg", "awe")[0]["awe"]
found.mask, found.explanations
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from model.data.cached_features import Features
from model.emosem.config import read_config
from model.emosem.network import EmoSEM
from model.predict.answer import BatchQuery, Prediction, predict_batch
from model.predict.asked_emotions import parse_emotions
from model.predict.encoder_params import check_preprocessing, check_sizes, encoder_params, params_of_files
from model.predict.encoders import EncoderFiles, Sources, find_model
from model.predict.params import PredictParams
from pipeline.backbones.params import BackbonesParams
from pipeline.common.emotions import EMOTIONS
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
        check_sizes(model, encoders)
        check_preprocessing(model.provenance, encoders)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        weights: str | Path | Sequence[str | Path] = (),
        fetch: bool = False,
        params: PredictParams | None = None,
        device: str = "auto",
        **hub: Any,
    ) -> "Predictor":
        """A saved model with the frozen encoders that it names; no params file is read.

        The encoders are known by their SHA-256, and looked for in the model's folder, in `weights`, in the
        folders of the environment variable EMOSEM_WEIGHTS, in ``weights/`` and ``~/.cache/emosem/weights``.

        Args:
            model: the folder of a trained or exported model, or "owner/name" on the Hugging Face hub.
            weights: a folder of weights, or several.
            fetch: download official encoders that are nowhere, into the first folder of `weights`, of
                EMOSEM_WEIGHTS, or else the cache. Without it nothing but a model of the hub is downloaded.
            params: how explanations are drawn; see `PredictParams`.
            device: torch device name, or auto; of no effect beside `params`, which names one.
            hub: keywords of `huggingface_hub.snapshot_download`: revision, token, cache_dir ...

        Raises:
            UserError: no model; encoders that are missing, with both ways to get them; or other files in
                their place, with both hashes.
            RunFailed: they could not be fetched.
        """
        params = params or PredictParams(device=device)
        folders = [weights] if isinstance(weights, str | Path) else weights
        sources = Sources(tuple(Path(folder) for folder in folders), fetch)
        folder, files = find_model(model, sources, hub)
        return cls.of_files(folder, files, params)

    @classmethod
    def of_files(cls, model: Path, files: EncoderFiles, params: PredictParams) -> "Predictor":
        """A saved model's folder with the encoders of `find_model`. Raises `UserError`."""
        _, provenance = read_config(model)
        encoders = Encoders(*params_of_files(model, provenance, files, params))
        return cls(EmoSEM.from_pretrained(model, params.torch_device()), encoders, params)

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


def _of_picture(picture: Picture, found: Prediction) -> PicturePrediction:
    size = (picture.width, picture.height)
    return PicturePrediction(
        np.asarray(cv2.resize(found.probability, size, interpolation=cv2.INTER_LINEAR)), found.explanations
    )
