"""The data of the page's scripts: the rows of every view, as small whole numbers in a JSON block."""

from __future__ import annotations

import json
from typing import Any, Final

from markupsafe import Markup

from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.sections import SECTIONS
from medfocus_bench.leaderboard.board import Board, BoardView
from medfocus_bench.leaderboard.result import Result, headline_name

MATRIX_ROWS: Final = 40
"""Rows of the pairwise matrix; so the payload grows linearly with the results."""

PRIOR: Final = "null-mean-map"
"""The null control that has seen expert regions (of other patients): shown apart from the floor."""

_MODEL_NEEDS: Final = ("forward", "gradients", "attentions", "text")


def board_payload(board: Board) -> dict[str, Any]:
    """The board for the scripts; scores are in thousandths, and intervals distances from the mean."""
    number = {result.name: index for index, result in enumerate(board.results)}
    part_number = {part: index for index, part in enumerate(board.parts)}
    return {
        "metrics": [[m.name, m.label, m.help, m.featured] for m in metrics()],
        "sections": [[s.name, s.label, s.help, s.featured] for s in SECTIONS],
        "headline": headline_name(),
        "parts": [list(part) for part in board.parts],
        "entries": [_entry(result) for result in board.results],
        "views": {
            ",".join(str(part_number[part]) for part in board.parts if part in view.parts): _view(
                view, number
            )
            for view in board.views
        },
        "default": list(board.default.filters),
        "prior": PRIOR,
        "version": f"{board.benchmark.dataset} {board.benchmark.version}",
    }


def json_block(value: Any) -> Markup:
    """A value as JSON for a `script` element of data, escaped so that HTML parsers see only text."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character that HTML knows is left in it


def _entry(result: Result) -> dict[str, Any]:
    report = result.report
    method = report.method
    return {
        "name": result.name,
        "title": method.title,
        "family": method.family,
        "version": method.version,
        "needs": [need for need in _MODEL_NEEDS if need in method.needs],
        "verified": result.verified,
        "isNull": result.is_null,
        "tuned": method.tuned_on_dev,
        "by": ", ".join(submitter.name for submitter in report.submitters),
        "forward": _short(report.cost.forward_passes),
        "backward": _short(report.cost.backward_passes),
        "seconds": _short(report.cost.seconds),
        "unranked": result.unranked,
        **{section.name: _mean(section.score(report)) for section in SECTIONS},
        "grid": f"{report.grid.rows} x {report.grid.columns}" if report.grid else "",
        "coverage": round(report.counts.coverage, 4),
        "silent": round(report.counts.no_explanation_rate, 4),
    }


def _view(view: BoardView, number: dict[str, int]) -> dict[str, Any]:
    first = view.rows[:MATRIX_ROWS]
    return {
        "samples": view.samples,
        "patients": view.patients,
        "rows": [
            [
                number[row.result.name],
                row.rank or 0,
                *(n for m in metrics() for n in _three(row.scores.get(m.name))),
            ]
            for row in view.rows
        ],
        "beats": ["".join("01"[other.result.name in row.beats] for other in first) for row in first],
    }


def _three(score: Score | None) -> tuple[int, int, int] | tuple[None, None, None]:
    if score is None:
        return None, None, None
    mean, low, high = (round(value * 1000) for value in (score.mean, score.low, score.high))
    return mean, mean - low, high - mean


def _mean(score: float | None) -> float | None:
    return None if score is None else round(score, 3)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
