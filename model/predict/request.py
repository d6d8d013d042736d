"""What a person asks of the command `predict`, checked before torch is imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model.emosem.config import read_config
from model.emosem.hub import model_folder
from model.predict.asked_emotions import parse_emotions
from model.predict.encoders import EncoderFiles, Sources, find_model
from model.predict.params import PredictParams
from model.predict.picture_files import find_pictures
from pipeline.backbones.params import BackbonesParams
from pipeline.common.params import Params


class Request(NamedTuple):
    """The first arguments of `predict_images`."""

    run: Path
    targets: Sequence[Path]
    emotions: Sequence[str]
    out: Path
    params: PredictParams
    backbones: BackbonesParams | EncoderFiles
    given: Any = None
    """`FeaturesParams`, for a model without provenance."""


def read_request(
    model: str,
    targets: Sequence[Path],
    emotions: Sequence[str],
    out: Path,
    params_file: Path,
    named: bool,
    weights: Sequence[Path] = (),
    fetch: bool = False,
) -> Request:
    """Check a request.

    Args:
        model: a folder, or "owner/name" on the hub.
        targets, emotions, out: see `predict_images`.
        params_file: whose `backbones` must be the model's when it is `named`, without `weights` and `fetch`.
            Otherwise it need not exist, and its backbones are the first of the places in which the model's
            encoders are looked for.
        named: whether the user named it.
        weights, fetch: see `Sources`.

    Raises:
        UserError: anything that is wrong with it.
        RunFailed: encoders could not be fetched.
    """
    asked = parse_emotions(emotions)
    find_pictures(targets, out)
    read = Params.read(params_file) if named or params_file.exists() else None
    params = read.section("predict", PredictParams) if read else PredictParams()
    backbones = read.section("backbones", BackbonesParams) if read else None
    sources = Sources(tuple(weights), fetch, backbones)
    if read is None or backbones is None:
        folder, files = find_model(model, sources)
        return Request(folder, targets, asked, out, params, files)
    folder = model_folder(model)
    _, provenance = read_config(folder)
    says = provenance is not None and provenance.sam is not None and provenance.clip is not None
    if weights or fetch or (says and not named):
        folder, files = find_model(model, sources)
        return Request(folder, targets, asked, out, params, files)
    from pipeline.features.params import FeaturesParams

    given = read.section("features", FeaturesParams)
    return Request(folder, targets, asked, out, params, backbones, given)
