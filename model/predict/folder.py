"""The command `predict`: segment and explain the emotion in pictures of one's own, files in and files out.

Writes per picture and emotion ``STEM_EMOTION.png`` (the map, 8-bit, the picture's size, 255 for certain) and
``STEM_EMOTION_overlay.png`` (small, to look at), and ``predictions.jsonl``, one line per prediction. Threads
decode ahead and write behind while the device works.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from model.emosem.config import read_config
from model.emosem.network import EmoSEM
from model.maps.overlay import overlay, shrunk
from model.metrics.segmentation import foreground
from model.predict import resume_log
from model.predict.answer import Prediction
from model.predict.asked_emotions import parse_emotions
from model.predict.encoder_params import encoder_params, params_of_files
from model.predict.encoders import EncoderFiles
from model.predict.params import PredictParams
from model.predict.picture_files import find_pictures, output_names
from model.predict.predictor import Picture, Predictor
from model.predict.resume_log import ResumeLog, Row, json_line
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import RunFailed
from pipeline.common.files import check_writable, write_bytes
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.lock import only_writer
from pipeline.common.progress import Meter, waiting
from pipeline.common.read_ahead import read_ahead
from pipeline.common.threads import cores
from pipeline.features.encoders import Encoders
from pipeline.features.params import FeaturesParams
from pipeline.releases.wikiart import BadImage, read_image

THREADS = 8
"""That decode, and as many that write."""
RESUME_LOG = ".answers.jsonl"
"""File in the output folder, see `ResumeLog`."""
OVERLAY_SIDE = 1024
"""Pixels of an overlay's long side at most."""


class _Job(NamedTuple):
    """A picture with predictions to make."""

    picture: Path
    stamp: list[int]
    name: str
    """Of its outputs."""
    emotions: list[str]


Finished = tuple[_Job, dict[str, list[Row]] | BadImage]
"""A job with its rows by emotion, or what is wrong with the picture."""


def predict_images(
    run: Path,
    targets: Sequence[Path],
    emotions: Sequence[str],
    out: Path,
    params: PredictParams,
    backbones: BackbonesParams | EncoderFiles,
    given: FeaturesParams | None = None,
    overlay_side: int = OVERLAY_SIDE,
) -> list[Row]:
    """Predict for pictures and folders of pictures; a killed run goes on where it was.

    Args:
        run: a trained model's folder, see `EmoSEM.from_pretrained`.
        targets: see `find_pictures`.
        emotions: see `parse_emotions`.
        out: folder to write to; files of the same names are replaced. What it holds already, of this model,
            these params and these pictures, is not made again.
        params: see there.
        backbones: the encoders that the model was trained on: files that were found by their hash
            (`model.predict.encoders.find_model`), or the params of a checkout, whose hashes are compared.
        given: see `Predictor.load`.
        overlay_side: pixels of an overlay's long side at most; 0 for the picture's size.

    Returns:
        The rows of ``predictions.jsonl``, by picture, emotion and seed: image, emotion, map, overlay,
        explanation, seed; for a picture that cannot be read: image, error, and null for emotion and
        explanation.

    Raises:
        UserError: unknown emotion, nothing to read, no model, or other backbones.
        RunFailed: no disk or GPU memory left; what is finished is kept.
    """
    wanted = parse_emotions(emotions)
    pictures = find_pictures(targets, out)
    check_writable(out)
    with only_writer(out):
        encoders = _encoders(run, backbones, given or FeaturesParams(), params)
        identity = _identity(run, *encoders, params, overlay_side)
        with contextlib.closing(ResumeLog(out / RESUME_LOG, identity)) as log:
            jobs = []
            for picture, name in zip(pictures, output_names(pictures), strict=True):
                missing = [emotion for emotion in wanted if log.rows(picture, name, emotion) is None]
                jobs.append(_Job(picture, resume_log.stamp(picture), name, missing))
            todo = [job for job in jobs if job.emotions]
            bad: dict[Path, str] = {}
            if todo:
                with waiting("predict", f"loading {run} and its encoders"):
                    model = EmoSEM.from_pretrained(run, params.torch_device())
                    predictor = Predictor(model, Encoders(*encoders), params)
                meter = Meter("predict", len(todo), skipped=len(jobs) - len(todo))
                for job, rows in _finished(predictor, todo, out, overlay_side):
                    if isinstance(rows, BadImage):
                        bad[job.picture] = str(rows)
                    else:
                        log.append(job.picture, job.stamp, job.name, rows)
                    meter.add()
            lines = [row for job in jobs for row in _rows(job, wanted, log, bad)]
        write_bytes(out / "predictions.jsonl", b"".join(map(json_line, lines)))
    return lines


def _encoders(
    run: Path, backbones: BackbonesParams | EncoderFiles, given: FeaturesParams, params: PredictParams
) -> tuple[FeaturesParams, BackbonesParams]:
    """Params of the encoders. Raises `UserError` where they are not the model's."""
    _, provenance = read_config(run)
    if isinstance(backbones, EncoderFiles):
        return params_of_files(run, provenance, backbones, params)
    return encoder_params(run, provenance, backbones, given, params)


