"""Faithfulness in the results: measured apart from the other scores, on LVLMs, and kept while it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.engine.protocol import Engine
from medfocus_bench.errors import UnavailableError
from medfocus_bench.evaluation.nulls import NULL_PREFIX
from medfocus_bench.leaderboard.result import NULL_RESULT, Result, read_result, result_text
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.faithfulness import faithfulness
from medfocus_bench.storage import write_atomic


@dataclass(frozen=True, slots=True)
class Measurement:
    """How faithfulness is measured: where its records go, and on how many samples; all for None."""

    folder: Path
    samples: int | None = None


def keeping_faithfulness(result: Result, committed: Result | None) -> Result:
    """The result with the faithfulness of the committed one, where that is of the same and of this evaluator.

    A null control is the same whatever the sha256: its maps are made anew each time.
    """
    if committed is None or committed.report.faithfulness is None:
        return result
    ours, theirs = result.report, committed.report
    same = ours.benchmark.fingerprint == theirs.benchmark.fingerprint and (
        ours.provenance.evaluator_version == theirs.provenance.evaluator_version
    )
    if not result.is_null:
        same = same and ours.provenance.submission_sha256 == theirs.provenance.submission_sha256
    if not same:
        return result
    return result.model_copy(update={"report": ours.model_copy(update={"faithfulness": theirs.faithfulness})})


def add_faithfulness(
    folders: Mapping[str, Path | None],
    results: Path,
    benchmark: Benchmark,
    measurement: Measurement,
    *,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> Iterator[tuple[str, float | None]]:
    """Measure the faithfulness of submissions by name (None: a null control), and put it in their results.

    Yields each name with its faithfulness; None where the benchmark has no counterfactual pictures of what it
    covers, and for a name without a result of this benchmark.
    """
    for name, folder in folders.items():
        path = results / f"{name}.json"
        result = read_result(path) if path.exists() else None
        if result is None or result.report.benchmark.fingerprint != benchmark.fingerprint:
            yield name, None
            continue
        given = NULL_PREFIX + name.removeprefix(NULL_RESULT) if folder is None else folder
        try:
            found = faithfulness(
                given,
                benchmark,
                measurement.folder,
                samples=measurement.samples,
                engine=engine,
                progress=progress,
            )
        except UnavailableError:
            yield name, None
            continue
        report = result.report.model_copy(update={"faithfulness": found})
        write_atomic(path, result_text(result.model_copy(update={"report": report})))
        yield name, None if found is None else found.faithfulness.mean
