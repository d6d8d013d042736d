"""A finding about weights that are not there ends with the command that fetches them."""

import dataclasses
from collections.abc import Iterator, Mapping

from pipeline.doctor.finding import Check, Context, Finding

BUILT_IN = "weights/tiny/"
"""They come with the repository: nobody else publishes them."""
FETCHED_AS = {"faster_rcnn": "faster-rcnn", "score.clip": "clip-score"}
"""Check -> its name for `fetch`, where that is another."""


def offering(check: Check, where: Mapping[str, str]) -> Check:
    """The same check, with that command behind each way out that ends in what `where` says of its finding."""

    def checked(context: Context) -> Iterator[Finding]:
        for finding in check(context):
            official = finding.check in where and finding.way_out.endswith(where[finding.check])
            if official and finding.status == "fail" and BUILT_IN not in finding.found:
                command = _command(finding.check, context)
                yield dataclasses.replace(finding, way_out=f"{finding.way_out}. To fetch it: {command}")
            else:
                yield finding

    return checked


def _command(name: str, context: Context) -> str:
    what = FETCHED_AS.get(name, name)
    if name == "language_model":
        folder = context.section("backbones").language_model.name
        what = folder if folder in ("gpt2", "gpt2-large") else "distilgpt2"
    return f"python cli.py fetch {what} --params {context.params_file}"
