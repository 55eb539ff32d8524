"""The public record of what was added, rescored and removed: `leaderboard/log.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

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
