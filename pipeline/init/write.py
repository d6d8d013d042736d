"""`init`'s answer: the params file that it writes, for a csv, or for pictures alone."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.params import Params, Paths
from pipeline.init.pictures import count_pictures
from pipeline.init.understand import Understood, understand
from pipeline.releases.names import unaccented
from pipeline.releases.source import PLAIN, Source
from pipeline.utterances.params import UtterancesParams

PRESETS = Path(__file__).parent / "presets"
PER_SHARD = 200
"""Artworks: SAM's embeddings then are 400 MiB a shard."""
UNKNOWN = 20
"""Words that are listed in the file."""


def init_csv(
    csv: Path, images: Path, apolo: Path | None, preset: str | None, out: Path | None, force: bool
) -> tuple[Path, str]:
    """Write a params file for a csv and its pictures; its path, and what was understood.

    Raises `UserError` where they cannot be used, or the file is there already and `force` is false.
    """
    name = _slug(out.stem if out is not None else csv.stem)
    file = _free(out or Path(f"{name}.yaml"), force)
    found = understand(csv, images, apolo)
    chosen = preset or ("photos" if found.source.layout in ("affection", "images") else "artemis")
    paths = _paths(name, csv, found.pictures.folder, apolo, chosen)
    head = f"init --artemis {csv} --images {images}"
    _write(file, head, paths, _utterances(found), name, chosen)
    paths.apolo.mkdir(parents=True, exist_ok=True)  # DVC wants its dependencies to be there
    lines = [*found.lines, ("preset", _about(chosen, preset)), ("written", _written(file, paths))]
    return file, _table(lines)


def init_pictures(images: Path, preset: str | None, out: Path | None, force: bool) -> tuple[Path, str]:
    """Write a params file to predict with, for pictures of which nobody has said anything yet.

    Raises `UserError` where there is no picture, or the file is there already and `force` is false.
    """
    count = count_pictures(images)
    name = _slug(out.stem if out is not None else images.resolve().name)
    file = _free(out or Path(f"{name}.yaml"), force)
    chosen = preset or "tiny"
    paths = _paths(name, Path(f"{name}.csv"), images, None, chosen)
    _write(
        file,
        f"init --images {images}",
        paths,
        {"layout": "images", "num_shards": _shards(count)},
        name,
        chosen,
    )
    models = sorted(path.parent for path in Path("runs").glob("**/model.safetensors"))
    model = models[0] if models else Path("runs/single")
    lines = [
        ("pictures", f"{images}: {count} files"),
        ("preset", _about(chosen, preset)),
        ("written", str(file)),
        ("predict", f"python cli.py predict {model} {images} --emotion all --params {file}"),
        *(
            []
            if models
            else [("", f"needs a trained model; there is none in runs: dvc repro trains {model}")]
        ),
        ("pseudo-masks", f"need words: write {paths.artemis} with the columns image,emotion,utterance, then"),
        ("", f"python cli.py init --artemis {paths.artemis} --images {images} --force"),
    ]
    return file, _table(lines)


def _free(file: Path, force: bool) -> Path:
    if file.exists() and not force:
        raise UserError(
            f"{file} is there already; name another file with --out, or write over it with --force"
        )
    return file


def _slug(name: str) -> str:
    """A name for folders: lower-case letters and digits of any script, and hyphens."""
    plain = re.sub(r"[\W_]+", "-", unaccented(name).lower()).strip("-")
    return plain[:40] or "mine"


def _paths(name: str, csv: Path, images: Path, apolo: Path | None, preset: str) -> Paths:
    data = Path("data") / name
    return Paths(
        artemis=csv,
        wikiart=images,
        apolo=apolo or data / "no-apolo",
        weights=Path("weights/tiny" if preset == "tiny" else "weights"),
        data=data,
        runs=Path("runs") / name,
        metrics=Path("metrics") / name,
        report=Path("report") / name,
    )


def _utterances(found: Understood) -> dict[str, Any]:
    """The section `utterances`: what is not as the layout has it."""
    values = {field: getattr(found.source, field) for field in Source.__dataclass_fields__}
    values = {field: value for field, value in values.items() if value != getattr(PLAIN, field)}
    return values | {"num_shards": _shards(found.pictures.files)}


def _shards(pictures: int) -> int:
    return max(1, math.ceil(pictures / PER_SHARD))


def _write(
    file: Path, command: str, paths: Paths, utterances: Mapping[str, Any], name: str, preset: str
) -> None:
    """Write the file, and read it back. Raises `UserError` where it would not be read."""
    blocks = (PRESETS / ("tiny.yaml" if preset == "tiny" else "official.yaml")).read_text(encoding="utf-8")
    text = "\n".join(
        [
            f"# Written by: python cli.py {' '.join(command.split())}",
            "# Use it by --params, or as params.yaml with DVC. What the keys mean: docs/your_data.md.",
            "",
            _section("paths", {key: str(getattr(paths, key)) for key in Paths.__dataclass_fields__}),
            "gallery: {artworks: 0}  # none is drawn",
            _section("utterances", utterances),
            f"shards: {{name: {json.dumps(f'emosem-{name}')}}}",
            blocks,
        ]
    )
    write_bytes(file, text.encode())
    params = Params.read(file)
    params.section("paths", Paths)
    params.section("utterances", UtterancesParams)


def _section(name: str, values: Mapping[str, Any]) -> str:
    """A section in YAML's JSON: texts in double quotes, whatever is in them."""
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([f"{name}:", *lines])


def _about(chosen: str, asked: str | None) -> str:
    about = {
        "artemis": "artemis: the paper's models and training, with the official weights",
        "photos": "photos: the paper's models and training, with the official weights, on photographs",
        "tiny": "tiny: the built-in small models, which know only the gallery: quick, not to be believed",
    }[chosen]
    return about if asked else f"{about} (--preset {' or '.join(p for p in _NAMES if p != chosen)})"


_NAMES = ("artemis", "photos", "tiny")


def _written(file: Path, paths: Paths) -> str:
    return f"{file}; results go to {paths.data}, {paths.runs}, {paths.metrics}, {paths.report}"


def _table(lines: list[tuple[str, str]]) -> str:
    return "\n".join(f"{what:<13} {text}" for what, text in lines)
