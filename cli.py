"""What a person types. Every command is a DVC stage's own code, or a library call; heavy imports stay inside.

The commands are functions in stages/commands/. Numbers live in params.yaml alone: no option repeats one. A
command reads it once, and returns what is to stand on stdout, of which this file is the only writer. Exit
codes: 0 done, 1 failed, 2 wrong usage or params.
"""

import functools
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

try:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have an older one
        raise ImportError("Python 3.11 or newer is needed")
    import typer

    from pipeline.common import command as command_line
    from stages.commands import bench, factory, labels, models, prepare, scoring
    from stages.commands.answer import Answer
    from stages.commands.options import PARAMS
except ImportError as error:
    if (getattr(error, "name", None) or "").partition(".")[0] in ("cli", "pipeline", "model", "stages"):
        raise
    raise SystemExit(
        f"error: {sys.executable} cannot run emosem ({error}); use the Python that it is installed in, after "
        "`source .venv/bin/activate` for instance, or install it: `make repro`, or `pip install -e '.[all]'`"
    ) from None

app = typer.Typer(
    help="EmoSEM: pseudo emotion masks from ArtEmis, and a model that segments and explains emotion in art.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    factory.gallery,
    factory.build_pseudo_masks,
    factory.cache_features,
    factory.relabel,
    models.train,
    models.predict,
    models.export,
    scoring.score,
    scoring.label_card,
    scoring.ablations,
    labels.shard_stats,
    labels.export_masks,
    labels.review,
    labels.import_reviews,
    labels.look,
    scoring.report,
    bench.bench,
    prepare.plan,
    prepare.doctor,
    prepare.fetch,
    prepare.init,
    models.pretrain_tiny,
)
"""As `--help` lists them. A command is called as its function is, with hyphens."""


@app.callback()
def front_door(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Versions of emosem, Python and PyTorch.")
    ] = False,
    params: Annotated[
        Path | None, typer.Option("--params", help="Params file to look at; with a command, after it.")
    ] = None,
) -> None:
    """EmoSEM: pseudo emotion masks from ArtEmis, and a model that segments and explains emotion in art.

    Without a command: what stands in this folder, and what to do next.
    """
    if version:
        command_line.say(f"{versions()}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        from stages._status import status_text

        command_line.say(f"{status_text(params or PARAMS)}\n")
    elif params is not None:
        raise typer.BadParameter(f"belongs after {context.invoked_subcommand}", param_hint="--params")


def versions() -> str:
    """Versions of emosem, Python and PyTorch, as their packages say."""
    found = {"Python": platform.python_version()}
    for title, package in (("emosem", "emosem"), ("PyTorch", "torch")):
        try:
            found[title] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[title] = "not installed"
    return f"emosem {found['emosem']} (Python {found['Python']}, PyTorch {found['PyTorch']})"


def register(command: Callable[..., Answer]) -> None:
    """Add a command whose answer alone goes to stdout: whatever else prints, prints to stderr."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        with command_line.stdout_for_results():
            text, code = command(**options)
        command_line.say(f"{text.rstrip()}\n")
        if code:
            raise typer.Exit(code)

    app.command()(run)


for command in COMMANDS:
    register(command)


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, a failed run's is 1; no traceback."""
    command_line.main(app, "error")


if __name__ == "__main__":
    main()
