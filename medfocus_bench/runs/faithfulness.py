"""Measuring faithfulness: the LVLM is shown the pictures of both curves of every sample.

In the folder of the measurement `references.jsonl` has the ends of each sample's curves, and the two
references (`evaluation.faithfulness`), which all methods share; `<name>/curves.jsonl` has what the pictures
of one method did. A record is appended as it is made, and is not made again; where shards are measured apart,
each writes files of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import SPLITS, Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.evaluate import covered_part
from medfocus_bench.evaluation.faithfulness import (
    Areas,
    Faithfulness,
    Reference,
    aggregate,
    chosen_samples,
    curve_pictures,
    pixel_order,
    random_map,
    response_log_odds,
)
from medfocus_bench.evaluation.lowpass import lowpassed
from medfocus_bench.evaluation.nulls import NULL_PREFIX, null_control
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import Frame, UInt8Image, explains
from medfocus_bench.journal import Journal, read_journal
from medfocus_bench.lock import exclusive
from medfocus_bench.lvlm.fitting import fitting
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.shards import Shard
from medfocus_bench.storage import write_atomic
from medfocus_bench.submission.reader import Submission, open_submission

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

REPORT_NAME: Final = "faithfulness.json"
_FORMAT: Final = "medfocus-bench faithfulness 1"
_BLOCK: Final = 8


def faithfulness(
    submission: str | Path | Submission,
    benchmark: BenchmarkLike,
    out: str | Path,
    *,
    samples: int | None = None,
    lvlms: str | Sequence[str] = (),
    config: RunConfig | None = None,
    settings: Settings | None = None,
    shard: Shard | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> Faithfulness | None:
    """Measure how faithful the attributions of a submission are to what the LVLMs used.

    Args:
        submission: A submission, opened or its folder, or `null:NAME` for a null control.
        benchmark: A loaded one, its folder or its name.
        out: The folder of the measurement, which several submissions share.
        samples: Only so many, from every LVLM, mode and kind of evidence in turn.
        lvlms: Only the samples of these LVLMs.
        config: How the LVLMs run.
        settings: Of the intervals.
        shard: Measure only the samples of a shard.
        engine: From `open_engine`: where the LVLMs run; by default in this process.
        progress: Shows how far the measurement is.

    Returns:
        The section of a report, which is also written to `out`/<name>/faithfulness.json; None where samples
        are left for other shards.

    Raises InputError where no counterfactual picture of a sample is known, where `out` holds measurements of
    another submission or benchmark, or made under other settings, and where another process writes there.

    Example:
        >>> from medfocus_bench.runs.faithfulness import faithfulness
        >>> found = faithfulness("null:image-edges", "phantom", "measured", samples=8)
        >>> found.samples, found.forward_passes
        (8, 12.0)

    """
    whole = load_benchmark(benchmark)
    source = _null(str(submission), whole) if _is_null(submission) else _submitted(submission, whole)
    part = source.part.of_lvlms(list(one_or_more(lvlms))) if lvlms else source.part
    chosen = chosen_samples(with_counterfactuals(part), samples)
    run = _Run(Path(out), whole, config or RunConfig(), shard, engine or InProcess(), progress)
    references = run.references(chosen)
    curves = run.curves(source, chosen)
    if references is None or curves is None:
        return None
    areas = {
        key: Areas.of(record["log_odds"], references[key].original, references[key].counterfactual)
        for key, record in curves.items()
        if record["log_odds"] is not None and references[key].applies
    }
    passes = sum(record["forward_passes"] for record in curves.values()) / len(chosen)
    found = aggregate(chosen, areas, references, passes, settings or Settings())
    write_atomic(Path(out) / source.name / REPORT_NAME, found.model_dump_json(indent=1) + "\n")
    return found


def with_counterfactuals(part: Benchmark) -> list[Sample]:
    """The samples whose counterfactual picture is known.

    Raises UnavailableError where there are none.
    """
    found = [sample for sample in part.samples if sample.exact_mask is not None and sample.split in SPLITS]
    if not found:
        raise UnavailableError(
            f"{part.folder}: no picture without its finding is known of any sample in {part.covers}; "
            "faithfulness is measured where counterfactual pictures are, as on the benchmark phantom"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """Attributions by sample, and what decides them."""

    name: str
    sha256: str | None
    part: Benchmark
    of: Callable[[Sequence[Sample]], Iterator[tuple[Sample, Attribution | None]]]


def _is_null(submission: str | Path | Submission) -> bool:
    return isinstance(submission, str | Path) and str(submission).startswith(NULL_PREFIX)


def _null(name: str, benchmark: Benchmark) -> _Source:
    control = null_control(name.removeprefix(NULL_PREFIX))
    ranked = [split for split in benchmark.splits if split != "dev"] or list(benchmark.splits)
    part = benchmark.select(benchmark.configs, ranked)

    def made(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Attribution | None]]:
        wanted = {sample.sample_id for sample in samples}
        for sample, attribution in control.make(part.samples, 0):
            if sample.sample_id in wanted:
                yield sample, attribution

    return _Source(control.method().name, None, part, made)


def _submitted(submission: str | Path | Submission, benchmark: Benchmark) -> _Source:
    opened = submission if isinstance(submission, Submission) else open_submission(submission, benchmark)

    def read(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Attribution | None]]:
        return ((sample, opened.attribution(sample.sample_id)) for sample in samples)

    name = opened.path.resolve().parent.name
    return _Source(name, opened.sha256, covered_part(opened, benchmark), read)


@dataclass(frozen=True, slots=True)
class _Run:
    """One call: what is measured goes to `out`."""

    out: Path
    benchmark: Benchmark
    config: RunConfig
    shard: Shard | None
    engine: Engine
    progress: Progress

    def references(self, samples: Sequence[Sample]) -> dict[str, Reference] | None:
        """The references of all samples; None while shards lack some."""
        head = self._head()
        found = self._measured("references", head, samples, lambda lacking: lacking, MeasureReferences)
        return None if found is None else {key: _reference(record) for key, record in found.items()}

    def curves(self, source: _Source, samples: Sequence[Sample]) -> dict[str, dict[str, Any]] | None:
        """The records of a method's curves; None while shards lack some."""
        head = {**self._head(), "method": source.name, "submission": source.sha256}
        return self._measured(f"{source.name}/curves", head, samples, source.of, MeasureCurves)

    def _head(self) -> dict[str, Any]:
        config = self.config
        return {
            "format": _FORMAT,
            "benchmark": self.benchmark.fingerprint,
            "dtype": config.dtype,
            "framing": config.framing,
            "quantise": config.quantise,
        }

    def _measured(
        self,
        name: str,
        head: Mapping[str, Any],
        samples: Sequence[Sample],
        asked: Callable[[Sequence[Sample]], Iterable[Any]],
        work: Callable[[RunConfig], Any],
    ) -> dict[str, dict[str, Any]] | None:
        """The records of the samples, those that are lacking measured first."""
        path = self.out / f"{name}{'' if self.shard is None else f'-{_tag(self.shard)}'}.jsonl"
        with exclusive(path):
            journal = Journal(path, head)
            known = _read_all(self.out / name, head) | journal.records
            own = [sample for sample in samples if self.shard is None or sample in self.shard]
            lacking = [sample for sample in own if sample.sample_id not in known]
            if lacking:
                made = self.engine.run(work(self.config), _blocks(asked(lacking)))
                with closing(_records(made)) as records:
                    for record in self.progress(records, name, len(lacking)):
                        journal.add([record])
                        known[record["sample_id"]] = record
        wanted = [sample.sample_id for sample in samples]
        return {key: known[key] for key in wanted} if all(key in known for key in wanted) else None


