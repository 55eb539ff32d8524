"""The records of the causal filter, and the groups that they fall into."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

from scipy import stats

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.questions import GREEDY, Decoding, Question
from medfocus_bench.data.rows import Group, group_of
from medfocus_bench.errors import InputError
from medfocus_bench.storage import naming, read_regular

Made = TypeVar("Made")

Key = tuple[str, int, str]
"""Identifies a question within a run: source, index, evidence."""

GROUPS: Final[tuple[Group, ...]] = ("incorrect", "ungrounded", "grounded")

MAX_RECORDS_BYTES: Final = 2**30
"""Of a file of records or failures."""

MARGIN: Final = 1.0
"""Log-odds on the right side of zero that the strict rule asks of every answer."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The responses of one model to the original and the edits of one question, by picture."""

    source: str
    index: int
    evidence: str
    finding: str
    patient_id: str
    lvlm: str
    mode: str
    editor: str
    responses: dict[str, str]
    log_odds: dict[str, float | None]
    decoding: Decoding = GREEDY
    """Of the responses; records of before it was kept are greedy."""
    dtype: str | None = None
    """Of the weights; None in records of before it was kept."""

    def says(self, picture: str) -> str | None:
        """The verdict on one picture: "yes", "no" or None."""
        return parse_verdict(self.responses[picture])

    @property
    def group(self) -> Group:
        """By the paper's rule, see `group_of`."""
        return group_of(self.responses)

    @property
    def sham_flips(self) -> bool:
        """Whether redrawing the region with the finding in place loses the "yes": the editor's doing."""
        return any(self.says(name) != "yes" for name in self.responses if name.startswith("sham"))

    @property
    def strict(self) -> bool:
        """Grounded, a sham and none that flips, and every log-odds on its side of zero by `MARGIN`."""
        if self.group != "grounded" or self.sham_flips or "sham" not in self.responses:
            return False
        signed = {name: -odds if name == "foreground" else odds for name, odds in self._known_odds()}
        return len(signed) == len(self.log_odds) and min(signed.values()) >= MARGIN

    def _known_odds(self) -> Iterator[tuple[str, float]]:
        return ((name, odds) for name, odds in self.log_odds.items() if odds is not None)

    @property
    def key(self) -> Key:
        return self.source, self.index, self.evidence


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that could not be put to the model, and why: its picture or one of its edits failed."""

    source: str
    index: int
    evidence: str
    reason: str

    @classmethod
    def of(cls, question: Question, reason: str) -> Failure:
        return cls(question.source, question.index, question.evidence, reason)

    @property
    def key(self) -> Key:
        return self.source, self.index, self.evidence


def read_verifications(path: Path) -> list[Verification]:
    """The records of a file; a half-written last line, of a run that was stopped or goes on, is left out.

    Raises InputError that names the line for any other line that is not a record.
    """
    return list(_read(path, Verification, "record"))


def failures_path(out: Path) -> Path:
    """The file of the failures of a file of records: beside it, ending in `.failures` (JSON lines)."""
    return out.with_suffix(".failures")


def read_failures(out: Path) -> list[Failure]:
    """The questions of a file of records that failed and have no record since, each with its last reason.

    Raises InputError that names the line for a line that is not a failure.
    """
    path = failures_path(out)
    if not path.exists():
        return []
    last = {failure.key: failure for failure in _read(path, Failure, "failure")}
    mended = {record.key for record in read_verifications(out)} if out.exists() else set()
    return [failure for key, failure in last.items() if key not in mended]


def _read(path: Path, kind: Callable[..., Made], what: str) -> Iterator[Made]:
    """The lines of a file without a half-written last one. The file stays as it is: a run may be writing."""
    *lines, _ = read_regular(path, MAX_RECORDS_BYTES).split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            made = kind(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise InputError(f"{path}: line {number} is not a {what} of the causal filter") from None
        yield made


def append(path: Path, records: Sequence[Verification | Failure]) -> None:
    """Add records or failures to their file."""
    if records:
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records)


def cut_half_line(path: Path) -> None:
    """Cut off what a stopped run left half-written: what is appended next begins a line."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of questions with its 95 % Wilson interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        found = stats.binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def group_shares(records: Sequence[Verification]) -> dict[str, Share]:
    """The share of each group, of the strictly grounded and of sham flips (among right answers)."""
    total = len(records)
    shares: dict[str, Share] = {g: Share(sum(r.group == g for r in records), total) for g in GROUPS}
    shares["strict"] = Share(sum(r.strict for r in records), total)
    right = [record for record in records if record.group != "incorrect"]
    shares["sham flips"] = Share(sum(r.sham_flips for r in right), max(1, len(right)))
    return shares
