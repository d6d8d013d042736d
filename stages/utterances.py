"""Stage `utterances`: ArtEmis csv, pictures and APOLO's splits -> who said what about which artwork."""

from pipeline import utterances
from stages._run import Stage

STAGE = Stage("utterances", utterances.UtterancesParams, utterances.build)

if __name__ == "__main__":
    STAGE.main()
