"""Measuring faithfulness: the LVLM is shown the pictures of both curves of every sample.

In the folder of the measurement `references.jsonl` has the ends of each sample's curves, and the two
references (`evaluation.faithfulness`), which all methods share; `<name>/curves.jsonl` has what the pictures
of one method did, and the digest of each attribution: where that changes, the sample is measured again. A
record is appended as it is made; shards write files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import SPLITS, Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.data.truth import installed_truths
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.evaluate import attribution_digest, covered_part
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
from medfocus_bench.progress import Progress, Say, no_progress, say_nothing
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
    say: Say = say_nothing,
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
        say: Is told where the LVLMs run, before they are loaded.

    Returns:
        The section of a report, which is also written to `out`/<name>/faithfulness.json; None where samples
        are left for other shards.

    Raises InputError where no counterfactual picture of a sample is known, where `out` holds measurements of
    another benchmark or made under other settings, and where another process writes there.

    Example:
        >>> from medfocus_bench.runs.faithfulness import faithfulness
        >>> found = faithfulness("null:image-edges", "phantom", "measured", samples=8)
        >>> found.samples, found.forward_passes
        (8, 12.0)

    """
    whole = load_benchmark(benchmark)
    source = _null(str(submission), whole) if _is_null(submission) else _submitted(submission, whole)
    part = source.part.of_lvlms(list(one_or_more(lvlms))) if lvlms else source.part
    chosen = with_counterfactuals(part, samples)
    run = _Run(Path(out), whole, config or RunConfig(), shard, engine or InProcess(), progress, say)
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


def with_counterfactuals(part: Benchmark, count: int | None = None) -> list[Sample]:
    """So many of the samples whose counterfactual picture is known, as `chosen_samples` takes them.

    Raises UnavailableError where there are none.
    """
    sources = installed_truths()
    possible = [sample for sample in part.samples if sample.source in sources and sample.split in SPLITS]
    found = [sample for sample in chosen_samples(possible, count) if sample.exact_mask is not None]
    if not found:
        raise UnavailableError(
            f"{part.folder}: no picture without its finding is known of any sample in {part.covers}; "
            "faithfulness is measured where counterfactual pictures are, as on the benchmark phantom"
        )
    return found


Find = Callable[[Sample], Attribution | None]


@dataclass(frozen=True, slots=True)
class _Source:
    """Attributions: of the samples of `part`; `of` gives a way to look up those of some of them."""

    name: str
    part: Benchmark
    of: Callable[[Sequence[Sample]], Find]


def _is_null(submission: str | Path | Submission) -> bool:
    return isinstance(submission, str | Path) and str(submission).startswith(NULL_PREFIX)


def _null(name: str, benchmark: Benchmark) -> _Source:
    control = null_control(name.removeprefix(NULL_PREFIX))
    ranked = [split for split in benchmark.splits if split != "dev"] or list(benchmark.splits)
    part = benchmark.select(benchmark.configs, ranked)

    def made(samples: Sequence[Sample]) -> Find:
        wanted = {sample.sample_id for sample in samples}
        pairs = control.make(part.samples, 0)  # of all: the prior of one may be made of the others
        found = {sample.sample_id: one for sample, one in pairs if sample.sample_id in wanted}
        return lambda sample: found.get(sample.sample_id)

    return _Source(control.method().name, part, made)


def _submitted(submission: str | Path | Submission, benchmark: Benchmark) -> _Source:
    opened = submission if isinstance(submission, Submission) else open_submission(submission, benchmark)

    def read(samples: Sequence[Sample]) -> Find:
        return lambda sample: opened.attribution(sample.sample_id)

    return _Source(opened.path.resolve().parent.name, covered_part(opened, benchmark), read)


