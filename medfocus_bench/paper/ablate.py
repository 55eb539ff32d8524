"""The paper's ablations and sensitivities of MedFocus, on any benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.engine.protocol import Engine, InProcess
from medfocus_bench.errors import UnavailableError
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import CELL
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import RESAMPLES
from medfocus_bench.paper.config import MEDFOCUS, ReproduceConfig
from medfocus_bench.paper.document import Estimate, ResultColumn
from medfocus_bench.paper.measuring import (
    NullControlScores,
    Quantity,
    SampleSet,
    Selection,
    measure,
    selections,
)
from medfocus_bench.paper.runs import RunResults, RunSpec, run_missing
from medfocus_bench.progress import Progress, Say, no_progress, say_nothing
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import MethodSpec
from medfocus_bench.runs.parts import PartOutcome
from medfocus_bench.runs.settings import BenchmarkIdentity, write_document
from medfocus_bench.submission.schema import Finite, Strict
from medfocus_bench.tables import Row, Table

TABLES_NAME: Final = "ablation"
CONTROL: Final = "both-lungs"

_COLUMNS: Final = {
    "evidence_ap": "Evidence AP",
    "iou": "IoU",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}
_SCORES: Final = Quantity(
    tuple(ResultColumn(key=name, label=label) for name, label in _COLUMNS.items()),
    lambda scored, samples: scored.scores(samples.samples, samples.settings).columns(list(_COLUMNS)),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """MedFocus with some settings changed: the study that it belongs to, and its value there."""

    study: str
    value: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return f"{self.study}-{self.value}".replace(" ", "-").replace("+", "and")


def variants(
    segmenter: str | None = None, references: str | None = None, editor: str | None = None
) -> list[Variant]:
    """The grid: first the method as published, then one setting changed at a time.

    With a `segmenter` (MedSAM) the boxes are refined, as published, and the localisers stand with it and
    without; `editor` adds the redrawing of a region by a counterfactual editor; `references` replaces the
    shipped pool everywhere.
    """
    given = {"references": references, "segmenter": segmenter}
    common = {name: value for name, value in given.items() if value is not None}
    grid = [
        Variant("published", "default"),
        Variant("region", "mask", {"region": "mask"}),
        *(Variant("fill", fill, {"fill": fill}) for fill in ("mean", "blur", "inpaint")),
    ]
    if editor is not None:
        grid.append(Variant("fill", f"editor {editor.split(',')[0]}", {"editor": editor}))
    if segmenter is None:
        grid.append(Variant("localisation", "atlas", {"localiser": "atlas"}))
    else:
        grid += [
            Variant("localisation", "transport", {"segmenter": None}),
            Variant("localisation", "atlas", {"localiser": "atlas", "segmenter": None}),
            Variant("localisation", "atlas + MedSAM", {"localiser": "atlas"}),
        ]
    grid += [Variant("pool size", str(size), {"pool_size": size}) for size in (1, 4)]
    grid += [Variant("lambda", f"{lam:g}", {"lam": lam}) for lam in (0.01, 1.0)]
    grid += [Variant("eps", f"{eps:g}", {"eps": eps}) for eps in (0.005, 0.5)]
    return [Variant(one.study, one.value, {**common, **one.settings}) for one in grid]


class AblationRow(Strict):
    """The scores of one variant, or of the null control, on an LVLM or (lvlm "all") their mean over LVLMs.

    `failure_rate`: the share of samples where nothing drives the response; None for the control. `not_run`:
    the number of samples that the method could not explain; they score 0.
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
    method: str = MEDFOCUS
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
    run_config: RunConfig | None = None,
    resamples: int = RESAMPLES,
    engine: Engine | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> tuple[Ablation, list[PartOutcome]]:
    """Run every variant on the samples of a benchmark, and write `ablation.json` after each LVLM.

    Records go to `out`/<variant>/ as they are made, and a second call resumes. Of every LVLM and split the
    first `limit` samples are used. Raises InputError as `attribute` does.
    """
    part = load_benchmark(benchmark).part((), one_or_more(splits))
    config = ReproduceConfig(
        part,
        Path(out),
        Path(out),
        lvlms=one_or_more(lvlms),
        limit=limit,
        segmenter=segmenter,
        run_config=run_config or RunConfig(),
        resamples=resamples,
        engine=engine or InProcess(),
        progress=progress,
        say=say,
    )
    grid = variants(segmenter, references, editor)
    specs = [
        RunSpec(one.folder, MethodSpec(MEDFOCUS, one.settings), part, part.splits, config.runs / one.folder)
        for one in grid
    ]
    outcomes: list[PartOutcome] = []
    document = Ablation(
        benchmark=BenchmarkIdentity.of(part),
        splits=list(one_or_more(splits)),
        seed=config.run_config.seed,
        rows=[],
    )
    sources = list(config.sources.values())
    for number, source in enumerate(sources, start=1):
        outcomes += run_missing(specs, replace(config, lvlms=[source]))[0]
        so_far = replace(config, lvlms=sources[:number])
        rows = list(_rows(so_far, grid, [RunResults.read(spec) for spec in specs]))
        document = document.model_copy(update={"rows": rows})
        write_document(config.out / f"{TABLES_NAME}.json", document)
    return document, outcomes


