"""Links between the folders of runs that share data."""

import os
from pathlib import Path


def link_text(source: Path, folder: Path) -> str:
    """What a link inside `folder` has to say to lead to `source`, which may be a link and is not followed.

    Relative, so that both can be moved together. Folders on the way may be links themselves: a link's text is
    read from where its folder really lies.
    """
    return os.path.relpath(source.parent.resolve() / source.name, folder.resolve())
