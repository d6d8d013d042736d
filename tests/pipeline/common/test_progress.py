"""What is said on stderr while a step runs."""

import contextlib
import io

import pytest

from pipeline.common.progress import Meter, ShardMeter, alive, duration, waiting


def test_progress_tells_rate_time_left_and_a_slow_cpu(capsys: pytest.CaptureFixture) -> None:
    now = [0.0]
    meter = ShardMeter("regions", shards=4, artworks=8000, skipped=2, clock=lambda: now[0])
    now[0] = 9.0
    meter.update(9, "cpu")
    assert capsys.readouterr().err == "regions: 2 shard(s) already done, 4 to do\n"
    now[0] = 20.0
    meter.update(20, "cpu")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["regions: shard 0/4, 20 artworks, 1.0/s, 2 h 13 min left", "regions: on cpu"]
    assert lines[2].startswith("regions: WARNING: 1.00 artworks/s, because no GPU is used")
    now[0] = 1000.0
    meter.finish(2000)
    meter.update(1, "cpu")
    assert capsys.readouterr().err == "regions: shard 1/4, 2000 artworks, 2.0/s, 50 min left\n"
    now[0] = 1020.0
    meter.update(40, "cpu")
    assert "WARNING" not in capsys.readouterr().err


def test_progress_without_sizes_goes_by_shards(capsys: pytest.CaptureFixture) -> None:
    now = [0.0]
    meter = ShardMeter("masks", shards=3, artworks=None, skipped=0, clock=lambda: now[0])
    now[0] = 30.0
    meter.update(600, "cuda")
    meter.finish(900)
    assert capsys.readouterr().err.splitlines() == [
        "masks: shard 0/3, 600 artworks, 20.0/s",
        "masks: on cuda",
        "masks: shard 1/3, 900 artworks, 30.0/s, 60 s left",
    ]


def test_pictures_are_told_now_and_then_and_at_the_end(capsys: pytest.CaptureFixture) -> None:
    now = [0.0]
    meter = Meter("predict", 2000, skipped=5, clock=lambda: now[0])
    for seconds, pictures in ((9.0, 90), (20.0, 910), (25.0, 900), (40.0, 100)):
        now[0] = seconds
        meter.add(pictures)
    assert capsys.readouterr().err.splitlines() == [
        "predict: 5 picture(s) already done, 2000 to do",
        "predict: 1,000/2,000 pictures, 50.0/s, 20 s left",
        "predict: 2,000/2,000 pictures, 50.0/s, 0 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (11100, "3 h 05 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_work_of_one_piece_is_named_at_once_and_then_for_how_long(capsys: pytest.CaptureFixture) -> None:
    with waiting("plan", "loading PyTorch", every=0.01):
        assert capsys.readouterr().err.startswith("plan: loading PyTorch\n")
        seen = ""
        while "loading PyTorch, for 0 s" not in seen:  # the test's own limit ends it
            seen += capsys.readouterr().err
    with pytest.raises(ValueError, match="inside"), waiting("plan", "it"):
        raise ValueError("inside")
    capsys.readouterr()
    with waiting("plan", "timing", every=0.01), contextlib.redirect_stderr(io.StringIO()) as silenced:
        while not capsys.readouterr().err.count(", for "):
            pass
    assert silenced.getvalue() == ""


def test_a_silent_step_says_that_it_is_at_work(capsys: pytest.CaptureFixture) -> None:
    with alive("features", every=0.01):
        while "features: at work, for 0 s\n" not in capsys.readouterr().err:
            pass
    with alive("features", every=1000.0):
        pass
    assert capsys.readouterr().err == ""