def predictions_text(rows: Iterable[Row]) -> str:
    """The rows of `predict_images` as lines that a person reads; what cannot be printed is escaped."""
    lines = [
        f"{row['image']}  "
        + (f"not answered: {row['error']}" if "error" in row else f"{row['emotion']}: {row['explanation']}")
        for row in rows
    ]
    return "\n".join(lines).encode(errors="backslashreplace").decode()


def summary_text(rows: Sequence[Row], out: Path) -> str:
    """How many pictures were answered, and where their maps are."""
    bad = {row["image"] for row in rows if "error" in row}
    maps = {row["map"] for row in rows if "map" in row}
    pictures = len({row["image"] for row in rows})
    counts = f"{pictures:,} picture(s): {pictures - len(bad):,} answered, {len(bad):,} not."
    return f"{counts} {len(maps):,} map(s), their overlays and predictions.jsonl are in {out}"


def _identity(
    run: Path, features: FeaturesParams, backbones: BackbonesParams, params: PredictParams, side: int
) -> str:
    """Fingerprint of everything that decides a prediction and its overlay, but for picture and emotion."""
    files = [sha256_file(f) for f in sorted(run.glob("*")) if f.suffix in (".json", ".safetensors")]
    weights = [verify_weights(backbones.sam.checkpoint), verify_weights(backbones.clip.checkpoint)]
    decisive = dataclasses.replace(params, batch=1, device="auto")
    code = code_fingerprint(__name__)
    kinds = (backbones.sam.arch, backbones.clip.name, backbones.clip.precision)
    return fingerprint(files, weights, kinds, features.results, decisive, side, code)


def _rows(job: _Job, wanted: Sequence[str], log: ResumeLog, bad: Mapping[Path, str]) -> Iterator[Row]:
    """The picture's lines: its predictions, and what is wrong with it when some are missing."""
    found = [log.rows(job.picture, job.name, emotion) for emotion in wanted]
    yield from (row for rows in found for row in rows or ())
    if None in found:
        why = bad.get(job.picture, "changed: the file changed meanwhile; run the same command again")
        yield {"image": job.picture.as_posix(), "emotion": None, "explanation": None, "error": why}


def _finished(predictor: Predictor, jobs: Sequence[_Job], out: Path, side: int) -> Iterator[Finished]:
    """Jobs in their order, each when its files are written."""
    params = predictor.params
    threads = min(THREADS, cores())

    def read(job: _Job) -> tuple[_Job, Picture | BadImage]:
        try:
            return job, predictor.prepare(read_image(job.picture))
        except BadImage as error:
            return job, error

    def write(found: tuple[_Job, dict[str, Prediction] | BadImage]) -> Finished:
        job, predictions = found
        if isinstance(predictions, BadImage):
            return job, predictions
        try:  # read again, for a batch of large scans would fill the memory
            return job, _write(out, job, read_image(job.picture), predictions, params.seeds, side)
        except BadImage as error:
            return job, error

    pictures = read_ahead(read, jobs, threads, depth=2 * params.batch)
    yield from read_ahead(write, _in_batches(predictor, pictures), threads, depth=2 * params.batch)


def _in_batches(
    predictor: Predictor, pictures: Iterable[tuple[_Job, Picture | BadImage]]
) -> Iterator[tuple[_Job, dict[str, Prediction] | BadImage]]:
    """Predictions in the order of the jobs, `params.batch` pictures at a time."""
    remaining = iter(pictures)
    while batch := list(itertools.islice(remaining, predictor.params.batch)):
        sound = [(job, picture) for job, picture in batch if not isinstance(picture, BadImage)]
        predictions: Iterator[dict[str, Prediction]] = iter(())
        if sound:
            try:
                wanted = [job.emotions for job, _ in sound]
                predictions = iter(predictor.predict_prepared([p for _, p in sound], wanted))
            except torch.cuda.OutOfMemoryError as error:
                raise RunFailed(
                    f"the GPU's memory is too small for {len(sound)} pictures at once ({error}); lower "
                    "predict.batch and run the same command again, what is finished is kept"
                ) from error
        for job, picture in batch:
            yield job, picture if isinstance(picture, BadImage) else next(predictions)


def _write(
    out: Path,
    job: _Job,
    image: np.ndarray,
    predictions: Mapping[str, Prediction],
    seeds: Sequence[int],
    side: int,
) -> dict[str, list[Row]]:
    """Maps and overlays of a picture; returns its rows by emotion."""
    found: dict[str, list[Row]] = {}
    height, width = image.shape[:2]
    shown = shrunk(image, side or max(height, width))
    for emotion, prediction in predictions.items():
        probability = cv2.resize(prediction.probability, (width, height), interpolation=cv2.INTER_LINEAR)
        inside = foreground(probability, height, width)
        name = f"{job.name}_{emotion}"
        files = {
            "map": (out / f"{name}.png", np.rint(probability * 255).astype(np.uint8)),
            "overlay": (out / f"{name}_overlay.png", overlay(shown, probability, inside)[..., ::-1]),
        }
        for file, pixels in files.values():
            write_bytes(file, cv2.imencode(".png", pixels)[1].tobytes())
        paths = {kind: file.as_posix() for kind, (file, _) in files.items()}
        query = {"image": job.picture.as_posix(), "emotion": emotion}
        found[emotion] = [
            {**query, "explanation": text, "seed": seed, **paths}
            for seed, text in zip(seeds, prediction.explanations, strict=True)
        ]
    return found
