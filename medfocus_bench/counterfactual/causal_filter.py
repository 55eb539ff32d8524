"""The causal filter: four answers and a sham decide whether a region drives an answer (paper, section 2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from scipy import stats

from medfocus_bench.answers import parse_verdict
from medfocus_bench.counterfactual.editors import (
    Editor,
    EditorError,
    counterfactual_sets,
    editor_label,
    picture_names,
)
from medfocus_bench.data.questions import Mode, Question, prompt
from medfocus_bench.data.rows import Group, group_of
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.protocol import LVLM, NotFiniteError
from medfocus_bench.storage import read_regular

Item = TypeVar("Item")
Made = TypeVar("Made")

Key = tuple[str, int, str]
"""Identifies a question within a run: source, index, evidence."""

GROUPS: Final[tuple[Group, ...]] = ("incorrect", "ungrounded", "grounded")

MAX_RECORDS_BYTES: Final = 2**30
"""Of a file of records or failures."""

MAX_NEW_TOKENS: Final[Mapping[Mode, int]] = {"direct": 64, "reasoning": 512}
"""Tokens that a model may write: a line of reasoning that is cut off never arrives at its verdict."""

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

    @property
    def key(self) -> Key:
        return self.source, self.index, self.evidence


def verify(
    questions: Iterable[Question | Failure],
    lvlm: LVLM,
    mode: Mode,
    editor: Editor,
    out: Path,
    *,
    sham_seeds: Sequence[int] = (0,),
    batch: int = 32,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Iterator[Verification]:
    """Put every question with all its edits to the model and yield one record a question.

    Editing and asking go over several questions at a time: as many as make up `batch` pictures. Records are
    appended to `out` (JSON lines) after each batch; those that it holds already are not computed again, so a
    stopped run goes on where it was.

    A question whose picture could not be read (the caller passes a `Failure` for it), whose edit raises
    InputError or ValueError, or about which the model's numbers are not finite (NotFiniteError) is written to
    `failures_path(out)`, told to `on_failure`, and left out; it is tried again by the next run. An editor
    that cannot work at all (EditorError) and a model that fails in another way stop the run. Raises
    InputError for a file of another run.
    """
    label = editor_label(editor)
    names = picture_names(len(sham_seeds))
    for path in (out, failures_path(out)):
        _cut_half_line(path)
    done = {record.key: record for record in read_verifications(out)} if out.exists() else {}
    for record in done.values():
        _check_same_run(record, out, lvlm.key, mode, label, names)
    out.parent.mkdir(parents=True, exist_ok=True)
    size = max(1, batch // len(names))
    pending: list[Question] = []

    def finish() -> Iterator[Verification]:
        asked, failures = _edited(pending, editor, sham_seeds)
        _note(failures, out, on_failure)
        pending.clear()
        if asked:
            records, failures = _answered(asked, lvlm, mode, label, out)
            _note(failures, out, on_failure)
            yield from records

    for question in questions:
        if isinstance(question, Failure):
            _note([question], out, on_failure)
        elif (found := done.get((question.source, question.index, question.evidence))) is not None:
            yield found
        else:
            pending.append(question)
            if len(pending) == size:
                yield from finish()
    if pending:
        yield from finish()


def _check_same_run(
    record: Verification, out: Path, lvlm: str, mode: Mode, label: str, names: Sequence[str]
) -> None:
    if (record.lvlm, record.mode, record.editor) != (lvlm, mode, label):
        raise InputError(
            f"{out}: is of {record.lvlm}, {record.mode}, {record.editor}, not of {lvlm}, {mode}, {label}; "
            "go on with the same, or write the records elsewhere"
        )
    if set(record.responses) != set(names):
        shams = sum(name.startswith("sham") for name in record.responses)
        raise InputError(
            f"{out}: was made with another number of sham edits ({shams}); go on with as many, or write the "
            "records elsewhere"
        )


def _edited(
    questions: Sequence[Question], editor: Editor, sham_seeds: Sequence[int]
) -> tuple[list[tuple[Question, dict[str, UInt8Image]]], list[Failure]]:
    """The pictures of each question; where an edit of the batch fails, each question is edited by itself."""
    try:
        sets = counterfactual_sets(editor, questions, sham_seeds=sham_seeds)
        return list(zip(questions, sets, strict=True)), []
    except EditorError:
        raise
    except (InputError, ValueError) as error:
        if len(questions) == 1:
            return [], [_failure(questions[0], " ".join(str(error).split()))]
    return _one_by_one(questions, lambda alone: _edited(alone, editor, sham_seeds))


def _failure(question: Question, reason: str) -> Failure:
    return Failure(question.source, question.index, question.evidence, reason)


def _one_by_one(
    batch: Sequence[Item], tried: Callable[[Sequence[Item]], tuple[list[Made], list[Failure]]]
) -> tuple[list[Made], list[Failure]]:
    made, failures = zip(*(tried([item]) for item in batch), strict=True)
    return list(chain(*made)), list(chain(*failures))


def _note(failures: Sequence[Failure], out: Path, on_failure: Callable[[Failure], None]) -> None:
    if failures:
        with failures_path(out).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(failure)) + "\n" for failure in failures)
    for failure in failures:
        on_failure(failure)


def _answered(
    edited: Sequence[tuple[Question, dict[str, UInt8Image]]], lvlm: LVLM, mode: Mode, editor: str, out: Path
) -> tuple[list[Verification], list[Failure]]:
    """The records of a batch; where the model's numbers overflow, each question is asked by itself."""
    try:
        return _ask(edited, lvlm, mode, editor, out), []
    except NotFiniteError as error:
        if len(edited) == 1:
            return [], [_failure(edited[0][0], str(error))]
    return _one_by_one(edited, lambda alone: _answered(alone, lvlm, mode, editor, out))


def _ask(
    edited: Sequence[tuple[Question, dict[str, UInt8Image]]], lvlm: LVLM, mode: Mode, editor: str, out: Path
) -> list[Verification]:
    images = [picture for _, pictures in edited for picture in pictures.values()]
    asked = [prompt(question.finding, mode) for question, pictures in edited for _ in pictures]
    answers = iter(lvlm.respond(images, asked, max_new_tokens=MAX_NEW_TOKENS[mode]))
    records = []
    for question, pictures in edited:
        said = {name: next(answers) for name in pictures}
        records.append(
            Verification(
                source=question.source,
                index=question.index,
                evidence=question.evidence,
                finding=question.finding,
                patient_id=question.patient_id,
                lvlm=lvlm.key,
                mode=mode,
                editor=editor,
                responses={name: answer.text for name, answer in said.items()},
                log_odds={name: answer.log_odds for name, answer in said.items()},
            )
        )
    with out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
    return records


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


def _cut_half_line(path: Path) -> None:
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
