"""Stage `masks`: pseudo emotion masks from regions and their similarities."""

from pipeline.masks.recipe import MasksParams
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from stages._run import Stage, tally_artworks

STAGE = Stage(
    "masks",
    MasksParams,
    build_masks,
    (("parallel", ParallelParams),),
    tally_artworks("masks"),
    unless="relabel",
)

if __name__ == "__main__":
    STAGE.main()
