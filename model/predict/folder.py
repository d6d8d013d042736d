"""The command `predict`: segment and explain the emotion in pictures of one's own, files in and files out.

Writes per picture and emotion ``STEM_EMOTION.png`` (the map, 8-bit, the picture's size, 255 for certain) and
``STEM_EMOTION_overlay.png``, and ``predictions.jsonl``, one line per prediction. Threads decode ahead and
write behind while the device works.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from model.emosem.config import read_config
from model.emosem.network import EmoSEM
from model.maps.overlay import overlay
from model.metrics.segmentation import foreground
from model.predict import resume_log
from model.predict.answer import Prediction, PredictParams
from model.predict.picture_files import find_pictures, output_names
from model.predict.predictor import Picture, Predictor, encoder_params, parse_emotions
from model.predict.resume_log import ResumeLog, Row, json_line
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import RunFailed
from pipeline.common.files import check_writable, write_bytes
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.lock import only_writer
from pipeline.common.progress import Meter
from pipeline.common.read_ahead import read_ahead
from pipeline.features.encoders import Encoders
from pipeline.features.params import FeaturesParams
from pipeline.releases.wikiart import BadImage, read_image

THREADS = 8
"""That decode, and as many that write."""
RESUME_LOG = ".answers.jsonl"
"""File in the output folder, see `ResumeLog`."""


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
    backbones: BackbonesParams,
    given: FeaturesParams | None = None,
) -> list[Row]:
    """Predict for pictures and folders of pictures; a killed run goes on where it was.

    Args:
        run: a trained model's folder, see `EmoSEM.from_pretrained`.
        targets: see `find_pictures`.
        emotions: see `parse_emotions`.
        out: folder to write to; files of the same names are replaced. What it holds already, of this model,
            these params and these pictures, is not made again.
        params, backbones: see there; the backbones must be those that the model was trained on.
        given: see `Predictor.load`.

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
        _, provenance = read_config(run)
        encoders = encoder_params(run, provenance, backbones, given or FeaturesParams(), params)
        with contextlib.closing(ResumeLog(out / RESUME_LOG, _identity(run, *encoders, params))) as log:
            jobs = []
            for picture, name in zip(pictures, output_names(pictures), strict=True):
                missing = [emotion for emotion in wanted if log.rows(picture, name, emotion) is None]
                jobs.append(_Job(picture, resume_log.stamp(picture), name, missing))
            todo = [job for job in jobs if job.emotions]
            bad: dict[Path, str] = {}
            if todo:
                model = EmoSEM.from_pretrained(run, params.torch_device())
                predictor = Predictor(model, Encoders(*encoders), params)
                meter = Meter("predict", len(todo), skipped=len(jobs) - len(todo))
                for job, rows in _finished(predictor, todo, out):
                    if isinstance(rows, BadImage):
                        bad[job.picture] = str(rows)
                    else:
                        log.append(job.picture, job.stamp, job.name, rows)
                    meter.add()
            lines = [row for job in jobs for row in _rows(job, wanted, log, bad)]
        write_bytes(out / "predictions.jsonl", b"".join(map(json_line, lines)))
    return lines


def predictions_text(rows: Iterable[Row]) -> str:
    """The rows of `predict_images` as lines that a person reads; what cannot be printed is escaped."""
    lines = [
        f"{row['image']}  "
        + (f"not answered: {row['error']}" if "error" in row else f"{row['emotion']}: {row['explanation']}")
        for row in rows
    ]
    return "\n".join(lines).encode(errors="backslashreplace").decode()


def _identity(run: Path, features: FeaturesParams, backbones: BackbonesParams, params: PredictParams) -> str:
    """Fingerprint of everything that decides a prediction, but for picture and emotion."""
    files = [sha256_file(f) for f in sorted(run.glob("*")) if f.suffix in (".json", ".safetensors")]
    weights = [verify_weights(backbones.sam.checkpoint), verify_weights(backbones.clip.checkpoint)]
    decisive = dataclasses.replace(params, batch=1, device="auto")
    code = code_fingerprint(__name__)
    kinds = (backbones.sam.arch, backbones.clip.name, backbones.clip.precision)
    return fingerprint(files, weights, kinds, features.results, decisive, code)


def _rows(job: _Job, wanted: Sequence[str], log: ResumeLog, bad: Mapping[Path, str]) -> Iterator[Row]:
    """The picture's lines: its predictions, and what is wrong with it when some are missing."""
    found = [log.rows(job.picture, job.name, emotion) for emotion in wanted]
    yield from (row for rows in found for row in rows or ())
    if None in found:
        why = bad.get(job.picture, "changed: the file changed meanwhile; run the same command again")
        yield {"image": job.picture.as_posix(), "emotion": None, "explanation": None, "error": why}


def _finished(predictor: Predictor, jobs: Sequence[_Job], out: Path) -> Iterator[Finished]:
    """Jobs in their order, each when its files are written."""
    params = predictor.params
    threads = min(THREADS, os.cpu_count() or 1)

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
            return job, _write(out, job, read_image(job.picture), predictions, params.seeds)
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
    out: Path, job: _Job, image: np.ndarray, predictions: Mapping[str, Prediction], seeds: Sequence[int]
) -> dict[str, list[Row]]:
    """Maps and overlays of a picture; returns its rows by emotion."""
    found: dict[str, list[Row]] = {}
    for emotion, prediction in predictions.items():
        height, width = image.shape[:2]
        probability = cv2.resize(prediction.probability, (width, height), interpolation=cv2.INTER_LINEAR)
        inside = foreground(probability, height, width)
        name = f"{job.name}_{emotion}"
        files = {
            "map": (out / f"{name}.png", np.rint(probability * 255).astype(np.uint8)),
            "overlay": (out / f"{name}_overlay.png", overlay(image, probability, inside)[..., ::-1]),
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
