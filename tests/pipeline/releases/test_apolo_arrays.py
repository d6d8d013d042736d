"""The APOLO release's arrays: found under every spelling of their names, and read without pickles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.releases import apolo_arrays
from pipeline.releases.apolo_arrays import BadArray
from pipeline.releases.names import plain_name


@pytest.mark.parametrize(
    ("asked", "on_disk"),
    [
        ("j.m.w.-turner_x", "j.m.w.-turner_x"),
        ("j.m.w.-turner_x", "j#m#w#-turner_x"),
        ("j#m#w#-turner_x", "j.m.w.-turner_x"),
        ("eugã¨ne-boudin_x", "eugene-boudin_x"),
        ("eugã¨ne-boudin_x", "eugène-boudin_x"),
        ("eugã¨ne-boudin_x", "eugã¨ne-boudin_x"),
        ("eugène-boudin_x", "eugene-boudin_x"),
        ("eugène-boudin_x", "euge\u0300ne-boudin_x"),
        ("eugã¨ne-b.-boudin_x", "eugene-b#-boudin_x"),
        ("eugã¨ne-boudin_la-journée", "eugene-boudin_la-journée"),
    ],
)
def test_spellings_of_one_name(tmp_path: Path, asked: str, on_disk: str) -> None:
    assert plain_name(asked) == plain_name(on_disk)
    for folder, suffix, find in (
        (apolo_arrays.BOXES, "", lambda: apolo_arrays.boxes_path(tmp_path, asked)),
        (apolo_arrays.MAPS, "_awe", lambda: apolo_arrays.map_path(tmp_path, asked, "awe")),
    ):
        (tmp_path / folder).mkdir()
        assert find() is None
        path = tmp_path / folder / f"{on_disk}{suffix}.npy"
        path.touch()
        assert find() == path


def test_unsafe_names_find_nothing(tmp_path: Path) -> None:
    (tmp_path / apolo_arrays.BOXES).mkdir()
    (tmp_path / "secret.npy").touch()
    assert apolo_arrays.boxes_path(tmp_path, "../secret") is None


@pytest.mark.parametrize(
    "array",
    [
        np.eye(3, dtype=np.uint8),
        np.eye(3, dtype=bool),
        np.eye(3, dtype=np.uint8) * 255,
        np.eye(3, dtype=np.float64),
        np.asfortranarray(np.eye(3, dtype=np.int64)),
        np.eye(3, dtype=np.uint8)[..., None],
    ],
)
def test_truth_in_any_plain_form(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    truth = apolo_arrays.load_truth(tmp_path / "a.npy")
    assert truth.dtype == bool and truth.tolist() == np.eye(3, dtype=bool).tolist()


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def bad_array(path: Path) -> BadArray:
    with pytest.raises(BadArray) as caught:
        apolo_arrays.load_truth(path)
    return caught.value


def test_pickles_are_refused_with_advice_and_never_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Evil(tmp_path / "pwned")], dtype=object), allow_pickle=True)
    error = bad_array(tmp_path / "a.npy")
    assert error.reason == "pickled" and "astype" in error.detail
    (tmp_path / "b.npy").write_bytes(b"\x80\x04K\x01.")  # a bare pickle
    assert bad_array(tmp_path / "b.npy").reason in ("pickled", "not-npy")
    assert not (tmp_path / "pwned").exists()


def test_arrays_that_cannot_be_used(tmp_path: Path) -> None:
    assert bad_array(tmp_path / "nowhere.npy").reason == "missing"
    (tmp_path / "empty.npy").touch()
    assert bad_array(tmp_path / "empty.npy").reason == "not-npy"
    np.save(tmp_path / "cut.npy", np.zeros((100, 100)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    assert bad_array(tmp_path / "cut.npy").reason == "not-npy"
    np.savez(tmp_path / "zip.npz", a=np.zeros(3))
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    assert bad_array(tmp_path / "zip.npy").reason == "not-npy"
    for name, array, reason in (
        ("flat", np.zeros(4), "wrong-shape"),
        ("colour", np.zeros((4, 4, 3)), "wrong-shape"),
        ("none", np.zeros((0, 4)), "wrong-shape"),
        ("text", np.array([["a"]]), "wrong-values"),
        ("nan", np.full((2, 2), np.nan), "wrong-values"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        assert bad_array(tmp_path / f"{name}.npy").reason == reason, name


def test_a_header_that_promises_terabytes_costs_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 10), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(10, 10), }" + b" " * 10, b"(9999999, 9999999), }"))
    assert bad_array(tmp_path / "a.npy").reason == "not-npy"


def test_boxes(tmp_path: Path) -> None:
    rows = [[0.1, 0.2, 0.5, 0.6, 9], [-0.1, 0, 1.1, 1, 9], [0.5, 0.5, 0.5, 0.9, 9], [np.nan, 0, 1, 1, 9]]
    np.save(tmp_path / "a.npy", np.array(rows))
    boxes = apolo_arrays.load_boxes(tmp_path / "a.npy")
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.array(rows, np.float32)[:, :4])
    np.save(tmp_path / "a.npy", np.zeros((0, 4)))
    assert apolo_arrays.load_boxes(tmp_path / "a.npy").shape == (0, 4)
    np.save(tmp_path / "a.npy", np.array([[10.0, 20, 200, 300]]))
    with pytest.raises(BadArray, match="wrong-values"):
        apolo_arrays.load_boxes(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(BadArray, match="wrong-shape"):
        apolo_arrays.load_boxes(tmp_path / "a.npy")
