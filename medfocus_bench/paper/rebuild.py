"""A benchmark from raw data: the causal filter over licensed sources, where nobody ran it yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medfocus_bench.counterfactual.causal_filter import Failure, read_verifications, verify
from medfocus_bench.counterfactual.dataset import NAME, all_records, records_file, source_questions
from medfocus_bench.counterfactual.editors import Editor
from medfocus_bench.data.attach import Attached, write_attached
from medfocus_bench.data.questions import MODES, Mode, Question
from medfocus_bench.data.rows import pointer_row, split_of
from medfocus_bench.data.sources.copies import check_copy
from medfocus_bench.data.sources.protocol import Annotations, Source
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import PAPER_LVLMS, lvlm_key
from medfocus_bench.paper.plan import LINE_BYTES, Pace, Plan, PlanLine, check_pace, seconds_a_pass
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.attribute import RunConfig

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

VERSION: Final = "rebuilt"

TOKENS: Final[dict[Mode, int]] = {"direct": 3, "reasoning": 64}
"""Tokens that an answer is planned with; one pass each."""


@dataclass(frozen=True)
class Rebuild:
    """What is asked, and by whom: `lvlms` answer questions of `sources` below `root`, in these modes.

    Records of the filter go to `folder`/filter, the benchmark to `folder`/benchmark. `limit` takes the first
    questions of each source.
    """

    sources: Sequence[Source]
    root: Path
    editor: Editor
    folder: Path
    lvlms: Sequence[str] = tuple(PAPER_LVLMS)
    modes: Sequence[Mode] = MODES
    shams: int = 1
    limit: int | None = None
    conditions: RunConfig = field(default_factory=RunConfig)
    progress: Progress = no_progress

    @cached_property
    def annotations(self) -> dict[str, Annotations]:
        """The questions of each source. Raises InputError for a table that is not there.

        Likewise for pictures of another copy than the annotated one.
        """
        found = {source.name: source.annotations(self.root) for source in self.sources}
        for questions in found.values():
            check_copy(questions, self.root)
        return found

    @property
    def filter_folder(self) -> Path:
        return self.folder / "filter"

    def file(self, source: str, lvlm: str, mode: Mode) -> Path:
        """The records of one run of the filter."""
        return records_file(self.filter_folder, source, lvlm_key(lvlm), mode)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The benchmark, with the questions that could not be asked."""

    attached: Attached
    failures: tuple[Failure, ...]


def rebuild(order: Rebuild) -> Rebuilt:
    """Runs what is missing of the filter, and writes the benchmark of all its records, every group in it.

    A stopped run is gone on with. Raises InputError for a table that is not there, for an LVLM or editor that
    cannot be loaded, and if no question turned out to be grounded.
    """
    failures: list[Failure] = []
    found = order.annotations
    for name in order.lvlms:
        loaded: HuggingFaceLVLM | None = None
        for source in order.sources:
            for mode in order.modes:
                asked = found[source.name].questions[: order.limit]
                if not _missing(order, source.name, name, mode):
                    continue
                loaded = loaded or order.conditions.load(name)
                made = verify(
                    source_questions(asked, order.root),
                    loaded,
                    mode,
                    order.editor,
                    order.file(source.name, name, mode),
                    sham_seeds=range(order.shams),
                    on_failure=failures.append,
                )
                for _ in order.progress(made, f"{loaded.key} {mode} {source.name}", len(asked)):
                    pass
    out = order.folder / "benchmark"
    attached = write_attached(_rows(order), order.root, out, name=NAME, version=VERSION, overwrite=True)
    return Rebuilt(attached, tuple(failures))


def _rows(order: Rebuild) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of the records of this order; a folder may hold more."""
    keys = {lvlm_key(name) for name in order.lvlms}
    for source in order.sources:
        asked = {question.index for question in order.annotations[source.name].questions[: order.limit]}
        for record in all_records(order.filter_folder, source):
            if record.lvlm in keys and record.mode in order.modes and record.index in asked:
                row = pointer_row(record) | {"finding": record.finding}
                yield row["sample_id"], split_of(row), row


def _missing(order: Rebuild, source: str, lvlm: str, mode: Mode) -> list[int]:
    """The questions that an LVLM has not been asked in a mode."""
    file = order.file(source, lvlm, mode)
    done = {record.index for record in read_verifications(file)} if file.exists() else set()
    asked = order.annotations[source].questions[: order.limit]
    return [question.index for question in asked if question.index not in done]


def plan_rebuild(target: str, title: str, order: Rebuild, seconds_per_forward: float | None = None) -> Plan:
    """What the filter would take. What the target needs after it depends on how many questions it keeps."""
    check_pace(seconds_per_forward)
    pictures = 4 + order.shams
    paces: list[Pace] = []
    lines: list[PlanLine] = []
    for name in order.lvlms:
        key = lvlm_key(name)
        pairs = [(source.name, mode) for source in order.sources for mode in order.modes]
        missing = {(source, mode): _missing(order, source, name, mode) for source, mode in pairs}
        pace = _pace(order, name, seconds_per_forward) if any(missing.values()) else None
        paces += [pace] if pace is not None else []
        for (source, mode), lacking in missing.items():
            forward = float(pictures * TOKENS[mode])
            lines.append(
                PlanLine(
                    name=f"causal filter, {source}",
                    lvlm=key,
                    split=mode,
                    samples=len(order.annotations[source].questions[: order.limit]),
                    missing=len(lacking),
                    forward=forward,
                    backward=0,
                    passes="declared",
                    bytes=len(lacking) * LINE_BYTES,
                    hours=0.0 if pace is None else len(lacking) * forward * pace.seconds / 3600,
                )
            )
    direct, reasoning = TOKENS["direct"], TOKENS["reasoning"]
    notes = [
        f"Each question has {pictures} pictures; an answer is planned with {direct} tokens in direct and "
        f"{reasoning} in reasoning mode, a pass each. The editor's own time is not in it.",
        f"What {target} needs after the filter depends on what it keeps: plan again with --benchmark "
        f"{order.folder / 'benchmark'}.",
    ]
    return Plan(target=target, title=title, paces=paces, lines=lines, notes=notes)


def _pace(order: Rebuild, name: str, given: float | None) -> Pace:
    device = order.conditions.device
    if given is not None:
        return Pace(lvlm=lvlm_key(name), seconds=given, origin="given", device=device)
    loaded = order.conditions.load(name)
    for source in order.sources:
        for question in source_questions(order.annotations[source.name].questions, order.root):
            if isinstance(question, Question):
                reading = loaded.encode(question.image, f"Is there evidence of {question.finding}?", "Yes")
                seconds = seconds_a_pass(loaded, reading)
                return Pace(lvlm=loaded.key, seconds=seconds, origin="measured", device=device)
    raise InputError(f"{order.root}: no picture can be read, so that no pass can be timed")
