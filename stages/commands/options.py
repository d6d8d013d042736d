"""Options that most commands have."""

from pathlib import Path
from typing import Annotated

import typer

ParamsFile = Annotated[
    Path, typer.Option("--params", help="Params file; the default is the built-in gallery.")
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
PARAMS = Path("params.yaml")