@dataclass(frozen=True, slots=True)
class _Run:
    """One call: its records go to `out`."""

    out: Path
    benchmark: Benchmark
    config: RunConfig
    shard: Shard | None
    engine: Engine
    progress: Progress
    say: Say

    def references(self, samples: Sequence[Sample]) -> dict[str, Reference] | None:
        """The references of all samples; None while shards lack some."""
        units = partial(_blocks, of=lambda sample: sample)
        found = self._measured("references", samples, {}, units, MeasureReferences(self.config))
        return None if found is None else {key: _reference(record) for key, record in found.items()}

    def curves(self, source: _Source, samples: Sequence[Sample]) -> dict[str, dict[str, Any]] | None:
        """The records of a method's curves; None while shards lack some."""
        find = source.of(samples)
        digests = {
            sample.sample_id: attribution_digest(found).hex()
            for sample in samples
            if (found := find(sample)) is not None
        }
        units = partial(_blocks, of=lambda sample: (sample, find(sample)))
        return self._measured(f"{source.name}/curves", samples, digests, units, MeasureCurves(self.config))

    def _own(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that this call measures, of one LVLM after the other, modes of a picture together."""
        own = [sample for sample in samples if self.shard is None or sample in self.shard]
        return sorted(own, key=lambda sample: (sample.lvlm, sample.region, sample.sample_id))

    def _measured(
        self,
        name: str,
        samples: Sequence[Sample],
        digests: Mapping[str, str],
        units: Callable[[Sequence[Sample]], Iterator[tuple[Any, ...]]],
        work: Callable[[Any], Iterator[dict[str, Any]]],
    ) -> dict[str, dict[str, Any]] | None:
        """The records of the samples, those that are lacking measured first.

        A record is of the attribution with the digest in it: that of another one is measured again, and does
        not count, whichever call wrote it.
        """
        config = self.config
        head: dict[str, Any] = {
            "format": _FORMAT,
            "benchmark": self.benchmark.fingerprint,
            "dtype": config.dtype,
            "framing": config.framing,
            "quantise": config.quantise,
        }
        if config.pixels is not None:
            head["pixels"] = list(config.pixels)
        path = self.out / f"{name}{'' if self.shard is None else f'-{_tag(self.shard)}'}.jsonl"
        with exclusive(path):
            journal = Journal(path, head)
            known = {
                key: record
                for records in (*_read_all(self.out / name, head), journal.records)
                for key, record in records.items()
                if record.get("attribution") == digests.get(key)
            }
            lacking = [sample for sample in self._own(samples) if sample.sample_id not in known]
            if lacking:
                self.say(self.config.placed(", ".join(dict.fromkeys(sample.lvlm for sample in lacking))))
                made = self.engine.run(work, units(lacking))
                with closing(_records(made)) as records:
                    for record in self.progress(records, name, len(lacking)):
                        key = record["sample_id"]
                        known[key] = record | ({"attribution": digests[key]} if key in digests else {})
                        journal.add([known[key]])
        wanted = [sample.sample_id for sample in samples]
        return {key: known[key] for key in wanted} if all(key in known for key in wanted) else None


def _tag(shard: Shard) -> str:
    return f"{shard.number}-of-{shard.count}"


def _read_all(name: Path, head: Mapping[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """The records of each file of a name, whichever shards wrote them."""
    return [read_journal(path, head) for path in sorted(name.parent.glob(f"{name.name}*.jsonl"))]


def _reference(record: Mapping[str, Any]) -> Reference:
    original, counterfactual = record["ends"]
    return Reference(
        record["sample_id"],
        original,
        counterfactual,
        Areas.of(record["mask"], original, counterfactual),
        Areas.of(record["random"], original, counterfactual),
    )


def _blocks(samples: Sequence[Sample], of: Callable[[Sample], Any]) -> Iterator[tuple[Any, ...]]:
    """`of` each sample, in blocks of one LVLM each, made when they are asked for."""
    for _, held in groupby(samples, key=lambda sample: sample.lvlm):
        while block := tuple(islice(held, _BLOCK)):
            yield tuple(of(sample) for sample in block)


def _records(made: Iterator[tuple[Any, Any]]) -> Generator[dict[str, Any], None, None]:
    for block, record in made:
        if isinstance(record, Lost):
            first = (block[0] if isinstance(block[0], Sample) else block[0][0]).sample_id
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
