"""Writing the public record, `leaderboard/log.jsonl`: a line is added, none is ever changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.log import LogEntry, read_log


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
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(old + event.model_dump_json(exclude_none=True).encode() + b"\n")
    partial.replace(path)


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
