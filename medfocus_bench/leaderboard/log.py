"""The public record of what was added, rescored and removed: `leaderboard/log.jsonl`.

A line is added to it, none is ever changed.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class LogEntry(Strict):
    """One event. `before` and `after` are the evidence AP over all that the submission covers."""

    date: Annotated[str, Field(pattern=r"^20\d\d-[01]\d-[0-3]\d$")]
    event: Literal["added", "rescored", "removed"]
    submission: Name
    reason: Line
    before: Finite | None = None
    after: Finite | None = None


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
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "/".join(str(part)[:100] for part in first["loc"])
            raise InputError(f"{path}: line {number}: /{place}: {first['msg']}; correct the line") from None
    return entries


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
        if event.event == "rescored" and (event.before is None or event.after is None):
            problems.append(f"{where}: is rescored; give the evidence AP before and after")
        if event.event == "removed":
            there.discard(event.submission)
        else:
            there.add(event.submission)
    return problems


def add_event(path: Path, event: LogEntry) -> None:
    """Adds a line to the log. Raises InputError, and changes nothing, where the log would not be sound."""
    events = read_log(path)
    problems = log_problems([*events, event], str(path))
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
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise InputError(f"the event's {place}: {first['msg']}") from None
