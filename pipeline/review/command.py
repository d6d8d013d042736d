"""What the command `review` does: serves the page until it is stopped, or writes it to one file."""

import base64
import contextlib
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backbones.params import SamParams
from pipeline.common.errors import UserError
from pipeline.common.files import check_writable, write_bytes
from pipeline.common.params import Paths
from pipeline.review.box_prompt import BoxPrompt
from pipeline.review.deck import Deck, Wish
from pipeline.review.material import Material
from pipeline.review.page import OFFLINE_POLICY, render
from pipeline.review.server import ReviewServer
from pipeline.review.service import Service
from pipeline.review.store import Store
from pipeline.reviews.verdicts import LONGEST_NAME, is_name
from pipeline.shard_stats.labels import ShardStatsParams

STATIC_SIDE = 512
"""Long side of a picture in a static page, pixels."""


@dataclass(frozen=True)
class ReviewOptions:
    """What the command line asks for."""

    by: str
    """The reviewer that the page begins with."""
    port: int = 0
    """0: any free one."""
    opened: bool = True
    """Whether a browser is opened."""


def new_service(paths: Paths, stats: ShardStatsParams, sam: SamParams, by: str) -> Service:
    """What answers for the shards and reviews of `paths`. Raises `UserError` without shards."""
    if by and not is_name(by):
        raise UserError(f"{by[:80]!r} is no reviewer's name: 1 to {LONGEST_NAME} printable characters")
    material = Material(paths)
    deck = Deck(paths.step("shards"), stats)
    return Service(deck, material, Store(paths.reviews), BoxPrompt(material.index, sam), by)


def serve(paths: Paths, stats: ShardStatsParams, sam: SamParams, options: ReviewOptions) -> dict[str, Any]:
    """Serve the page until Ctrl-C or SIGTERM; returns the numbers of all verdicts.

    Raises `UserError` without shards, where the port is taken or `paths.reviews` cannot be written to.
    """
    service = new_service(paths, stats, sam, options.by)
    check_writable(paths.reviews)
    with ReviewServer(service, options.port) as server, _stopping(server):
        print(
            f"review: {server.address}\nreview: for this machine alone, and for who has that address; "
            f"verdicts go to {paths.reviews}; Ctrl-C ends",
            file=sys.stderr,
            flush=True,
        )
        if options.opened and _has_screen():
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        server.serve_forever(poll_interval=0.2)
    return service.statistics()


def _has_screen() -> bool:
    """Whether a browser has a window to open: on a server it would be one in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _stopping(server: ReviewServer) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the server, not the command: nothing is pending, for all is on disk."""

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()  # from its own thread it would wait

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_static(service: Service, file: Path, wish: Wish, count: int) -> dict[str, Any]:
    """The page as one file that nobody can judge on: `count` masks of a wish. Returns what it holds.

    Raises `UserError` where there is none, or the file cannot be written.
    """
    pairs, _ = service.deck.pairs(wish)
    if not pairs:
        raise UserError("no mask fits these filters; leave some out")
    masks = [_static_item(service, key, emotion) for key, emotion in pairs[:count]]
    data = {"start": {**service.start(), "by": ""}, "masks": masks, "statistics": service.statistics()}
    page = render(data, OFFLINE_POLICY).encode()
    write_bytes(file, page)
    return {"file": str(file), "masks": len(masks), "of": len(pairs), "bytes": len(page)}


def _static_item(service: Service, key: str, emotion: str) -> dict[str, Any]:
    item = service.item(key, emotion, "")
    images = {
        "picture": _uri("jpeg", service.material.picture(key, STATIC_SIDE)),
        "mask": _uri("png", service.mask("mask", key, emotion)),
    }
    if item["truth"]:
        images["truth"] = _uri("png", service.mask("truth", key, emotion))
    for number in range(len(item["predictions"])):
        images[f"prediction/{number}"] = _uri("png", service.mask("prediction", key, emotion, number))
    return {**item, "images": images}


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def numbers_text(found: dict[str, Any]) -> str:
    """The numbers of `Service.statistics` for a terminal."""
    who = ", ".join(f"{by} {count}" for by, count in found["reviewers"].items()) or "nobody yet"
    alpha = found["agreement"]["alpha"]
    agreed = f"{alpha:.3f}" if alpha is not None else f"not known: {found['agreement']['why']}"
    lines = [f"{found['verdicts']} verdicts ({who})", f"Krippendorff's alpha: {agreed}"]
    for name, row in found["precision"].items():
        if row["judged"]:
            lines.append(
                f"{name:>12}  {row['good']} of {row['judged']} good, {100 * row['precision']:.1f} % "
                f"({100 * row['low']:.1f} to {100 * row['high']:.1f})"
            )
    return "\n".join(lines)
