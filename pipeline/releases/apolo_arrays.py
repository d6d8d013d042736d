"""The arrays of the APOLO release, truth masks and VinVL boxes, with the quirks of their file names.

All of the release's naming habits are handled here and nowhere else: dots kept in file names, ``.`` written
as ``#`` in some, mojibake such as "eugã¨ne" beside "eugène" and "eugene". Nothing is unpickled.
"""

import functools
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.common.arrays import NoArray, read_npy
from pipeline.releases.names import MOJIBAKE, mend_mojibake, plain_name, unaccented, unsafe_name

MAPS = "apolo_pixel_map"
"""Folder of the truth masks."""
BOXES = "arts_features_vinvl_bbox_col"
"""Folder of the VinVL boxes."""


class BadArray(Exception):  # noqa: N818 - named for what it says, as `artworks.BadImage`
    """A released ``.npy`` file that cannot be used.

    Reasons: those of `NoArray`, wrong-shape, wrong-values.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def without_mojibake(name: str) -> str:
    """As `mend_mojibake`, with the plain letter: "eugã¨ne" -> "eugene", the release's habit for box files."""
    return MOJIBAKE.sub(lambda pair: unaccented(mend_mojibake(pair[0])), name)


def _spellings(name: str) -> Iterator[str]:
    """File-name forms under which the release may hold a painting, the most likely first."""
    mended = mend_mojibake(name)
    forms = [name, without_mojibake(name), mended, plain_name(name)]
    forms += [unicodedata.normalize(form, text) for text in (name, mended) for form in ("NFC", "NFD")]
    forms += [form.replace(".", "#") for form in forms] + [form.replace("#", ".") for form in forms]
    yield from dict.fromkeys(forms)


def _find(folder: Path, painting: str, suffix: str) -> Path | None:
    """The file ``PAINTING + suffix`` in any spelling, or None."""
    if unsafe_name(painting) is not None:
        return None
    candidates = (folder / f"{form}{suffix}" for form in _spellings(painting))
    exact = next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113 - never raises
    if exact is not None or not folder.is_dir():
        return exact
    near = _plain_files(folder, folder.stat().st_mtime_ns).get(plain_name(painting + suffix), [])
    return folder / near[0] if len(near) == 1 else None


@functools.lru_cache(maxsize=4)
def _plain_files(folder: Path, _modified: int) -> dict[str, list[str]]:
    """Plain name -> files of a folder: finds the garbled file of a painting whose own name is sound."""
    files: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        files.setdefault(plain_name(path.name), []).append(path.name)
    return files


def map_path(apolo: Path, painting: str, emotion: str) -> Path | None:
    """The released mask of a painting and an emotion, or None."""
    return _find(apolo / MAPS, painting, f"_{emotion}.npy")


def boxes_path(apolo: Path, painting: str) -> Path | None:
    """The released VinVL boxes of a painting, or None."""
    return _find(apolo / BOXES, painting, ".npy")


def _shown(path: Path) -> str:
    """A file by its place in the release: messages end on pages, whose readers have no use for the disk."""
    return f"{path.parent.name}/{path.name}"


def _load_array(path: Path) -> np.ndarray:
    """A ``.npy`` file, without running anything that it holds."""
    try:
        return read_npy(path)
    except NoArray as error:
        advice = (
            "; if you trust it, convert it once: "
            "np.save(path, np.load(path, allow_pickle=True).astype('float32'))"
            if error.reason == "pickled"
            else ""
        )
        raise BadArray(error.reason, f"{_shown(path)}: {error}{advice}") from None


def load_truth(path: Path) -> np.ndarray:
    """A released truth mask, bool (H, W), at the resolution of its file (usually the picture's).

    Every value above zero is inside. Raises `BadArray`.
    """
    array = _load_array(path)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise BadArray("wrong-shape", f"{_shown(path)} has shape {array.shape}, expected (H, W)")
    if not np.isfinite(array).all():
        raise BadArray("wrong-values", f"{_shown(path)} holds NaN or infinite values")
    truth: np.ndarray = array > 0
    return truth


def load_boxes(path: Path) -> np.ndarray:
    """Released VinVL boxes as float32 (N, 4): x1 y1 x2 y2, normalised to [0, 1].

    Every row of the file, in its order, broken ones too: what reaches outside, is empty or not finite is
    the reader's to sort out and count. Further columns are ignored.
    Raises `BadArray`, also when most boxes are in pixels.
    """
    array = _load_array(path)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] < 4:
        raise BadArray("wrong-shape", f"{_shown(path)} has shape {array.shape}, expected (N, 4) or wider")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is broken too
        boxes: np.ndarray = array[:, :4].astype(np.float32)
    if not are_normalised(boxes):
        raise BadArray(
            "wrong-values", f"{_shown(path)} holds pixels, {boxes[0]} ...; it must hold shares in [0, 1]"
        )
    return boxes


def are_normalised(boxes: np.ndarray) -> bool:
    """Whether boxes (N, 4) are shares of the picture's sides: few reach far beyond 1."""
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    return not len(finite) or float(np.median(finite.max(axis=1))) <= 1.5
