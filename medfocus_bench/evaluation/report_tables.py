"""Reports and comparisons as tables."""

from __future__ import annotations

from collections.abc import Sequence

from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.metrics.metric import Metric
from medfocus_bench.evaluation.metrics.registry import headline, metrics
from medfocus_bench.evaluation.report import Comparison, Report, SliceKind, SliceScores
from medfocus_bench.evaluation.sections import SECTIONS
from medfocus_bench.evaluation.statistics import Levels
from medfocus_bench.tables import Row, Table, counted

_NOTHING = "\N{EN DASH}"
_NO_INTERVAL = f"[{_NOTHING}]"
_COLUMNS = 6
"""Scores in one table, so that it fits a terminal."""

_SLICE_TITLES: dict[SliceKind, str] = {
    "all": "all (macro)",
    "pooled": "all (pooled)",
    "source": "source",
    "lvlm": "LVLM",
    "mode": "mode",
    "evidence": "evidence",
    "size": "region size",
    "finding": "finding",
    "cell": "LVLM / source",
}


def report_tables(report: Report, *, narrow: bool = False) -> list[Table]:
    """The scores with the null controls beneath, the sections of the report, then the headline by slice.

    `narrow` is for what has less than `FULL_WIDTH` columns: in the slices, null controls are bare means.
    """
    shown = [metric for metric in metrics(report.provenance.protocol) if metric.name in report.headline]
    tables = [
        _scores_table(report, "Scores, continued" if start else "Scores", shown[start : start + _COLUMNS])
        for start in range(0, len(shown), _COLUMNS)
    ]
    return [*tables, *_sections_table(report), _slices_table(report, narrow)]


def report_summary(report: Report) -> list[str]:
    """The samples, the costs and the settings of a report, in a few lines."""
    counts, origin, benchmark = report.counts, report.provenance, report.benchmark
    return [
        f"{report.method.title} {report.method.version} on {benchmark.dataset} {benchmark.version} "
        f"({benchmark.fingerprint[:12]}), {', '.join(benchmark.configs)} / {', '.join(benchmark.splits)}"
        + (f", of {', '.join(origin.lvlms)} alone" if origin.lvlms else ""),
        f"{counted(counts.samples, 'sample')} of {counted(counts.patients, 'patient')}: "
        f"{counts.attributed} attributed "
        f"(coverage {counts.coverage:.1%}), {counts.missing} missing, "
        f"{counts.no_explanation} that explain nothing "
        f"(no-explanation rate {counts.no_explanation_rate:.1%})",
        *_cost_line(report),
        f"{origin.protocol} protocol, evaluator {origin.evaluator_version}, seed {origin.seed}, "
        f"{origin.resamples:,} resamples, intervals over {_over(report.slice().levels)}, "
        f"submission {origin.submission_sha256[:12]}, {origin.status}",
        *_spread_line(report),
        *_grid_line(report),
        *_dependence_line(report),
        *_skipped_line(report),
    ]


def comparison_table(comparison: Comparison) -> Table:
    """Every paired difference with its interval and p-values."""
    rows = tuple(
        Row(
            (
                f"{entry.first} - {entry.second}",
                entry.metric,
                _signed(entry.difference),
                _spread(entry.difference, "+.3f"),
                entry.kept_in or _NOTHING,
                _p_value(entry.p_value, comparison.resamples),
                _p_value(entry.p_holm, comparison.resamples),
            )
        )
        for entry in comparison.differences
    )
    levels = sorted({_over(entry.levels) for entry in comparison.differences})
    notes = (
        f"Differences of macro means, 95 % intervals and p over {' or '.join(levels)}, "
        f"Holm over the {counted(len(rows), 'test')} of this table.",
        "By LVLM: the least and the greatest difference of an LVLM, and in how many the sign is kept.",
    )
    header = ("pair", "score", "difference", "by LVLM", "kept in", "p", "p (Holm)")
    return Table("Paired differences", header, rows, notes)


def _scores_table(report: Report, title: str, metrics: Sequence[Metric]) -> Table:
    macro, pooled = (_cells(report.slice(kind), metrics) for kind in ("all", "pooled"))
    rows = [Row((report.method.title, *macro))]
    if pooled != macro:
        rows.append(Row((f"{report.method.title} (pooled)", *pooled), quiet=True))
    for null in report.nulls:
        if null.unavailable is None:
            rows.append(Row((f"null: {null.title}", *_cells(null.slices[0], metrics)), quiet=True))
    missing = [f"{n.title}: not available, {n.unavailable}" for n in report.nulls if n.unavailable]
    over = _over(report.slice().levels)
    notes = [f"Macro means over LVLMs, then kinds of evidence, with 95 % intervals over {over}."]
    if not report.nulls:
        notes.append("Null controls were switched off: nothing here can be told from a prior.")
    return Table(title, ("", *(m.label for m in metrics)), tuple(rows), (*notes, *missing))


