"""Stage `utterances`: ArtEmis csv, pictures and APOLO's splits -> who said what about which artwork."""

from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances
from pipeline.utterances.tally import tally_utterances
from stages._run import Stage

STAGE = Stage("utterances", UtterancesParams, build_utterances, tally=tally_utterances)

if __name__ == "__main__":
    STAGE.main()