def ablation_tables(document: Ablation) -> list[Table]:
    """One table for each LVLM, and before them one of the means over several."""
    lvlms = list(dict.fromkeys(row.lvlm for row in document.rows))
    header = ("", "", *_COLUMNS.values(), "Failures")
    tables = []
    for lvlm in lvlms:
        own = [row for row in document.rows if row.lvlm == lvlm]
        rows, last = [], ""
        for row in own:
            study = "" if row.study == last else row.study
            last = row.study
            cells = (_cell(row.scores[name], row.patients) for name in _COLUMNS)
            failures = "" if row.failure_rate is None else f"{row.failure_rate:.1%}"
            rows.append(Row((study, row.value, *cells, failures), quiet=row.failure_rate is None))
        title = "MedFocus, mean over LVLMs" if lvlm == "all" else f"MedFocus of {lvlm}"
        notes = [
            f"Samples: {own[0].samples}, patients: {own[0].patients} ({', '.join(document.splits)}); one "
            "setting changed at a time, the others as published; 95 % intervals. A failure "
            "reports the whole image.",
        ]
        missed = sum(row.not_run for row in own)
        if missed:
            notes.append(f"{missed} explanations could not be made and score 0.")
        tables.append(Table(title, header, tuple(rows), tuple(notes)))
    return tables


def _rows(
    config: ReproduceConfig, grid: Sequence[Variant], results: Sequence[RunResults]
) -> Iterator[AblationRow]:
    """Each variant on each LVLM, and first on all of them where there are several; then the null control."""
    samples = SampleSet(config.selected(config.benchmark.splits), config.settings, by=CELL)
    each = selections(samples.samples, ("lvlm",))
    chosen = [Selection("all"), *each] if len(each) > 1 else each
    for variant, one in zip(grid, results, strict=True):
        failures = one.failures(samples.samples)
        for selection, scores in zip(chosen, measure(one, samples, chosen, [_SCORES]), strict=True):
            inside = np.array([sample in selection for sample in samples.samples])
            yield _row(
                variant,
                samples,
                selection,
                scores,
                failure_rate=float(failures[inside].mean()),
                not_run=len(one.missing(samples.within(selection))),
            )
    title = NULL_CONTROLS[CONTROL].title
    try:
        measured = measure(NullControlScores(CONTROL, config.benchmark), samples, chosen, [_SCORES])
    except UnavailableError:
        return
    for selection, scores in zip(chosen, measured, strict=True):
        yield _row(Variant("null control", title.lower()), samples, selection, scores)


def _row(
    variant: Variant, samples: SampleSet, selection: Selection, scores: Mapping[str, Estimate], **more: Any
) -> AblationRow:
    count, patients = samples.counts(selection)
    return AblationRow(
        study=variant.study,
        value=variant.value,
        settings=dict(variant.settings),
        lvlm=selection.title,
        samples=count,
        patients=patients,
        scores={
            name: Score(mean=one.value, low=one.ends[0], high=one.ends[1]) for name, one in scores.items()
        },
        **more,
    )


def _cell(score: Score, patients: int) -> str:
    """A mean with its interval, which needs more than one patient."""
    return f"{score.mean:.3f}" + (f" [{score.low:.3f}, {score.high:.3f}]" if patients > 1 else "")
