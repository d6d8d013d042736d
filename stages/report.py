"""Stage `report`: one page of scores, curves and pictures."""

from model import report
from pipeline.backbones import BackbonesParams
from stages._run import Stage

STAGE = Stage("report", report.ReportParams, report.build, (("backbones", BackbonesParams),))

if __name__ == "__main__":
    STAGE.main()
