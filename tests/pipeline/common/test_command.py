"""How commands begin and end: any locale, any stdout and stderr, one snapshot of the params."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.common.command import say, stdout_for_results
from pipeline.common.errors import RunFailed
from pipeline.common.params import Params
from stages.commands.factory import build_pseudo_masks
from stages.masks import STAGE as MASKS
from stages.utterances import STAGE as UTTERANCES
from tests.imports import ROOT
from tests.worlds.checkout import write_params

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
OUTSIDE = {
    name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))
}


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = OUTSIDE | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, env=environment, encoding="utf-8", check=False, **pipes)


def cli(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(str(ROOT / "cli.py"), *arguments, **options)


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("locales")
    localedef = shutil.which("localedef")
    if localedef is None:
        pytest.skip("no localedef here")
    made = folder / "en_US.ISO-8859-1"
    subprocess.run(
        [localedef, "-i", "en_US", "-f", "ISO-8859-1", str(made)], check=False, capture_output=True
    )
    if not made.is_dir():
        pytest.skip("localedef has no sources of locales here")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


def accented(checkout: Path) -> str:
    """Give one artwork of the gallery an accent, in its csv and on disk; returns its new name."""
    csv = next(checkout.glob("gallery/artemis/*.csv"))
    picture = sorted(checkout.glob("gallery/wikiart/*/*.jpg"))[0]
    name = f"{picture.stem}-café-ä"
    csv.write_text(csv.read_text("utf-8").replace(f",{picture.stem},", f",{name},"), "utf-8")
    picture.rename(picture.with_name(f"{name}.jpg"))
    return name


def kept(checkout: Path) -> tuple[bytes, list[str]]:
    """The bytes of the utterances' tables and the paths in them."""
    files = sorted((checkout / "data" / "utterances").glob("*.parquet"))
    artworks = next(file for file in files if file.name == "artworks.parquet")
    return b"".join(file.read_bytes() for file in files), pq.read_table(artworks)["path"].to_pylist()


