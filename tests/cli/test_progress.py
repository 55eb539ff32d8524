"""Progress of a command whose output is not a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

import medfocus_bench
from medfocus_bench.cli.progress import ProgressLines, duration, show_progress

CLI = Path(medfocus_bench.__file__).parent / "cli"


class Clock:
    """A clock that goes on only where it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def followed(clock, total, seconds):
    """The items of a work that takes `seconds` for each."""
    for number in range(total):
        clock.now += seconds
        yield number


def test_a_work_of_minutes_says_every_half_minute_how_far_it_is(capsys):
    clock = Clock()
    assert list(show_progress(followed(clock, 40, 5.0), "phantom_qwen direct", 40, clock=clock)) == list(
        range(40)
    )
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "phantom_qwen direct: 5 of 40, 5 s each, 2:55 left"
    assert lines[-1] == "phantom_qwen direct: 35 of 40, 5 s each, 0:25 left"


def test_a_work_of_seconds_says_nothing(capsys):
    clock = Clock()
    assert len(list(show_progress(followed(clock, 29, 1.0), "quick", 29, clock=clock))) == 29
    assert capsys.readouterr().err == ""


def test_what_is_on_record_already_does_not_count_for_the_pace():
    clock, said = Clock(), []
    progress = ProgressLines("verify", clock=clock, write=said.append)
    for done in range(1001):
        progress(done, 1100)  # read from the file, in no time
    for done in range(1001, 1005):
        clock.now += 10
        progress(done, 1100)
    assert said == ["verify: 1,003 of 1,100, 10 s each, 16:10 left"]


def test_the_pace_is_that_of_the_last_minutes():
    clock, said = Clock(), []
    progress = ProgressLines("rise", clock=clock, write=said.append)
    progress(0, 1000)
    for done in range(1, 101):
        clock.now += 1 if done <= 60 else 30
        progress(done, 1000)
    assert said[0] == "rise: 30 of 1,000, 1 s each, 16:10 left"
    assert said[-1] == "rise: 100 of 1,000, 30 s each, 7:30:00 left"


def test_a_fast_work_says_how_many_a_second():
    clock, said = Clock(), []
    progress = ProgressLines("null", clock=clock, write=said.append)
    progress(0, 10_000)
    clock.now += 40
    progress(1000, 10_000)
    assert said == ["null: 1,000 of 10,000, 25 a second, 6:00 left"]


def test_a_work_that_stands_still_says_so_without_a_pace():
    clock, said = Clock(), []
    progress = ProgressLines("Verifying", clock=clock, write=said.append)
    for _ in range(40):
        progress(7, 100)
        clock.now += 1
    assert said == ["Verifying: 7 of 100"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03")]
)
def test_durations_are_hours_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "module",
    ["attribution", "verify", "reproduce", "submit", "data", "leaderboard", "medfocus", "evaluation"],
)
def test_every_long_command_follows_its_work_in_the_one_way(module):
    text = (CLI / f"{module}.py").read_text()
    assert "from medfocus_bench.cli.progress import show_progress\n" in text
    assert "rich.progress" not in text
