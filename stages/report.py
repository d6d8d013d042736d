"""Stage `report`: one page of scores, curves and pictures."""

from model.report.step import ReportParams, build_report
from pipeline.backbones.params import BackbonesParams
from stages._run import Stage

STAGE = Stage("report", ReportParams, build_report, (("backbones", BackbonesParams),))

if __name__ == "__main__":
    STAGE.main()
