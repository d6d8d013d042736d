"""Which file an annotation's picture is: ART_STYLE/PAINTING.jpg, or the file that the csv names."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.releases import wikiart
from pipeline.releases.names import UNPRINTABLE, plain_name
from pipeline.releases.wikiart import BadImage

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
"""Of files that may be pictures."""


class PictureFolder:
    """A folder of pictures; its files are listed once, when the first picture is looked for by its file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, list[str]] | None = None

    def find(self, art_style: str, painting: str, image: str = "") -> Path:
        """The picture's file below the folder. Raises `BadImage`: as `wikiart.find`.

        `image`: the file as the csv names it. What is before its name need not be there: the file is the one
        below the folder whose path has the most parts in common with the csv's, counted from the end, and
        then with the csv's art style or data set.
        """
        if not image:
            return wikiart.find(self.root, art_style, painting)
        if self._listed is None:
            self._listed = list_pictures(self.root)
        candidates = self._candidates(image)
        best = _longest_match(candidates, image)
        if len(best) > 1:
            data_set = art_style.partition("/")[0]
            best = [path for path in best if _in_set(path, data_set)] or best
        if len(best) > 1:
            raise BadImage("ambiguous-name", f"{image} could be {' or '.join(map(repr, best[:3]))}")
        if not best:
            raise BadImage("missing", f"no {image!r} in {self.root}, nor in a folder in it")
        return self.root / best[0]

    def _candidates(self, image: str) -> list[str]:
        """Files of that name: spelt the same, or else in other case, accents, or with another extension."""
        name = PurePosixPath(image)
        listed = self._listed or {}
        stem = name.stem if name.suffix.lower() in EXTENSIONS else name.name
        near = listed.get(plain_name(stem), [])
        same = [path for path in near if _nfc(PurePosixPath(path).name) == _nfc(name.name)]
        if same or name.suffix.lower() not in EXTENSIONS:
            return same or near
        ending = name.suffix.lower()
        return [path for path in near if PurePosixPath(path).suffix.lower() == ending] or near


def list_pictures(root: Path) -> dict[str, list[str]]:
    """Plain name of a picture, without its extension -> its files below `root`, relative to it, sorted.

    Links to folders are followed, each folder once; names that are no text are left out.
    """
    found: dict[str, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        here = os.stat(folder)  # noqa: PTH116 - a text, as os.walk gives it
        if (here.st_dev, here.st_ino) in seen:
            names.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        names[:] = sorted(name for name in names if not name.startswith(".") and not UNPRINTABLE.search(name))
        below = Path(folder).relative_to(root).as_posix()
        for file in sorted(files):
            stem, ending = os.path.splitext(file)  # noqa: PTH122 - a name, not a path
            if ending.lower() in EXTENSIONS and not file.startswith(".") and not UNPRINTABLE.search(file):
                path = file if below == "." else f"{below}/{file}"
                found.setdefault(plain_name(stem), []).append(path)
    return found


def _longest_match(paths: Sequence[str], image: str) -> list[str]:
    """Those of the paths that share the most parts with the csv's, counted from the end."""
    wanted = [plain_name(part) for part in reversed(PurePosixPath(image).parts[:-1])]
    if not wanted:
        at_top = [path for path in paths if "/" not in path]
        return at_top or list(paths)

    def shared(path: str) -> int:
        parts = [plain_name(part) for part in reversed(PurePosixPath(path).parts[:-1])]
        count = 0
        for ours, theirs in zip(parts, wanted, strict=False):
            if ours != theirs:
                break
            count += 1
        return count

    most = max(map(shared, paths), default=0)
    return [path for path in paths if shared(path) == most]


def _in_set(path: str, data_set: str) -> bool:
    """Whether one of the path's folders is named like the data set, or like its first words."""
    plain = plain_name(data_set)
    folders = [plain_name(part) for part in PurePosixPath(path).parts[:-1]]
    return bool(plain) and any(part and f"{plain}_".startswith(f"{part}_") for part in folders)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
