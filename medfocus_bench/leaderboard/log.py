"""The public record of added, rescored and removed submissions: `leaderboard/log.jsonl`, which only grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.result import TOLERANCE, Name, headline_name, read_results
from medfocus_bench.storage import read_regular, write_atomic
from medfocus_bench.submission.schema import Finite, Line, Strict

LOG_NAME: Final = "log.jsonl"
MAX_LOG_BYTES: Final = 8 * 2**20


EvidenceAP = Annotated[Finite, Field(ge=-1, le=1)]
"""Corrected for chance, so that a map worse than chance has less than 0."""

_WANTED: Final = {
    "date": "give the day as YYYY-MM-DD",
    "event": "give added, rescored or removed",
    "submission": "give the name of a submission: lower-case letters, digits and . _ -",
    "reason": "give a sentence on one line, without control characters",
    "before": "give an evidence AP, a number from -1 to 1",
    "after": "give an evidence AP, a number from -1 to 1",
}
"""Advice on each value of an event, for messages."""


class LogEntry(Strict):
    """One event. `before` and `after` are the evidence AP over all that the submission covers.

    `after` is set for "added"; `before` and `after` for "rescored"; neither for "removed".
    """

    date: Annotated[str, Field(pattern=r"^20\d\d-[01]\d-[0-3]\d$")]
    event: Literal["added", "rescored", "removed"]
    submission: Name
    reason: Line
    before: EvidenceAP | None = None
    after: EvidenceAP | None = None


def read_log(path: Path) -> list[LogEntry]:
    """All events, oldest first; empty without a file. Raises InputError that names the line."""
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(read_regular(path, MAX_LOG_BYTES).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(LogEntry.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}: line {number}: /{_said(error)}; correct the line") from None
    return entries


def scores_on_board(results: Path) -> dict[str, float]:
    """The evidence AP of every result in a folder, without the null controls, which are not logged.

    Raises InputError for a missing leaderboard and for an unsound result.
    """
    if not results.is_dir():
        raise InputError(
            f"{results}: not a folder, so that a leaderboard is missing here; go to a checkout of one, or "
            "give --log, and --results where they are not beside it"
        )
    return {
        result.name: result.views[0].scores[headline_name()].mean
        for result in read_results(results)
        if not result.is_null
    }


def log_problems(events: Sequence[LogEntry], place: str) -> list[str]:
    """Problems of the log as a whole: dates out of order, impossible histories of a submission."""
    problems: list[str] = []
    scores: dict[str, float | None] = {}
    latest, today = "", _today()
    for number, event in enumerate(events, start=1):
        where = f"{place}: event {number} ({event.submission})"
        problems += [f"{where}: {problem}" for problem in _misdated(event.date, latest, today)]
        problems += [f"{where}: {problem}" for problem in _misplaced(event, scores)]
        latest = max(latest, event.date)
        if event.event == "removed":
            scores.pop(event.submission, None)
        else:
            scores[event.submission] = event.after
    return problems


def _misdated(day: str, latest: str, today: str) -> Iterator[str]:
    try:
        date.fromisoformat(day)
    except ValueError:
        yield f"the day {day} does not exist"
    if day > today:
        yield f"is of {day}, which is to come; today is {today}"
    if day < latest:
        yield f"is of {day}, after one of {latest}; the oldest stands first"


def _misplaced(event: LogEntry, scores: Mapping[str, float | None]) -> Iterator[str]:
    """Problems of an event, given the submissions before it and their `scores`."""
    is_there, before = event.submission in scores, scores.get(event.submission)
    if event.event == "added" and is_there:
        yield "is added, but was there; log it as rescored"
    if event.event != "added" and not is_there:
        yield f"is {event.event}, but was never added"
    if event.event == "added" and (event.before is not None or event.after is None):
        yield "is added; give the evidence AP after, and none before"
    if event.event == "removed" and (event.before, event.after) != (None, None):
        yield "is removed; only what is added or rescored has an evidence AP"
    if event.event == "rescored" and (event.before is None or event.after is None):
        yield "is rescored; give the evidence AP before and after"
    if event.event == "rescored" and before is not None and not _same(event.before, before):
        yield f"is rescored from {event.before}, but the event before it says {before}"


def board_problems(events: Sequence[LogEntry], place: str, board: Mapping[str, float]) -> list[str]:
    """Differences between the rows of a log and of a leaderboard with these scores."""
    last = {event.submission: event for event in events}
    problems = []
    for name in sorted(last.keys() | board.keys()):
        event = last.get(name)
        if name not in board:
            if event is not None and event.event != "removed":
                problems.append(
                    f"{place}: {name} has no result, but was not removed; restore that, or log the removal"
                )
        elif event is None or event.event == "removed":
            was = "was never added" if event is None else "was removed"
            problems.append(f"{place}: {name} has a result, but {was}; log that it is added")
        elif not _same(event.after, board[name]):
            problems.append(
                f"{place}: {name} has {board[name]} on the leaderboard, but {event.after} after its last "
                "event; log that it is rescored"
            )
    return problems


def changed_lines(old: Sequence[LogEntry], new: Sequence[LogEntry], place: str) -> list[str]:
    """The first line of an `old` log that the new one changed or dropped; a missing score may be added."""
    for number, event in enumerate(old, start=1):
        where = f"{place}: event {number} ({event.submission})"
        if number > len(new):
            return [f"{where}: is dropped, with all that follow; restore them, lines are only ever added"]
        given = event.model_dump(exclude_none=True)
        if given != {key: getattr(new[number - 1], key) for key in given}:
            return [f"{where}: is not what it was; restore the line, and add one that corrects it"]
    return []


def check_log(path: Path, board: Mapping[str, float], base: Path | None = None) -> int:
    """The number of events of a log that tells of each row of `board` and keeps every line of `base`.

    It may be missing only before the first result. Raises InputError with every problem.
    """
    for needed in (path, base):
        if needed is not None and not needed.exists() and (needed.name != LOG_NAME or board):
            raise InputError(f"{needed}: is not there; restore the log, of which no line ever goes")
    events = read_log(path)
    problems = changed_lines(read_log(base), events, str(path)) if base is not None else []
    problems += [*log_problems(events, str(path)), *board_problems(events, str(path), board)]
    if problems:
        raise InputError(problems)
    return len(events)


def add_event(path: Path, event: LogEntry, board: Mapping[str, float]) -> LogEntry:
    """Append an event to the log of a leaderboard with the scores of `board`, which fill in missing ones.

    Returns the event as written. Raises InputError, and writes nothing, if the log would be unsound or
    contradict the leaderboard.
    """
    events = read_log(path)
    event = _with_scores(event, events, board)
    problems = log_problems([*events, event], str(path))
    if event.event != "removed" and event.submission not in board:
        problems.append(
            f"{path}: {event.submission} has no result on the leaderboard, so that it is not {event.event}; "
            "`medfocus-bench leaderboard rebuild` makes one of its folder in submissions"
        )
    elif event.event == "removed" and event.submission in board:
        problems.append(
            f"{path}: {event.submission} has a result on the leaderboard, so that it is not removed; remove "
            "that, and its folder in submissions"
        )
    elif event.after is not None and not _same(event.after, board[event.submission]):
        problems.append(
            f"{path}: {event.submission} has {board[event.submission]} on the leaderboard, not "
            f"{event.after}; leave --after out"
        )
    if problems:
        raise InputError(problems)
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    write_atomic(path, old + event.model_dump_json(exclude_none=True).encode() + b"\n")
    return event


def _with_scores(event: LogEntry, events: Sequence[LogEntry], board: Mapping[str, float]) -> LogEntry:
    found: dict[str, float | None] = {}
    if event.event != "removed" and event.after is None:
        found["after"] = board.get(event.submission)
    if event.event == "rescored" and event.before is None:
        found["before"] = next((e.after for e in reversed(events) if e.submission == event.submission), None)
    return event.model_copy(update=found)


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= TOLERANCE


def _today() -> str:
    """In UTC: a local date in the east would lie in the future for a reader in the west."""
    return datetime.now(UTC).date().isoformat()


def make_event(
    event: str,
    submission: str,
    reason: str,
    *,
    day: str | None = None,
    before: float | None = None,
    after: float | None = None,
) -> LogEntry:
    """An event of today (in UTC) or of `day`. Raises InputError for an invalid value."""
    values = {
        "date": day or _today(),
        "event": event,
        "submission": submission,
        "reason": reason,
        "before": before,
        "after": after,
    }
    try:
        return LogEntry.model_validate(values)
    except ValidationError as error:
        raise InputError(f"the event's {_said(error)}") from None


def _said(error: ValidationError) -> str:
    """The first problem of an event, in words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0])[:100] if first["loc"] else ""
    if first["type"] == "missing":
        return f"{name}: is missing; {_WANTED[name]}"
    if name in _WANTED:
        return f"{name}: {_WANTED[name]}"
    return f"{name}: not a key of an event" if name else "not a JSON object with the keys of an event"