@pytest.mark.parametrize("kind", ["ascii", "latin"])
def test_a_locale_without_utf8_changes_nothing(
    kind: str, checkout: Path, request: pytest.FixtureRequest
) -> None:
    name = accented(checkout)
    environment = ASCII if kind == "ascii" else request.getfixturevalue("latin")
    UTTERANCES.run(Path("params.yaml"))
    expected, paths = kept(checkout)
    assert any(path.endswith(f"{name}.jpg") for path in paths)
    shutil.rmtree("data")
    done = run("-m", "stages.utterances", env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert kept(checkout) == (expected, paths)
    asked = cli("doctor", "--params", "paramè.yaml", env=environment)
    assert asked.returncode == 1
    assert "params file paramè.yaml does not exist" in asked.stdout


def test_where_utf8_cannot_be_had_it_is_refused(checkout: Path) -> None:
    """A process that is replaced once is not replaced again, and a library cannot replace one at all."""
    done = run("-X", "utf8=0", str(ROOT / "cli.py"), "plan", env=ASCII | {"PYTHONUTF8": "1"})
    assert done.returncode == 2
    assert "PYTHONUTF8=1" in done.stderr and "Traceback" not in done.stderr
    code = "from pathlib import Path; from pipeline.common.params import Params; Params.read(Path('x'))"
    library = run("-c", code, env=ASCII)
    assert "UserError: Python takes file names for" in library.stderr


@pytest.mark.parametrize("arguments", [["gallery", "out", "--artworks", "1"], ["--help"], ["plan", "--help"]])
def test_stdout_that_is_full_is_one_message(arguments: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = cli(*arguments, cwd=tmp_path, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: stdout cannot be written to (No space left")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_stdout_that_is_closed_is_one_message_and_no_file_takes_its_place(tmp_path: Path) -> None:
    script = 'exec "$0" "$1" gallery out --artworks 1 --json >&- 2>err'
    command = ["bash", "-c", script, sys.executable, str(ROOT / "cli.py")]
    done = subprocess.run(command, cwd=tmp_path, env=OUTSIDE | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 1
    assert "error: stdout cannot be written to (Bad file descriptor)" in (tmp_path / "err").read_text()
    assert b"artworks" not in b"".join(file.read_bytes()[:100] for file in tmp_path.glob("out/wikiart/*/*"))


def test_a_reader_that_leaves_gets_no_traceback(tmp_path: Path) -> None:
    script = 'set -o pipefail; "$0" "$1" gallery out --artworks 1 2>err | true; echo $?'
    command = ["bash", "-c", script, sys.executable, str(ROOT / "cli.py")]
    environment = OUTSIDE | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1"
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_a_log_that_cannot_be_written_ends_no_run(checkout: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = run("-m", "stages.utterances", stderr=full)
    assert (done.returncode, done.stdout) == (0, "")
    assert Path("metrics/utterances.json").is_file()


def test_a_closed_log_does_not_get_into_the_results(tmp_path: Path) -> None:
    script = 'exec "$0" "$1" shard-stats nowhere --json 2>&-'
    command = ["bash", "-c", script, sys.executable, str(ROOT / "cli.py")]
    environment = OUTSIDE | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")


EACH_IN_A_FORK = """
import json, os, sys
import cli
import model.label_card.card, model.predict.folder, model.score.external_maps, stages.features, stages.masks
import stages.report, stages.score, stages.train
for number, arguments in enumerate(json.load(sys.stdin)):
    if (child := os.fork()) == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv = ["cli.py", *arguments]
        try:
            cli.main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
FAILURES = [
    ["build-pseudo-masks"],
    ["cache-features", "--scheduler", "nonsense"],
    ["train"],
    ["predict", "runs/single", "x.jpg"],
    ["score"],
    ["score", "--maps", "nowhere"],
    ["score", "--entire-artwork"],
    ["shard-stats"],
    ["shard-stats", "--verify"],
    ["report"],
    ["plan"],
    ["label-card"],
    ["export", "runs/single", "out"],
    ["gallery", "a" * 300],
    ["gallery", "params.yaml"],
    ["shard-stats", "b" * 300],
    ["doctor"],
    ["doctor", "--params", "c" * 300],
    ["plan", "--params", "."],
]


def test_json_is_valid_or_absent_in_every_failure(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}")
    asked = json.dumps([[*arguments, "--json"] for arguments in FAILURES])
    done = run("-c", EACH_IN_A_FORK, cwd=tmp_path, input=asked)
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) == len(FAILURES), done.stderr
    for number, (arguments, code) in enumerate(zip(FAILURES, codes, strict=True)):
        out, err = ((tmp_path / f"{number}.{name}").read_text() for name in ("out", "err"))
        assert code in (1, 2), arguments
        assert out == "" or json.loads(out), arguments
        assert "Traceback" not in err, err[-2000:]
        assert out or err, arguments


def test_whatever_prints_meanwhile_prints_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_for_results():
        print("by Python")
        os.write(1, b"by C\n")
        subprocess.run(["sh", "-c", "echo by a child"], check=True)
    say("the result\n")
    out, err = capfd.readouterr()
    assert out == "the result\n"
    assert set(err.splitlines()) == {"by Python", "by C", "by a child"}


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    """A file name may have bytes that are no UTF-8; stdout shows them escaped."""
    code = "from pipeline.common import command; command.main(lambda: command.say('a\\udcff→\\n'), 'x')"
    for encoding, shown in (("utf-8", "a\\udcff→\n"), ("ascii", "a\\udcff\\u2192\n")):
        done = run("-c", code, env={"PYTHONIOENCODING": encoding})
        assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_say_on_a_full_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(RunFailed, match="No space left"):
        say("x")


def test_every_step_of_a_command_has_the_params_of_its_beginning(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(masks={"aggregate": "sum", "long_side": 64})
    seen = []
    build = UTTERANCES.build

    def edited(*arguments: Any) -> dict[str, Any]:
        write_params(masks={"aggregate": "max", "long_side": 32}, utterances={"num_shards": 1})
        return build(*arguments)

    def noted(_paths: Any, params: Any, *_others: Any) -> dict[str, Any]:
        seen.append((params.aggregate, params.long_side))
        return {}

    for stage, changed in ((UTTERANCES, edited), (MASKS, noted)):
        monkeypatch.setitem(stage.__dict__, "build", changed)
    build_pseudo_masks(params=Path("params.yaml"))
    assert seen == [("sum", 64)]


@pytest.mark.parametrize(
    ("section", "code"), [("utterances", 1), ("paths", 1), ("report", 0), ("parallel", 0)]
)
def test_under_dvc_an_edit_meanwhile_fails_the_stage(section: str, code: int, checkout: Path) -> None:
    """DVC would note the values after the edit beside results of those before."""
    changes = {"report": {"items": 3}, "parallel": {"retries": 7}, "utterances": {"max_chars": 400}}
    before = {"params": Path("params.yaml").read_text()}
    Path("params.yaml").unlink()
    os.mkfifo("params.yaml")  # the stage is held here until we write

    def write() -> None:
        Path("params.yaml").write_text(before["params"])
        Path("params.yaml").unlink()
        if section == "paths":
            Path("params.yaml").write_text(
                before["params"].replace("paths:\n", "paths:\n  runs: elsewhere\n")
            )
        else:
            write_params(**{section: changes[section]})

    writer = threading.Thread(target=write)
    writer.start()
    done = run("-m", "stages.utterances", env={"DVC_STAGE": "utterances"})
    writer.join()
    assert done.returncode == code, done.stderr
    assert ("was edited while this ran" in done.stderr) is bool(code)
    assert "Traceback" not in done.stderr


def test_params_may_come_from_a_pipe(checkout: Path) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").unlink()
    done = run("-m", "stages.utterances", "--params", "/dev/stdin", input=text)
    assert done.returncode == 0, done.stderr


def test_reading_again_is_asked_for(checkout: Path) -> None:
    params = Params.read(Path("params.yaml"))
    Path("params.yaml").write_text("utterances: {num_shards: 0}")
    assert UTTERANCES.read(params)[1].num_shards > 0
