"""`doctor` on ArtEmis, WikiArt and APOLO as they arrive: one level off, half unpacked, partly broken."""

import shutil
from pathlib import Path

import numpy as np

from model.metrics.text import find_java
from pipeline.doctor import check_data
from pipeline.doctor.examine import run_check
from pipeline.doctor.finding import Context
from tests.worlds.checkout import only, write_params


def test_wikiart_one_level_off_or_in_one_style(checkout: Path) -> None:
    wikiart = checkout / "gallery" / "wikiart"
    style = next(path for path in sorted(wikiart.iterdir()) if path.is_dir())
    for value, right in ((wikiart.parent, wikiart), (style, wikiart)):
        paths = {"artemis": "gallery/artemis/artemis_dataset_release_v0.csv", "wikiart": str(value)}
        write_params(paths=paths)
        found = only("wikiart", check_data.CHECKS["wikiart"])
        assert found.status == "fail"
        if value != style or "that is one style" in found.way_out:
            assert str(right) in found.way_out


def test_missing_and_broken_pictures_are_counted(checkout: Path) -> None:
    pictures = sorted((checkout / "gallery" / "wikiart").rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    context = Context(Path("params.yaml"), find_java)
    found = {
        f.found for f in run_check("wikiart", check_data.CHECKS["wikiart"], context) if f.status == "warn"
    }
    assert any(text.startswith("1 of 12 artworks have no picture") for text in found)
    assert any("1 of 11 pictures cannot be decoded" in text for text in found)


def test_the_two_damaged_files_of_the_official_zip_are_expected(checkout: Path) -> None:
    style, painting = check_data.KNOWN_BAD[0]
    good = next((checkout / "gallery" / "wikiart").rglob("*.jpg")).read_bytes()
    path = checkout / "gallery" / "wikiart" / style / f"{painting}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(good[: len(good) // 2])
    context = Context(Path("params.yaml"), find_java)
    found = list(run_check("wikiart", check_data.CHECKS["wikiart"], context))
    assert {finding.status for finding in found} == {"ok"}
    assert any("expected reject" in finding.found for finding in found)


def test_a_csv_full_of_rejects_is_a_warning_and_an_unpacked_zip_a_failure(checkout: Path) -> None:
    path = checkout / "gallery" / "artemis" / "artemis_dataset_release_v0.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *lines[:8], "a,b,joy,c,1", "only one field"]) + "\n")
    found = only("artemis", check_data.CHECKS["artemis"])
    assert found.status == "warn"
    assert "2 of the first 10 rows" in found.found
    shutil.make_archive(str(checkout / "artemis"), "zip", path.parent)
    shutil.copy(checkout / "artemis.zip", path)
    assert only("artemis", check_data.CHECKS["artemis"]).status == "fail"


def test_apolo_without_masks_or_boxes(checkout: Path) -> None:
    apolo = checkout / "gallery" / "apolo"
    shutil.rmtree(apolo / "apolo_pixel_map")
    (apolo / "apolo_pixel_map.zip").write_bytes(b"PK")
    write_params(regions={"source": "apolo"})
    shutil.rmtree(apolo / "arts_features_vinvl_bbox_col", ignore_errors=True)
    context = Context(Path("params.yaml"), find_java)
    found = [f for f in run_check("apolo", check_data.CHECKS["apolo"], context) if f.status == "fail"]
    assert [f.check for f in found] == ["apolo", "apolo boxes"]
    assert "unpack" in found[0].way_out
    boxes = apolo / "arts_features_vinvl_bbox_col"
    boxes.mkdir()
    np.save(boxes / "a.npy", np.array([[0, 0, 400, 300]], np.float32))  # pixels, where shares are expected
    np.save(boxes / "b.npy", np.array([[0, 0, 0.5, 0.5]], np.float32))
    found = [f for f in run_check("apolo", check_data.CHECKS["apolo"], context) if f.check == "apolo boxes"]
    assert (found[0].status, "1 of 2" in found[0].found) == ("warn", True)
