"""The causal filter: four answers and a sham decide whether a region drives an answer (paper, section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from medfocus_bench.counterfactual.asking import Ask
from medfocus_bench.counterfactual.editors import Editor, editor_label, picture_names
from medfocus_bench.counterfactual.records import (
    Failure,
    Verification,
    append,
    cut_half_line,
    failures_path,
    read_verifications,
)
from medfocus_bench.data.questions import Mode, Question
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError
from medfocus_bench.lock import exclusive
from medfocus_bench.lvlm.protocol import AUTO_ANSWERS, LVLM
from medfocus_bench.lvlm.registry import LVLMSource


def verify(
    questions: Iterable[Question | Failure],
    lvlm: LVLM | LVLMSource,
    mode: Mode,
    editor: Editor,
    out: Path,
    *,
    sham_seeds: Sequence[int] = (0,),
    batch: int = AUTO_ANSWERS,
    engine: Engine | None = None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Iterator[Verification]:
    """Put every question with all its edits to the model and yield one record a question.

    Editing and asking go over several questions at a time: as many as make up `batch` pictures. Where these
    do not fit into the memory of the device, half as many go through the model together, and so on. Records
    are appended to `out` (JSON lines) after each batch; those that it holds already are not computed again,
    so a stopped run goes on where it was. `engine`, from `open_engine`, asks in several workers, which load
    an `LVLMSource`.

    A question whose picture could not be read (the caller passes a `Failure` for it), whose edit raises
    InputError or ValueError, or which the model cannot answer, because its numbers are not finite or a single
    picture does not fit into memory (NotFiniteError, OutOfMemoryError), is written to `failures_path(out)`,
    told to `on_failure`, and left out; it is tried again by the next run. An editor that cannot work at all
    (EditorError) and a model that fails in another way stop the run. Raises
    InputError for a file of another run.
    """
    with exclusive(out):
        yield from _verified(
            questions, Ask(lvlm, mode, editor, tuple(sham_seeds), batch), out, engine, on_failure
        )


def _verified(
    questions: Iterable[Question | Failure],
    work: Ask,
    out: Path,
    engine: Engine | None,
    on_failure: Callable[[Failure], None],
) -> Iterator[Verification]:
    label = editor_label(work.editor)
    names = picture_names(len(work.sham_seeds))
    for path in (out, failures_path(out)):
        cut_half_line(path)
    records = read_verifications(out) if out.exists() else []
    for record in records:
        _check_same_run(record, out, work, label, names)
    done = {record.key: record for record in records}
    out.parent.mkdir(parents=True, exist_ok=True)
    found: list[Verification] = []

    def note(failures: Sequence[Failure]) -> None:
        append(failures_path(out), failures)
        for failure in failures:
            on_failure(failure)

    def unanswered() -> Iterator[Question]:
        for question in questions:
            if isinstance(question, Failure):
                note([question])
            elif (record := done.get((question.source, question.index, question.evidence))) is not None:
                found.append(record)
            else:
                yield question

    size = max(1, work.batch // len(names))
    for asked, answered in (engine or InProcess()).run(work, _batches(unanswered(), size)):
        yield from found
        found.clear()
        if isinstance(answered, Lost):
            note([Failure.of(question, answered.reason) for question in asked])
            continue
        made = [answer for answer in answered if isinstance(answer, Verification)]
        append(out, made)
        note([answer for answer in answered if isinstance(answer, Failure)])
        yield from made
    yield from found


def _batches(questions: Iterable[Question], size: int) -> Iterator[tuple[Question, ...]]:
    waiting = iter(questions)
    while batch := tuple(islice(waiting, size)):
        yield batch


def _check_same_run(record: Verification, out: Path, work: Ask, label: str, names: Sequence[str]) -> None:
    lvlm = work.lvlm
    made = (
        record.lvlm,
        record.mode,
        record.editor,
        f"{record.decoding} decoding",
        record.dtype or lvlm.dtype,
    )
    wanted = (lvlm.key, work.mode, label, f"{lvlm.decoding} decoding", lvlm.dtype)
    if made != wanted:
        raise InputError(
            f"{out}: is of {', '.join(made)}, not of {', '.join(wanted)}; "
            "go on with the same, or write the records elsewhere"
        )
    if set(record.responses) != set(names):
        shams = sum(name.startswith("sham") for name in record.responses)
        raise InputError(
            f"{out}: was made with another number of sham edits ({shams}); go on with as many, or write the "
            "records elsewhere"
        )
