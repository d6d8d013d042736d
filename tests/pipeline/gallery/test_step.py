"""The gallery is drawn where params ask for it, and only there."""

from pathlib import Path

import yaml

from pipeline.common.params import Paths, load_params
from pipeline.gallery.step import build_gallery
from pipeline.gallery.world import GalleryParams
from tests.imports import ROOT


def test_no_artworks_draw_nothing_and_leave_a_gallery_alone(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    assert build_gallery(paths, GalleryParams(artworks=0)) == {"artworks": 0}
    assert list(paths.step("gallery").iterdir()) == []
    build_gallery(paths, GalleryParams(artworks=2))
    before = sorted(paths.step("gallery").rglob("*"))
    build_gallery(paths, GalleryParams(artworks=0))
    assert sorted(paths.step("gallery").rglob("*")) == before


def test_the_papers_params_write_beside_the_gallery() -> None:
    """So that `cp params/artemis.yaml params.yaml && dvc repro` takes nothing away."""
    files = [ROOT / "params.yaml", ROOT / "params" / "artemis.yaml"]
    own, full = (load_params(file, "paths", Paths) for file in files)
    for name in ("data", "runs", "metrics", "report"):
        assert getattr(own, name) != getattr(full, name)
        assert getattr(own, name) in getattr(full, name).parents
    assert load_params(files[1], "gallery", GalleryParams).artworks == 0
    outs = [
        out
        for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
        for out in stage["outs"]
    ]
    assert all("${paths." in str(out) for out in outs)
