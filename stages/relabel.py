"""Stage `relabel`: the next round's labels from a finished round's labels and its students' masks."""

from model.relabel.params import SAID, RelabelParams
from model.relabel.step import relabel
from pipeline.parallel.map_shards import ParallelParams
from stages._run import Stage, tally_artworks

STAGE = Stage(
    "relabel",
    RelabelParams,
    relabel,
    (("parallel", ParallelParams),),
    tally_artworks("masks"),
    says=SAID,
)

if __name__ == "__main__":
    STAGE.main()
