"""The paper's ablations and sensitivities of MedFocus, on any benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import ValidationError

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.errors import InputError, UnavailableError, sentence
from medfocus_bench.evaluation.evaluate import score_null
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.report import Score
from medfocus_bench.evaluation.score import Aggregator, ScoredSamples, score_samples
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.attribute import PartOutcome, RunConfig, attribute
from medfocus_bench.runs.cases import part_of
from medfocus_bench.runs.methods import MethodSpec
from medfocus_bench.runs.records import Record, RecordFiles
from medfocus_bench.runs.settings import MAX_DOCUMENT_BYTES, BenchmarkIdentity, write_document
from medfocus_bench.storage import read_regular
from medfocus_bench.submission.schema import Finite, Strict
from medfocus_bench.tables import Row, Table

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

METHOD: Final = "medfocus"
TABLES_NAME: Final = "ablation"
METRICS: Final = ("evidence_ap", "iou", "f1", "precision", "recall")
CONTROL: Final = "both-lungs"


@dataclass(frozen=True, slots=True)
class Variant:
    """The method with some of its settings changed: which study it belongs to, and its value there."""

    study: str
    value: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return f"{self.study}-{self.value}".replace(" ", "-").replace("+", "and")


def variants(
    segmenter: str | None = None, references: str | None = None, editor: str | None = None
) -> list[Variant]:
    """The paper as published first, then one setting changed at a time.

    With a `segmenter` (MedSAM) the boxes are refined, as published, and the localisers stand with it and
    without; `editor` adds the redrawing of a region by a counterfactual editor; `references` replaces the
    shipped pool everywhere.
    """
    given = {"references": references, "segmenter": segmenter}
    common = {name: value for name, value in given.items() if value is not None}
    found = [
        Variant("published", "default"),
        Variant("region", "mask", {"region": "mask"}),
        *(Variant("fill", fill, {"fill": fill}) for fill in ("mean", "blur", "inpaint")),
    ]
    if editor is not None:
        found.append(Variant("fill", f"editor {editor.split(',')[0]}", {"editor": editor}))
    if segmenter is None:
        found.append(Variant("localisation", "atlas", {"localiser": "atlas"}))
    else:
        found += [
            Variant("localisation", "transport", {"segmenter": None}),
            Variant("localisation", "atlas", {"localiser": "atlas", "segmenter": None}),
            Variant("localisation", "atlas + MedSAM", {"localiser": "atlas"}),
        ]
    found += [Variant("pool size", str(size), {"pool_size": size}) for size in (1, 4)]
    found += [Variant("lambda", f"{lam:g}", {"lam": lam}) for lam in (0.01, 1.0)]
    found += [Variant("eps", f"{eps:g}", {"eps": eps}) for eps in (0.005, 0.5)]
    return [Variant(one.study, one.value, {**common, **one.settings}) for one in found]


class AblationRow(Strict):
    """The scores of one variant, or of the control, on an LVLM or (lvlm "all") the mean over LVLMs.

    `failure_rate`: of the samples, those where nothing drives the answer; None for the control.
    `not_run`: samples that the method could not explain; they score 0.
    """

    study: str
    value: str
    settings: dict[str, Any]
    lvlm: str
    samples: int
    patients: int
    scores: dict[str, Score]
    failure_rate: Finite | None = None
    not_run: int = 0


class Ablation(Strict):
    """The content of `ablation.json`."""

    format: Literal["medfocus-bench ablation 1"] = "medfocus-bench ablation 1"
    method: str = METHOD
    benchmark: BenchmarkIdentity
    splits: list[str]
    seed: int
    rows: list[AblationRow]


def ablate(
    benchmark: BenchmarkLike,
    out: str | Path,
    *,
    splits: str | Sequence[str],
    lvlms: str | Sequence[str] = (),
    limit: int | None = None,
    segmenter: str | None = None,
    references: str | None = None,
    editor: str | None = None,
    conditions: RunConfig | None = None,
    resamples: int | None = None,
    progress: Progress = no_progress,
) -> tuple[Ablation, list[PartOutcome]]:
    """Runs every variant on the samples of a benchmark, and writes `ablation.json` after each LVLM.

    Records go to `out`/<variant>/ as they are made, and a second run goes on with them. Of every LVLM and
    split the first `limit` samples are taken. Raises InputError as `attribute` does.
    """
    given = conditions or RunConfig()
    benchmark, out = load_benchmark(benchmark), Path(out)
    splits, lvlms = one_or_more(splits), one_or_more(lvlms)
    shared = _Shared(given.target, given.seed, given.dtype, given.framing, given.device)
    settings = (
        Settings(seed=given.seed) if resamples is None else Settings(seed=given.seed, resamples=resamples)
    )
    part = part_of(benchmark, (), splits)
    sources = list(lvlms) or sorted({sample.lvlm for sample in part.samples})
    wanted = variants(segmenter, references, editor)
    outcomes: list[PartOutcome] = []
    keys: list[str] = []
    document = Ablation(
        benchmark=BenchmarkIdentity.of(benchmark), splits=list(splits), seed=given.seed, rows=[]
    )
    try:
        for source in sources:
            for variant in wanted:
                found = attribute(
                    [MethodSpec(METHOD, variant.settings)],
                    benchmark,
                    out / variant.folder,
                    splits=splits,
                    lvlms=[source],
                    limit=limit,
                    conditions=shared,
                    progress=progress,
                )
                outcomes += found
            keys += [outcome.lvlm for outcome in outcomes if outcome.lvlm not in keys]
            samples = _taken(part, keys, limit)
            rows = _rows(part, samples, wanted, out, settings)
            document = document.model_copy(update={"rows": rows})
            write_document(out / f"{TABLES_NAME}.json", document)
    finally:
        _loaded.cache_clear()
    return document, outcomes


def ablation_tables(document: Ablation) -> list[Table]:
    """One table for each LVLM, and before them one of the means over several."""
    lvlms = list(dict.fromkeys(row.lvlm for row in document.rows))
    header = ("", "", "Evidence AP", "IoU", "F1", "Precision", "Recall", "Failures")
    tables = []
    for lvlm in lvlms:
        own = [row for row in document.rows if row.lvlm == lvlm]
        rows, last = [], ""
        for row in own:
            study = "" if row.study == last else row.study
            last = row.study
            cells = (_cell(row.scores[name], row.patients) for name in METRICS)
            failures = "" if row.failure_rate is None else f"{row.failure_rate:.1%}"
            rows.append(Row((study, row.value, *cells, failures), quiet=row.failure_rate is None))
        title = "MedFocus, mean over LVLMs" if lvlm == "all" else f"MedFocus of {lvlm}"
        notes = [
            f"Samples: {own[0].samples}, patients: {own[0].patients} ({', '.join(document.splits)}); one "
            "setting changed at a time, the others as published; 95 % intervals by patient. A failure "
            "reports the whole image.",
        ]
        missed = sum(row.not_run for row in own)
        if missed:
            notes.append(f"{missed} explanations could not be made and score 0.")
        tables.append(Table(title, header, tuple(rows), tuple(notes)))
    return tables


@dataclass(frozen=True, slots=True)
class _Shared(RunConfig):
    """RunConfig under which all variants use the one LVLM that was loaded last."""

    def load(self, source: str) -> HuggingFaceLVLM:
        return _loaded(source, RunConfig(self.target, self.seed, self.dtype, self.framing, self.device))


@lru_cache(maxsize=1)
def _loaded(source: str, conditions: RunConfig) -> HuggingFaceLVLM:
    return conditions.load(source)


def _taken(part: Benchmark, keys: Sequence[str], limit: int | None) -> tuple[Sample, ...]:
    """The samples that `attribute` takes: the first of each LVLM and split."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in part.samples:
        if sample.lvlm in keys:
            groups.setdefault((sample.lvlm, sample.split), []).append(sample)
    taken = {sample.sample_id for group in groups.values() for sample in group[:limit]}
    return tuple(sample for sample in part.samples if sample.sample_id in taken)


