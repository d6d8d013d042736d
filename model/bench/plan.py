"""Training's part of `plan`: what each variant takes over the whole data set, timed on a few artworks."""

from typing import Any

from model.train.params import TrainParams
from pipeline.backbones.params import BackbonesParams
from pipeline.common.command import OURS, missing_package
from pipeline.common.errors import UserError
from pipeline.common.params import ParamsFile, Paths, load_params
from pipeline.common.progress import waiting
from pipeline.plan.plan import StepPlan
from pipeline.plan.timing import NEEDS_FEATURES
from pipeline.plan.workload import Counts

STEPS = 3
"""Micro-batches measured: a plan only has to be about right."""


def plan_training(
    params_file: ParamsFile, counts: Counts, sample: Paths | None, feature_bytes: int
) -> list[StepPlan]:
    """Training as steps of a plan: each variant over the whole data set.

    Args:
        params_file: as every command takes it.
        counts: of the whole data set.
        sample: where the shards of a few artworks lie, all of them in split train; None when there are none.
        feature_bytes: of one artwork. An epoch reads each artwork once, which holds for ``train.window: 1``.
    """
    paths = load_params(params_file, "paths", Paths)
    params = load_params(params_file, "train", TrainParams)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    steps = []
    for name in params.variants:
        variant = params.of(name)
        each_epoch = counts.train_utterances if variant.visit == "utterance" else counts.train_pairs
        items = variant.epochs * each_epoch
        measured: dict[str, Any] = {}
        problem = "" if sample else NEEDS_FEATURES
        try:
            if sample is not None:
                with waiting("plan", f"timing {STEPS} steps of train@{name}"):
                    from model.bench.train import bench_variant  # seconds, for a plan that measures nothing

                    measured = bench_variant(sample, variant, backbones, steps=STEPS)
        except UserError as error:  # SAM or the language model is missing
            problem = str(error)
        except ModuleNotFoundError as error:  # named now; the steps measured before are a plan all the same
            if (error.name or "").partition(".")[0] in OURS:
                raise
            problem = missing_package(error)
        rate = measured.get("samples_per_second")
        folder = paths.runs / name
        steps.append(
            StepPlan(
                step=f"train@{name}",
                items=items,
                unit="samples",
                read_bytes=variant.epochs * counts.train_artworks * feature_bytes,
                write_bytes=measured.get("written"),
                done=int((folder / "model.safetensors").is_file()),
                parts=1,
                rate=rate,
                rate_unit="samples/s",
                measured_on=STEPS * variant.batch_size if rate else 0,
                hours=items / rate / 3600 if rate else None,
                problem=problem,
                folder=folder.as_posix(),
            )
        )
    return steps
