"""The result of an evaluation, as it is written, published and read back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from medfocus_bench.evaluation.contrast import Contrast
from medfocus_bench.evaluation.dependence import Dependence
from medfocus_bench.evaluation.faithfulness import Faithfulness
from medfocus_bench.evaluation.figures import Number, Score, Stated
from medfocus_bench.evaluation.grid import Grid
from medfocus_bench.evaluation.statistics import Levels
from medfocus_bench.evaluation.words import Words
from medfocus_bench.submission.schema import BenchmarkRef, Digest, Line, MethodMetadata, Strict, Submitter

SliceKind = Literal["all", "pooled", "source", "lvlm", "mode", "evidence", "size", "finding", "cell"]


class SliceScores(Stated):
    """The scores of one part of the benchmark.

    `kind` "all" is the headline: the mean over kinds of evidence of the means over their LVLMs (macro); of an
    LVLM over its sources. "pooled" is the mean over samples. "cell" is one (LVLM, source). Every other slice
    is macro within it. `levels`: whether the intervals are over LVLMs and patients, or over patients alone;
    None in reports of evaluators before 2.0, whose intervals are all over patients. `scores` lacks those that
    did not exist, or were skipped, when the report was made.
    """

    kind: SliceKind
    value: str
    samples: int
    patients: int
    levels: Levels | None = None
    scores: dict[str, Score]


class NullScores(Strict):
    """A null control on the same samples, or why it could not be had."""

    name: str
    title: str
    unavailable: str | None = None
    slices: list[SliceScores] = Field(default=[])


class Counts(Strict):
    """Samples asked for, attributed, missing, and with an attribution that explains nothing."""

    samples: int
    attributed: int
    missing: int
    no_explanation: int
    patients: int

    @property
    def coverage(self) -> float:
        return self.attributed / self.samples

    @property
    def no_explanation_rate(self) -> float:
        """Of all samples, those without an explanation, missing ones included."""
        return (self.missing + self.no_explanation) / self.samples


class MeanCost(Strict):
    """Means over the samples that state a cost; None where none does."""

    forward_passes: Number | None = None
    backward_passes: Number | None = None
    seconds: Number | None = None


class Provenance(Stated):
    """Everything that is needed to compute the report again.

    `lvlms`: those that it is limited to; None, and left out, where it is of all that the submission covers.
    `skipped_scores`: those that need the LVLM, where it was not at hand; None, and left out, without any.
    """

    evaluator_version: str
    protocol: Literal["standard", "paper"]
    seed: int
    resamples: int
    submission_sha256: Digest
    status: Literal["verified", "self-reported"]
    lvlms: list[Line] | None = None
    skipped_scores: list[Line] | None = None


class Report(Strict):
    """The scores of a submission, with its null controls and its provenance.

    `grid`: of its maps; None where all it has are boxes, and in reports of evaluators before 2.0.
    `faithfulness` is measured apart, on the LVLMs (see `runs.faithfulness`); `words` is of a method that
    scores tokens or concepts; `dependence` and `contrast` are of the splits `control` and `contrast`. Each is
    None where it was not computed or does not apply.

    >>> import medfocus_bench as mb
    >>> benchmark = mb.load_benchmark("phantom", split="dev")
    >>> boxes = [mb.Attribution(sample.sample_id, boxes=sample.boxes) for sample in benchmark.samples]
    >>> report = mb.evaluate(boxes, benchmark, nulls=False, resamples=100)
    >>> report.slice("lvlm", "phantom_qwen").scores["iou"].mean
    1.0
    """

    schema_version: Literal["1.0"] = "1.0"
    provenance: Provenance
    benchmark: BenchmarkRef
    method: MethodMetadata
    submitters: list[Submitter]
    counts: Counts
    cost: MeanCost
    grid: Grid | None = None
    slices: list[SliceScores]
    nulls: list[NullScores]
    faithfulness: Faithfulness | None = None
    words: Words | None = None
    dependence: Dependence | None = None
    contrast: Contrast | None = None

    def slice(self, kind: SliceKind = "all", value: str = "all") -> SliceScores:
        """One slice. Raises KeyError."""
        for entry in self.slices:
            if (entry.kind, entry.value) == (kind, value):
                return entry
        raise KeyError((kind, value))

    @property
    def headline(self) -> dict[str, Score]:
        """The macro scores over everything, by name."""
        return self.slice().scores


class Difference(Stated):
    """A paired difference, first minus second, of one score.

    `kept_in`: in how many LVLMs it has the sign that it has over all, as "3 of 4"; None for one LVLM.
    """

    first: Line
    second: Line
    metric: str
    difference: Score
    levels: Levels | None = None
    kept_in: str | None = None
    p_value: Number
    p_holm: Number


class Comparison(Strict):
    """Paired differences between submissions on the same samples."""

    schema_version: Literal["1.0"] = "1.0"
    evaluator_version: str
    benchmark: BenchmarkRef
    protocol: Literal["standard", "paper"]
    seed: int
    resamples: int
    lvlms: list[Line] | None = None
    differences: list[Difference]


def report_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://medfocus.github.io/medfocus-bench/report.schema.json",
        **Report.model_json_schema(mode="serialization"),
        "title": "medfocus-bench report",
    }