def _rows(
    part: Benchmark, samples: tuple[Sample, ...], wanted: Iterable[Variant], out: Path, settings: Settings
) -> list[AblationRow]:
    aggregator = Aggregator(samples)
    rows: list[AblationRow] = []
    for variant in wanted:
        folder = out / variant.folder / METHOD
        held = {record.entry.sample_id: (files, record) for files, record in _records(folder)}
        scored = score_samples(samples, _attributions(samples, held), settings)
        failures = {key: record.diagnostics.get("failure", 0.0) for key, (_, record) in held.items()}
        rows += _of_variant(variant, aggregator, samples, scored, failures, settings)
    control = Variant("null control", NULL_CONTROLS[CONTROL].title.lower())
    try:
        scored = score_null(CONTROL, replace(part, samples=samples), settings)
    except UnavailableError:
        return rows
    return [*rows, *_of_variant(control, aggregator, samples, scored, None, settings)]


def _of_variant(
    variant: Variant,
    aggregator: Aggregator,
    samples: Sequence[Sample],
    scored: ScoredSamples,
    failures: Mapping[str, float] | None,
    settings: Settings,
) -> Iterator[AblationRow]:
    several = len({sample.lvlm for sample in samples}) > 1
    for part in aggregator.aggregate(scored, settings):
        if part.kind != "lvlm" and not (part.kind == "all" and several):
            continue
        lvlm = part.value if part.kind == "lvlm" else "all"
        own = [sample.sample_id for sample in samples if lvlm in ("all", sample.lvlm)]
        rate = None
        if failures is not None:
            rate = float(np.mean([failures.get(key, 0.0) for key in own]))
        yield AblationRow(
            study=variant.study,
            value=variant.value,
            settings=dict(variant.settings),
            lvlm=lvlm,
            samples=part.samples,
            patients=part.patients,
            scores={name: part.scores[name] for name in METRICS},
            failure_rate=rate,
            not_run=0 if failures is None else sum(key not in failures for key in own),
        )


def _records(folder: Path) -> Iterator[tuple[RecordFiles, Record]]:
    for files in RecordFiles.all_of(folder):
        yield from ((files, record) for record in files.read())


def _attributions(
    samples: Iterable[Sample], held: Mapping[str, tuple[RecordFiles, Record]]
) -> Iterator[tuple[Sample, Attribution | None]]:
    for sample in samples:
        found = held.get(sample.sample_id)
        yield sample, None if found is None else found[0].attribution(found[1])


def _cell(score: Score, patients: int) -> str:
    """A mean with its interval, of which one patient has none."""
    return f"{score.mean:.3f}" + (f" [{score.low:.3f}, {score.high:.3f}]" if patients > 1 else "")


def read_ablation(path: Path) -> Ablation:
    """The document at `path`. Raises InputError for one that is missing or is none."""
    try:
        return Ablation.model_validate_json(read_regular(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: is not an ablation: {sentence(error)}") from None
