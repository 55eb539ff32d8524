"""The public record of what was added, rescored and removed: `leaderboard/log.jsonl`.

A line is added to it, none is ever changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from medfocus_bench.data.files import write_whole
from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.result import Name
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
"""What an event's value has to be, in words."""


class LogEntry(Strict):
    """One event. `before` and `after` are the evidence AP over all that the submission covers."""

    date: Annotated[str, Field(pattern=r"^20\d\d-[01]\d-[0-3]\d$")]
    event: Literal["added", "rescored", "removed"]
    submission: Name
    reason: Line
    before: EvidenceAP | None = None
    after: EvidenceAP | None = None


def read_log(path: Path) -> list[LogEntry]:
    """All events, oldest first; none where there is no file. Raises InputError that names the line."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        data = file.read(MAX_LOG_BYTES + 1)
    if len(data) > MAX_LOG_BYTES:
        raise InputError(f"{path}: is larger than {MAX_LOG_BYTES // 2**20} MiB, as no log is")
    entries = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(LogEntry.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}: line {number}: /{_said(error)}; correct the line") from None
    return entries


def names_on_board(results: Path) -> frozenset[str]:
    """The names of all results in a folder. Raises InputError where there is no leaderboard."""
    if not results.is_dir():
        raise InputError(
            f"{results}: is no folder, so there is no leaderboard here; go to a checkout of one, or "
            "give --log, and --results where they are not beside it"
        )
    return frozenset(path.stem for path in results.glob("*.json"))


def log_problems(events: Sequence[LogEntry], place: str) -> list[str]:
    """What no line alone can show: dates in order, and a history that each submission can have."""
    problems: list[str] = []
    there: set[str] = set()
    latest = ""
    for number, event in enumerate(events, start=1):
        where = f"{place}: event {number} ({event.submission})"
        try:
            date.fromisoformat(event.date)
        except ValueError:
            problems.append(f"{where}: there is no day {event.date}")
        if event.date < latest:
            problems.append(f"{where}: is of {event.date}, after one of {latest}; the oldest stands first")
        latest = max(latest, event.date)
        if event.event == "added" and event.submission in there:
            problems.append(f"{where}: is added, but was there; log it as rescored")
        if event.event != "added" and event.submission not in there:
            problems.append(f"{where}: is {event.event}, but was never added")
        if event.event != "rescored" and (event.before, event.after) != (None, None):
            problems.append(f"{where}: is {event.event}; only what is rescored has a before and an after")
        if event.event == "rescored" and (event.before is None or event.after is None):
            problems.append(f"{where}: is rescored; give the evidence AP before and after")
        if event.event == "removed":
            there.discard(event.submission)
        else:
            there.add(event.submission)
    return problems


def add_event(path: Path, event: LogEntry, board: Collection[str]) -> None:
    """Adds a line to the log of a leaderboard, whose results are those of `board`.

    Raises InputError, and changes nothing, where the log would not be sound, or where a submission that is
    said to be added or rescored has no result.
    """
    events = read_log(path)
    problems = log_problems([*events, event], str(path))
    if event.event != "removed" and event.submission not in board:
        problems.append(
            f"{path}: {event.submission} has no result on the leaderboard, so that it is not {event.event}; "
            "`medfocus-bench leaderboard rebuild` makes one of its folder in submissions"
        )
    if problems:
        raise InputError(problems)
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    write_whole(path, old + event.model_dump_json(exclude_none=True).encode() + b"\n")


def make_event(
    event: str,
    submission: str,
    reason: str,
    *,
    day: str | None = None,
    before: float | None = None,
    after: float | None = None,
) -> LogEntry:
    """An event of today, or of another `day`. Raises InputError for a value that no event has."""
    values = {
        "date": day or date.today().isoformat(),
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
    """The first thing that is wrong with an event, in words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0])[:100] if first["loc"] else ""
    if first["type"] == "missing":
        return f"{name}: is missing; {_WANTED[name]}"
    if name in _WANTED:
        return f"{name}: {_WANTED[name]}"
    return f"{name}: is no key of an event" if name else "is no JSON object with the keys of an event"
