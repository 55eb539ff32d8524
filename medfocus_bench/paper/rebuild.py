"""A benchmark from raw data: the causal filter over licensed sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medfocus_bench.counterfactual.causal_filter import verify
from medfocus_bench.counterfactual.dataset import (
    NAME,
    all_records,
    pointer_row,
    records_file,
    source_questions,
)
from medfocus_bench.counterfactual.editors import Editor
from medfocus_bench.counterfactual.records import Failure, read_verifications
from medfocus_bench.data.attach import Attached, write_attached
from medfocus_bench.data.questions import MODES, Mode, Question
from medfocus_bench.data.rows import split_of
from medfocus_bench.data.sources.protocol import Annotation, Annotations, Source
from medfocus_bench.data.sources.reading import check_copy
from medfocus_bench.engine.devices import named_device
from medfocus_bench.engine.protocol import Engine, InProcess
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.models import PAPER_LVLMS
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.paper.costs import Pace, Passes, Plan, PlanLine, check_pace, pace_of
from medfocus_bench.progress import Progress, Say, no_progress, once, say_nothing
from medfocus_bench.runs.config import RunConfig

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

VERSION: Final = "rebuilt"

TOKENS: Final[dict[Mode, int]] = {"direct": 3, "reasoning": 64}
"""Tokens of an answer in a plan; one pass each."""


@dataclass(frozen=True)
class RebuildConfig:
    """The questions, and who is asked: `lvlms` answer those of `sources` below `root`, in these modes.

    Records of the filter go to `folder`/filter, the benchmark to `folder`/benchmark. `limit` selects the
    first questions of each source.
    """

    sources: Sequence[Source]
    root: Path
    editor: Editor
    folder: Path
    lvlms: Sequence[str] = tuple(PAPER_LVLMS)
    modes: Sequence[Mode] = MODES
    shams: int = 1
    limit: int | None = None
    run_config: RunConfig = field(default_factory=RunConfig)
    engine: Engine = field(default_factory=InProcess)
    progress: Progress = no_progress
    say: Say = say_nothing

    @cached_property
    def annotations(self) -> dict[str, Annotations]:
        """The questions of each source. Raises InputError for a table that is not there.

        Likewise for pictures of another copy than the annotated one.
        """
        annotations = {source.name: source.annotations(self.root) for source in self.sources}
        for questions in annotations.values():
            check_copy(questions, self.root)
        return annotations

    def questions(self, source: str) -> Sequence[Annotation]:
        """The first `limit` questions of a source."""
        return self.annotations[source].questions[: self.limit]

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


def rebuild(config: RebuildConfig) -> Rebuilt:
    """Run the filter where records are missing, and write the benchmark of all its records, with every group.

    An interrupted run is resumed. Raises InputError for a table that is not there, for an LVLM or editor that
    cannot be loaded, and if no question turned out to be grounded.
    """
    failures: list[Failure] = []
    say = once(config.say)
    for name in config.lvlms:
        for source in config.sources:
            for mode in config.modes:
                asked = config.questions(source.name)
                if not _missing(config, source.name, name, mode):
                    continue
                say(config.run_config.placed(lvlm_key(name)))
                made = verify(
                    source_questions(asked, config.root),
                    config.run_config.source(name),
                    mode,
                    config.editor,
                    config.file(source.name, name, mode),
                    sham_seeds=range(config.shams),
                    engine=config.engine,
                    on_failure=failures.append,
                )
                for _ in config.progress(made, f"{lvlm_key(name)} {mode} {source.name}", len(asked)):
                    pass
    out = config.folder / "benchmark"
    attached = write_attached(_rows(config), config.root, out, name=NAME, version=VERSION, overwrite=True)
    return Rebuilt(attached, tuple(failures))


def _rows(config: RebuildConfig) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of the records of this configuration; the folder may hold more."""
    keys = {lvlm_key(name) for name in config.lvlms}
    for source in config.sources:
        asked = {question.index for question in config.questions(source.name)}
        for record in all_records(config.filter_folder, source):
            if record.lvlm in keys and record.mode in config.modes and record.index in asked:
                row = pointer_row(record) | {"finding": record.finding}
                yield row["sample_id"], split_of(row), row


def _missing(config: RebuildConfig, source: str, lvlm: str, mode: Mode) -> list[int]:
    """The questions that an LVLM has not yet answered in a mode, in this decoding and type of weights."""
    file, run = config.file(source, lvlm, mode), config.run_config
    records = read_verifications(file) if file.exists() else []
    done = {
        record.index
        for record in records
        if record.decoding == run.decoding and record.dtype in (None, run.dtype)
    }
    return [question.index for question in config.questions(source) if question.index not in done]


def plan_rebuild(
    name: str, title: str, config: RebuildConfig, seconds_per_forward: float | None = None
) -> Plan:
    """The cost of the filter. That of the table after it depends on the number of questions that it keeps."""
    check_pace(seconds_per_forward)
    pictures = 4 + config.shams
    paces: list[Pace] = []
    lines: list[PlanLine] = []
    for lvlm in config.lvlms:
        jobs = [
            (source.name, mode, _missing(config, source.name, lvlm, mode))
            for source in config.sources
            for mode in config.modes
        ]
        pace = None
        if any(missing for *_, missing in jobs):
            encode = partial(_encoded, config, lvlm)
            pace = pace_of(
                lvlm_key(lvlm), named_device(config.run_config.device), seconds_per_forward, encode
            )
            paces.append(pace)
        for source, mode, missing in jobs:
            part = (f"causal filter, {source}", lvlm_key(lvlm), mode)
            passes = Passes(float(pictures * TOKENS[mode]))
            samples = len(config.questions(source))
            time = pace.of(passes) if pace is not None else None
            lines.append(PlanLine.of(part, samples, len(missing), passes, "declared", time))
    notes = [
        f"Each question has {pictures} pictures; an answer is planned with {TOKENS['direct']} tokens in "
        f"direct and {TOKENS['reasoning']} in reasoning mode, a pass each. The editor's time is not in it.",
        f"The cost of {name} after the filter depends on the questions that it keeps: plan again with "
        f"--benchmark {config.folder / 'benchmark'}.",
    ]
    return Plan(target=name, title=title, paces=paces, lines=lines, notes=notes)


def _encoded(config: RebuildConfig, name: str) -> tuple[HuggingFaceLVLM, EncodedExample]:
    """An LVLM with the first question whose picture can be read."""
    lvlm = config.run_config.load(name)
    for source in config.sources:
        for question in source_questions(config.annotations[source.name].questions, config.root):
            if isinstance(question, Question):
                asked = f"Is there evidence of {question.finding}?"
                return lvlm, lvlm.encode(question.image, asked, "Yes")
    raise InputError(f"{config.root}: no picture can be read, so that no pass can be timed")