def _sections_table(report: Report) -> list[Table]:
    """The figures beside the localisation scores, with a note on each; no table where there are none."""
    rows, notes = [], []
    for section in SECTIONS:
        found = section.find(report)
        if isinstance(found, Score):
            rows.append(
                Row((section.label, _number(found.mean), f"[{_number(found.low)}, {_number(found.high)}]"))
            )
            notes.append(f"{section.label}: {section.help}")
    header = ("", report.method.title, "95 % interval")
    return [Table("Beside the localisation", header, tuple(rows), tuple(notes))] if rows else []


def _slices_table(report: Report, narrow: bool) -> Table:
    metric = headline(report.provenance.protocol)
    nulls = [null for null in report.nulls if null.unavailable is None]
    rows: list[Row] = []
    for kind, title in _SLICE_TITLES.items():
        parts = [(number, part) for number, part in enumerate(report.slices) if part.kind == kind]
        if len(parts) < 2 and kind != "all":
            continue
        if len(parts) > 1:
            rows.append(Row((title, *[""] * (2 + len(nulls))), quiet=True))
        for number, part in parts:
            label = title if len(parts) == 1 else f"  {part.value}"
            cells = _cells(part, [metric])
            for null in nulls:
                (cell,) = _cells(null.slices[number], [metric], bare=narrow)
                cells.append(cell)
            rows.append(Row((label, f"{part.samples} ({part.patients})", *cells)))
    headings = ["samples (patients)", *(null.title for null in nulls)]
    counts, *titles = (text.replace(" ", "\n") if narrow else text for text in headings)
    header = ("slice", counts, report.method.title, *titles)
    several = any(part.levels == "lvlms and patients" for part in report.slices)
    notes = ["Intervals over LVLMs and patients; slices of one LVLM over patients alone."] if several else []
    if nulls:
        notes.append("The columns after the method's are the null controls on the same samples.")
    return Table(f"{metric.label} by slice", header, tuple(rows), tuple(notes))


def _over(levels: Levels | None) -> str:
    """The units of an interval in words; all those of evaluators before 2.0 were over patients."""
    return (levels or "patients").replace("lvlms", "LVLMs")


def _spread(score: Score, form: str = ".3f") -> str:
    return _NOTHING if score.spread is None else " to ".join(format(end, form) for end in score.spread)


def _spread_line(report: Report) -> list[str]:
    metric = headline(report.provenance.protocol)
    score = report.headline.get(metric.name)
    return [f"{metric.label} by LVLM: {_spread(score)}"] if score and score.spread else []


def _grid_line(report: Report) -> list[str]:
    grid = report.grid
    if grid is None:
        return []
    return [f"maps of {grid.rows} x {grid.columns} cells, on which the exact mask has {grid.ceiling:.3f}"]


def _dependence_line(report: Report) -> list[str]:
    """Whether the leaderboard would rank the method, where that is known."""
    dependence = report.dependence
    if dependence is None or dependence.ranked:
        return []
    return [f"no rank on the leaderboard: {dependence.reason}"]


def _skipped_line(report: Report) -> list[str]:
    skipped = report.provenance.skipped_scores
    return [f"not computed, as no LVLM was at hand: {', '.join(skipped)}"] if skipped else []


def _cost_line(report: Report) -> list[str]:
    cost = report.cost
    parts = [
        f"{value:.4g} {one if value == 1 else several}"
        for value, one, several in (
            (cost.forward_passes, "forward pass", "forward passes"),
            (cost.backward_passes, "backward pass", "backward passes"),
            (cost.seconds, "s", "s"),
        )
        if value is not None
    ]
    return [f"cost per sample: {', '.join(parts)}"] if parts else []


def _cells(part: SliceScores, metrics: Sequence[Metric], *, bare: bool = False) -> list[str]:
    """Means with their intervals, of which one patient has none; or `bare` means. A score may be missing."""
    scores = [part.scores.get(metric.name) for metric in metrics]
    return [
        _NOTHING
        if score is None
        else _number(score.mean)
        if bare
        else f"{_number(score.mean)} {_interval(score, part.patients)}"
        for score in scores
    ]


def _interval(score: Score, patients: int) -> str:
    return f"[{_number(score.low)}, {_number(score.high)}]" if patients > 1 else _NO_INTERVAL


def _signed(score: Score) -> str:
    return f"{score.mean:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"


def _number(value: float) -> str:
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _p_value(value: float, permutations: int) -> str:
    smallest = 1 / (permutations + 1)
    return f"<= {smallest:.1g}" if value <= smallest * 1.0001 else f"{value:.4f}"
