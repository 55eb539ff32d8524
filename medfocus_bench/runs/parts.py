"""The parts of a run: one method on the samples of one LVLM in one split, with its records."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.runs.records import Failure, RecordFiles, RecordWriter, add_failure, forget_failures
from medfocus_bench.runs.settings import RunSettings, check_settings, part_name, write_settings
from medfocus_bench.runs.wanted import note_begun
from medfocus_bench.submission.entry import to_entry


@dataclass(slots=True)
class PartOutcome:
    """Counts for one (method, LVLM, split): all samples, already on disk, newly attributed.

    `seconds` are those of the new ones; `reasons` say why samples could not be explained.
    """

    method: str
    lvlm: str
    split: str
    samples: int
    existing: int
    new: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """The samples of one LVLM in one split."""

    lvlm: str
    source: str
    split: str
    samples: tuple[Sample, ...]


class Part:
    """One method on the samples of one job: its records, and which samples they lack (`pending`)."""

    def __init__(
        self, job: Job, method: str, folder: Path, benchmark: Benchmark, elsewhere: Collection[str] = ()
    ) -> None:
        """`elsewhere`: samples that another folder of the run holds."""
        self._job, self._folder, self._covers = job, folder, benchmark.covers
        self._samples = {sample.sample_id: sample for sample in job.samples}
        self._writer = RecordWriter(RecordFiles.of(self._folder, job.lvlm, job.split))
        wanted = [key for key in self._samples if key not in elsewhere]
        self.pending = {key for key in wanted if key not in self._writer.sample_ids}
        if self.pending:
            note_begun(self._folder, job.lvlm, job.split, wanted, self._writer.sample_ids)
        self._begun = not self.pending
        self._checked: set[str | None] = set()
        self.outcome = PartOutcome(
            method, job.lvlm, job.split, len(job.samples), len(job.samples) - len(self.pending)
        )

    def begin(self, wanted: RunSettings, checkpoint: str | None) -> None:
        """Write down the settings before the first record, and forget the failures that are tried again.

        `checkpoint` is that of the LVLM, where loading it told; the settings are read once for each. Raises
        InputError where the records in the folder are of other settings.
        """
        if checkpoint in self._checked:
            return
        names = {part_name(self._job.lvlm, sample.mode) for sample in self._job.samples}
        settings = wanted.of_parts(names, checkpoint)
        check_settings(self._folder, settings)
        write_settings(self._folder, settings)
        if not self._begun:
            forget_failures(self._folder, self.pending)
            self._begun = True
        self._checked.add(checkpoint)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def add(self, attribution: Attribution, asked: tuple[str, str] | None = None) -> None:
        """Record an attribution. Raises InputError for one that a submission could not hold."""
        entry = to_entry(attribution, self._samples, self._covers, self.outcome.method)
        self._writer.add(entry, attribution, asked=asked)
        self.pending.discard(attribution.sample_id)
        self.outcome.new += 1
        self.outcome.seconds += attribution.cost.seconds or 0.0

    def fail(self, sample_id: str, why: str) -> None:
        """Record that a sample could not be explained."""
        if not self._begun:
            forget_failures(self._folder, {sample_id})
        self.pending.discard(sample_id)
        self.outcome.reasons.append(why)
        failure = Failure(sample_id=sample_id, lvlm=self._job.lvlm, split=self._job.split, reason=why)
        add_failure(self._folder, failure)