def _tag(shard: Shard) -> str:
    return f"{shard.number}-of-{shard.count}"


def _read_all(name: Path, head: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The records of all files of a name, whichever shards wrote them."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(name.parent.glob(f"{name.name}*.jsonl")):
        found |= read_journal(path, head)
    return found


def _reference(record: Mapping[str, Any]) -> Reference:
    original, counterfactual = record["ends"]
    return Reference(
        record["sample_id"],
        original,
        counterfactual,
        Areas.of(record["mask"], original, counterfactual),
        Areas.of(record["random"], original, counterfactual),
    )


def _blocks(asked: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Samples, or pairs that begin with one, in blocks of one LVLM each; the modes of a picture together."""
    of_lvlm: dict[str, list[Any]] = {}
    for one in asked:
        of_lvlm.setdefault(_sample_of(one).lvlm, []).append(one)
    for _, held in sorted(of_lvlm.items()):
        waiting = iter(sorted(held, key=lambda one: (_sample_of(one).region, _sample_of(one).sample_id)))
        while block := tuple(islice(waiting, _BLOCK)):
            yield block


def _sample_of(one: Any) -> Sample:
    return one if isinstance(one, Sample) else one[0]


def _records(made: Iterator[tuple[Any, Any]]) -> Generator[dict[str, Any], None, None]:
    for block, record in made:
        if isinstance(record, Lost):
            first = _sample_of(block[0]).sample_id
            raise InputError(f"{first}: {record.reason}; the same command goes on from here")
        yield record


@dataclass(frozen=True, slots=True)
class MeasureReferences:
    """The work on samples of an LVLM: their ends, and the curves of the mask and of a random map."""

    config: RunConfig

    def __call__(self, samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
        lvlm = self.config.load(samples[0].lvlm)
        for sample in samples:
            original, healed = sample.image, sample.counterfactual
            frame = Frame(sample.width, sample.height)
            pictures = [original, healed]
            mask = sample.mask.astype(np.float32)
            for values, covers in ((mask, "image"), (random_map(sample.sample_id), "model")):
                given = Attribution(sample.sample_id, saliency=values, frame=covers)  # type: ignore[arg-type]
                order = pixel_order(lowpassed(given, frame), frame, sample.sample_id)
                pictures += curve_pictures(order, original, healed)
            odds = _log_odds(lvlm, sample, pictures).tolist()
            half = len(odds) // 2 + 1
            yield {
                "sample_id": sample.sample_id,
                "ends": odds[:2],
                "mask": odds[2:half],
                "random": odds[half:],
            }


@dataclass(frozen=True, slots=True)
class MeasureCurves:
    """The work on attributions of samples of an LVLM: the curves of each; None for one that says nothing."""

    config: RunConfig

    def __call__(self, block: Sequence[tuple[Sample, Attribution | None]]) -> Iterator[dict[str, Any]]:
        lvlm = self.config.load(block[0][0].lvlm)
        for sample, attribution in block:
            frame = Frame(sample.width, sample.height)
            values = None if attribution is None else lowpassed(attribution, frame)
            if values is None or not explains(values):
                yield {"sample_id": sample.sample_id, "log_odds": None, "forward_passes": 0}
                continue
            order = pixel_order(values, frame, sample.sample_id)
            pictures = curve_pictures(order, sample.image, sample.counterfactual)
            with lvlm.measured() as meter:
                odds = _log_odds(lvlm, sample, pictures)
            yield {
                "sample_id": sample.sample_id,
                "log_odds": odds.tolist(),
                "forward_passes": meter.forward_passes,
            }


def _log_odds(lvlm: HuggingFaceLVLM, sample: Sample, pictures: Sequence[UInt8Image]) -> Any:
    """The log-odds of the sample's response to each picture, (n,)."""
    response = sample.response
    if response is None:
        raise InputError(f"{sample.sample_id}: the benchmark has no response of it; make one with `verify`")
    try:
        tokens = fitting(
            lvlm, "faithfulness", lambda: lvlm.token_log_odds(pictures, sample.question, response)
        )
    except InputError as error:
        raise InputError(f"{sample.sample_id}: {error}") from None
    return response_log_odds(tokens)
