"""The log tells of every row: none is there, gone, or of another score without a line of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..cli.running import run


@pytest.fixture
def place(original, tmp_path) -> Path:
    """The folder `leaderboard` of a repository, which a test may change."""
    return Path(shutil.copytree(original[0] / "repository" / "leaderboard", tmp_path / "leaderboard"))


def check_log(capsys, place, *words):
    return run("leaderboard", "log", "--log", place / "log.jsonl", *words)


def log_lines(place) -> list[dict]:
    return [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]


def rescore(place, name, score) -> None:
    """Gives a result another headline, as if it had been rebuilt."""
    path = place / "results" / f"{name}.json"
    value = json.loads(path.read_text())
    value["views"][0]["scores"]["evidence_ap"] = {"mean": score, "low": score, "high": score}
    path.write_text(json.dumps(value))


def test_the_log_takes_sound_events_only(capsys, place):
    path, words = place / "log.jsonl", ("--reason", "Why.")
    old = log_lines(place)[0]["after"]
    assert check_log(capsys, place) == (0, f"{path}: 3 events, sound\n", "")
    rescore(place, "noisy", 0.25)
    rescored = check_log(capsys, place, "rescored", "noisy", *words, "--date", "2026-11-02")
    assert rescored[:2] == (0, f"{path}: 2026-11-02 noisy rescored\n")
    assert log_lines(place)[-1] == {
        "date": "2026-11-02",
        "event": "rescored",
        "submission": "noisy",
        "reason": "Why.",
        "before": old,
        "after": 0.25,
    }
    (place / "results" / "shifted.json").unlink()
    assert check_log(capsys, place, "removed", "shifted", *words, "--date", "2026-11-02")[0] == 0
    assert check_log(capsys, place)[:2] == (0, f"{path}: 5 events, sound\n")
    before = path.read_bytes()
    for wrong, said in (
        (("removed", "shifted", *words), "was never added"),
        (("removed", "noisy", *words), "noisy has a result on the leaderboard, so that it is not removed"),
        (("added", "noisy", *words), "is added, but was there"),
        (("rescored", "noisy", *words, "--before", 0.5), "from 0.5, but the event before it says 0.25"),
        (("rescored", "noisy", *words, "--after", 0.5), "noisy has 0.25 on the leaderboard, not 0.5"),
        (("rescored", "noisy", *words, "--date", "2026-10-01"), "the oldest stands first"),
        (("rescored", "noisy", *words, "--date", "2026-11-31"), "the day 2026-11-31 does not exist"),
        (("rescored", "noisy", *words, "--date", "2099-01-01"), "is of 2099-01-01, which is to come"),
        (("rescored", "noisy", *words, "--date", "yesterday"), "date: give the day as YYYY-MM-DD"),
        (("added", "Mine!", *words), "submission: give the name of a submission"),
        (("rescored", "noisy", "--reason", "a\x1bb"), "reason: give a sentence on one line"),
        (("rescored", "noisy", *words, "--before", "nan"), "before: give an evidence AP, a number from"),
        (("rescored", "noisy", *words, "--after", 41.2), "after: give an evidence AP"),
        (("added", "noisy", *words, "--before", 0.5), "give the evidence AP after, and none before"),
        (("removed", "noisy", *words, "--after", 0.5), "only what is added or rescored has an evidence AP"),
        (("added", "shifted", *words), "shifted has no result on the leaderboard"),
    ):
        status, _, errors = check_log(capsys, place, *wrong)
        assert status == 2
        assert said in errors
        assert "pattern" not in errors
        assert path.read_bytes() == before
    path.write_text(path.read_text() + "{}\n")
    status, _, errors = check_log(capsys, place)
    assert status == 2
    assert f"{path}: line 6: " in errors


def test_what_two_rebuilt_results_say_is_logged_line_by_line(capsys, place):
    for name in ("noisy", "shifted"):
        rescore(place, name, 0.25)
    for name in ("noisy", "shifted"):
        assert check_log(capsys, place)[0] == 2
        assert check_log(capsys, place, "rescored", name, "--reason", "Why.")[0] == 0
    assert check_log(capsys, place)[0] == 0


def remove_result(place) -> None:
    (place / "results" / "oracle.json").unlink()


def edit_lines(change):
    """Changes the lines of a log in which noisy was rescored twice, the second time to what it was."""

    def spoil(place) -> None:
        first = next(line for line in log_lines(place) if line["submission"] == "noisy")
        twice = [(first["after"], 0.5), (0.5, first["after"])]
        events = [first | {"event": "rescored", "before": old, "after": new} for old, new in twice]
        lines = [*log_lines(place), *events]
        change(lines)
        (place / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return spoil


SPOILT_LOGS = {
    "a result is gone": (remove_result, "oracle has no result, but was not removed"),
    "a result has another score": (
        lambda place: rescore(place, "noisy", 0.5),
        "noisy has 0.5 on the leaderboard, but",
    ),
    "a result is new": (
        edit_lines(lambda lines: lines.pop(1)),
        "oracle has a result, but was never added",
    ),
    "an old before": (
        edit_lines(lambda lines: lines[3].update(before=0.75)),
        "(noisy): is rescored from 0.75, but the event before it says",
    ),
    "an old after": (
        edit_lines(lambda lines: lines[3].update(after=0.75)),
        "(noisy): is rescored from 0.5, but the event before it says 0.75",
    ),
    "a line is dropped": (
        edit_lines(lambda lines: lines.pop(3)),
        "(noisy): is rescored from 0.5, but the event before it says",
    ),
    "the last line is dropped": (
        edit_lines(lambda lines: lines.pop()),
        "but 0.5 after its last event; log that it is rescored",
    ),
    "a score that was not given": (
        edit_lines(lambda lines: lines[0].pop("after")),
        "is added; give the evidence AP after",
    ),
    "no line": (edit_lines(lambda lines: lines.clear()), "noisy has a result, but was never added"),
    "no log": (lambda place: (place / "log.jsonl").unlink(), "log.jsonl: is not there; restore the log"),
    "a day to come": (
        edit_lines(lambda lines: lines[-1].update(date="2099-01-01")),
        "is of 2099-01-01, which is to come; today is 2",
    ),
    "removed, and there": (
        edit_lines(lambda lines: lines.append(lines[1] | {"event": "removed", "after": None})),
        "oracle has a result, but was removed",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILT_LOGS.values(), ids=SPOILT_LOGS)
def test_no_row_changes_or_vanishes_without_an_entry(capsys, place, monkeypatch, spoil, said):
    assert check_log(capsys, place)[0] == 0
    spoil(place)
    for given in (True, False):
        monkeypatch.chdir(place.parent)
        status, shown, errors = check_log(capsys, place) if given else run("leaderboard", "log")
        assert (status, shown) == (2, "")
        assert said in errors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[0].update(reason="Other."), "event 1 (noisy): is not what it was"),
        (
            lambda lines: lines.__delitem__(slice(4, None)),
            "event 5 (noisy): is dropped, with all that follow",
        ),
    ],
)
def test_lines_of_the_log_as_it_was_neither_change_nor_go(capsys, place, tmp_path, change, said):
    base = tmp_path / "base.jsonl"
    edit_lines(lambda lines: None)(place)
    shutil.copy(place / "log.jsonl", base)
    rescore(place, "noisy", 0.5)
    assert check_log(capsys, place, "rescored", "noisy", "--reason", "Once more.")[0] == 0
    assert check_log(capsys, place, "--base", base)[0] == 0
    lines = log_lines(place)
    change(lines)
    (place / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, _, errors = check_log(capsys, place, "--base", base)
    assert status == 2
    assert said in errors
    status, _, errors = check_log(capsys, place, "--base", tmp_path / "none")
    assert (status, "none: is not there" in errors) == (2, True)


def test_the_log_of_this_repository_tells_of_every_row(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("medfocus_bench.leaderboard.log._today", lambda: "2099-12-31")  # of any machine
    status, _, errors = run("leaderboard", "log")
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("words", [(), ("added", "mine", "--reason", "First.")])
def test_the_log_makes_no_leaderboard_where_there_is_none(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run("leaderboard", "log", *words)
    assert status == 2
    assert "leaderboard/results: not a folder, so that a leaderboard is missing here" in errors
    assert list(tmp_path.iterdir()) == []
