"""What a command must find before it can begin, looked at before anything heavy is imported.

Importing torch takes seconds, and a minute on a busy machine: a wrong path, key or name is refused before
that. The step looks again when it begins, and says the same.
"""

from collections.abc import Collection
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.params import Params, Paths


def before_train(params: Params, variant: str | None = None) -> None:
    """The sections, the variant, the pretrained parts and the shards. Raises `UserError`."""
    from model.train.params import TrainParams
    from pipeline.backbones.params import BackbonesParams

    paths, train = params.section("paths", Paths), params.section("train", TrainParams)
    if variant is not None:
        train = train.of(variant)
    backbones = params.section("backbones", BackbonesParams)
    for weights in (backbones.sam.checkpoint, backbones.language_model):
        _weights(weights)
    if train.stream is None:
        _written(paths.step("shards") / "index.parquet", "shards", first="")


def before_ablations(params: Params, made_here: Collection[str]) -> None:
    """The sections, the weights, and the data that is not made here. Raises `UserError`."""
    from model.baselines.params import BaselinesParams
    from model.predict.params import PredictParams
    from model.score.params import ScoreParams
    from pipeline.backbones.params import BackbonesParams
    from pipeline.features.params import FeaturesParams
    from pipeline.gallery.world import GalleryParams
    from pipeline.masks.recipe import MasksParams
    from pipeline.regions.params import RegionsParams
    from pipeline.similarity.params import SimilarityParams
    from pipeline.utterances.params import UtterancesParams

    sections = {
        "gallery": GalleryParams, "utterances": UtterancesParams, "regions": RegionsParams,
        "similarity": SimilarityParams, "features": FeaturesParams, "masks": MasksParams,
        "baselines": BaselinesParams, "predict": PredictParams, "score": ScoreParams,
    }  # fmt: skip
    for name, cls in sections.items():
        params.section(name, cls)
    if "shards" not in made_here:
        before_train(params)
    if "relabel" in made_here:
        before_relabel(params)
    backbones = params.section("backbones", BackbonesParams)
    for weights in (backbones.sam.checkpoint, backbones.clip.checkpoint, backbones.language_model):
        _weights(weights)


def before_relabel(params: Params) -> None:
    """The sections, the students, the finished round, and a folder of one's own. Raises `UserError`."""
    from model.relabel.folders import check_folders, check_round, check_students
    from model.relabel.params import SAID, RelabelParams
    from pipeline.parallel.map_shards import ParallelParams
    from stages._run import check_said

    params.section("parallel", ParallelParams)
    relabel = params.section("relabel", RelabelParams)
    check_said(params, "relabel", SAID)
    check_round(relabel.labels)
    check_folders(params.section("paths", Paths), relabel.labels)
    check_students(relabel.students)


def before_features(params: Params) -> None:
    """The sections, the encoders' weights and the artworks. Raises `UserError`."""
    from pipeline.backbones.params import BackbonesParams
    from pipeline.features.params import FeaturesParams

    paths, features = params.section("paths", Paths), params.section("features", FeaturesParams)
    backbones = params.section("backbones", BackbonesParams)
    _written(paths.step("utterances") / "artworks.parquet", "utterances")
    if features.sam_dtype != "none":
        _weights(backbones.sam.checkpoint)
    if features.clip_dtype != "none":
        _weights(backbones.clip.checkpoint)


def before_pseudo_masks(params: Params) -> None:
    """All sections, the csv's header, and the similarities' CLIP. Raises `UserError`.

    What regions need depends on their source, which asks for itself.
    """
    from pipeline.backbones.params import BackbonesParams
    from pipeline.masks.recipe import MasksParams
    from pipeline.regions.params import RegionsParams
    from pipeline.similarity.params import SimilarityParams
    from pipeline.utterances.params import UtterancesParams

    params.section("utterances", UtterancesParams)
    params.section("regions", RegionsParams)
    params.section("similarity", SimilarityParams)
    params.section("masks", MasksParams)
    before_plan(params)
    _weights(params.section("backbones", BackbonesParams).clip.checkpoint)


def before_plan(params: Params) -> None:
    """A csv that can be opened and has the columns. Raises `UserError`."""
    from pipeline.releases.artemis import read_layout
    from pipeline.utterances.params import UtterancesParams

    read_layout(params.section("paths", Paths).artemis, params.section("utterances", UtterancesParams))


def before_score(params: Params) -> None:
    """The section, and the tables that items come from. Raises `UserError`."""
    from model.score.params import ScoreParams

    params.section("score", ScoreParams)
    _written(params.section("paths", Paths).step("utterances") / "utterances.parquet", "utterances")


def before_look(paths: Paths) -> None:
    """The artworks. Raises `UserError`."""
    _written(paths.step("utterances") / "artworks.parquet", "utterances")


def before_pretraining(out: Path) -> None:
    """A folder to write to. Raises `UserError`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the weights")


def before_bench(params: Params, what: str, true_size: bool) -> None:
    """What is measured on: shards, the csv or a tokenizer; random weights need none. Raises `UserError`."""
    if what == "train" and not true_size:
        before_train(params)
    elif what in ("factory", "drift", "busy"):
        before_plan(params)
    elif what in ("peers", "gpu"):
        from pipeline.backbones.params import BackbonesParams

        _weights(params.section("backbones", BackbonesParams).language_model)


def _written(path: Path, step: str, first: str = " first") -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the {step} step{first}")


def _weights(path: Path) -> None:
    if not path.exists():
        raise UserError(f"weights {path} do not exist; check the `backbones` section of the params")
