"""One row of the leaderboard as a file: `leaderboard/results/<name>.json`, read strictly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from medfocus_bench.errors import InputError, sentence
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.metrics.registry import headline
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION
from medfocus_bench.evaluation.report import Report
from medfocus_bench.evaluation.statistics import Levels
from medfocus_bench.storage import read_regular
from medfocus_bench.submission.schema import Finite, Line, Strict

NULL_RESULT: Final = "null-"
"""Prefix of the names of null controls, which no other name has."""

MAX_RESULT_BYTES: Final = 32 * 2**20
MAX_RESULTS: Final = 5_000

TOLERANCE: Final = 2e-6
"""Numbers that differ by less are the same: six digits, rounded from values that differ in the last bit."""

DIGITS: Final = 6
"""Decimal places of the numbers beside the report."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
Stratum = tuple[str, str, str, str]
"""A source, an LVLM, a mode and a kind of evidence."""

Filters = tuple[str | None, str | None, str | None, str | None]
"""As a `Stratum`; None does not restrict."""


class Version(NamedTuple):
    """Of the benchmark and of the evaluator that a result is of: only results of one stand in one table."""

    fingerprint: str
    evaluator: str


_NUMBERS = re.compile(r"\[\s+(-?\d[-+\d.eE,\s]*?)\s+\]")


class View(Strict):
    """The scores of one combination of filters; None does not restrict.

    Each score is a macro mean, as in the slices of a report, and `levels` is as there; the headline has its
    spread over LVLMs.
    """

    source: Line | None = None
    lvlm: Line | None = None
    mode: Line | None = None
    evidence: Line | None = None
    samples: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    levels: Levels | None = None
    scores: dict[str, Score]

    @property
    def filters(self) -> Filters:
        return self.source, self.lvlm, self.mode, self.evidence


class PerSampleScores(Strict):
    """The headline of each sample of one (source, LVLM, mode, evidence), in the order of the sample ids."""

    source: Line
    lvlm: Line
    mode: Line
    evidence: Line
    patient: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=10**6)]
    score: Annotated[list[Finite], Field(min_length=1, max_length=10**6)]

    @property
    def part(self) -> Stratum:
        return self.source, self.lvlm, self.mode, self.evidence

    @model_validator(mode="after")
    def _as_many_patients_as_scores(self) -> Self:
        if len(self.patient) != len(self.score):
            raise PydanticCustomError("lengths", "patient and score have different lengths")
        return self


class Headline(Strict):
    """The headline sample by sample: what tests of differences between rows are made from."""

    patients: Annotated[list[Line], Field(min_length=1, max_length=10**6)]
    cells: Annotated[list[PerSampleScores], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if len(set(self.patients)) != len(self.patients):
            raise PydanticCustomError("patients", "a patient stands twice")
        if len({cell.part for cell in self.cells}) != len(self.cells):
            raise PydanticCustomError("cells", "a cell stands twice")
        if any(max(cell.patient) >= len(self.patients) for cell in self.cells):
            raise PydanticCustomError("patient", "a place is beyond the list of patients")
        return self


class Result(Strict):
    """Everything that the page shows of one submission.

    Its scores need not be those that are registered: a result may be older than a score, which the page then
    shows as a dash, and may hold one that was dropped since, which the page leaves out. Neither moves a rank.
    """

    schema_version: Literal["1.0"] = "1.0"
    name: Name
    report: Report
    views: Annotated[list[View], Field(min_length=1, max_length=10_000)]
    headline: Headline

    @property
    def is_null(self) -> bool:
        return self.report.method.family == "null"

    @property
    def verified(self) -> bool:
        return self.report.provenance.status == "verified"

    @property
    def unranked(self) -> str | None:
        """The reason why the row has no rank; None for one that takes a rank."""
        if self.is_null:
            return "a null control"
        if not self.verified:
            return "self-reported"
        dependence = self.report.dependence
        if dependence is None:
            return "not explained on control, so that nothing says whether it reads the model"
        return None if dependence.ranked else dependence.reason

    @property
    def version(self) -> Version:
        return Version(self.report.benchmark.fingerprint, self.report.provenance.evaluator_version)

    @property
    def parts(self) -> frozenset[Stratum]:
        """The strata that the submission covers."""
        return frozenset(cell.part for cell in self.headline.cells)

    @property
    def title(self) -> str:
        return self.report.method.title

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.report.provenance.protocol != "standard":
            raise PydanticCustomError("protocol", "only results of the standard protocol are ranked")
        if self.report.nulls:
            raise PydanticCustomError("nulls", "null controls are results of their own; leave nulls empty")
        if self.name.startswith(NULL_RESULT) != self.is_null:
            raise PydanticCustomError(
                "null", "the names that start with null- and the family null belong together"
            )
        scored = [*(view.scores for view in self.views), *(part.scores for part in self.report.slices)]
        if any(scores.keys() != self.views[0].scores.keys() for scores in scored):
            raise PydanticCustomError("scores", "a view or slice lacks a score that another one has")
        if headline_name() not in self.views[0].scores:
            raise PydanticCustomError("headline", "the score by which rows are ranked is missing")
        return self


def result_text(result: Result) -> str:
    """A result as the text of its file: one key a line, lists of numbers on one line."""
    text = result.model_dump_json(indent=1)
    return _NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", "", found[1]) + "]", text) + "\n"


def read_result(path: Path) -> Result:
    """The result in a file. Raises InputError that names the file and the place in it."""
    try:
        result = Result.model_validate_json(read_regular(path, MAX_RESULT_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {sentence(error)}; rebuild it from the submission") from None
    if result.name != path.stem:
        raise InputError(f"{path}: is named {path.stem}, but holds the result of {result.name}; rename it")
    return result


def read_results(folder: Path) -> list[Result]:
    """All results of a folder, by name. Raises InputError for any other JSON file."""
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; give the one with the results, a JSON file each")
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_RESULTS:
        raise InputError(f"{folder}: holds {len(paths):,} results; at most {MAX_RESULTS:,} are read")
    return [read_result(path) for path in paths]


def of_one_version(results: Sequence[Result]) -> tuple[Result, ...]:
    """Those of this evaluator, or of another one where it has none, on the version of the benchmark that most
    of them are of.
    """
    counts = Counter(result.version for result in results)
    chosen = max(counts, key=lambda v: (v.evaluator == EVALUATOR_VERSION, counts[v], v), default=None)
    return tuple(result for result in results if result.version == chosen)


def headline_name() -> str:
    """The key of the score by which rows are ranked."""
    return headline().name


def selected(strata: Iterable[Stratum], filters: Filters) -> frozenset[Stratum]:
    """The strata that filters select."""
    return frozenset(
        stratum
        for stratum in strata
        if all(wanted in (None, value) for wanted, value in zip(filters, stratum, strict=True))
    )


def selections(strata: Collection[Stratum]) -> dict[frozenset[Stratum], Filters]:
    """Every set of strata that filters can select, wide ones first, with the fewest filters that do."""
    values = [[None, *sorted(set(axis))] for axis in zip(*strata, strict=True)]
    found: dict[frozenset[Stratum], Filters] = {}
    for source, lvlm, mode, evidence in sorted(product(*values), key=lambda f: len(f) - f.count(None)):
        filters = (source, lvlm, mode, evidence)
        found.setdefault(selected(strata, filters), filters)
    found.pop(frozenset(), None)
    return found
