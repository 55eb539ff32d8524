"""The leaderboard as values: rows of every combination of filters, with shared ranks and the null floor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.leaderboard.pairwise_tests import contributions, shared_ranks, significantly_better
from medfocus_bench.leaderboard.result import (
    Filters,
    Result,
    Stratum,
    View,
    headline_name,
    of_one_version,
    selected,
    selections,
)
from medfocus_bench.submission.schema import BenchmarkRef


@dataclass(frozen=True, slots=True, eq=False)
class BoardRow:
    """One result in one view. `rank` is None for what `Result.unranked` says.

    `beats` holds the names of the rows that it is significantly better than.
    """

    result: Result
    rank: int | None
    scores: dict[str, Score]
    beats: frozenset[str]

    @property
    def headline(self) -> Score:
        return self.scores[headline_name()]


@dataclass(frozen=True, slots=True, eq=False)
class BoardView:
    """One combination of filters: its rows, best first. Results that do not cover it are not in it."""

    filters: Filters
    parts: frozenset[Stratum]
    samples: int
    patients: int
    rows: tuple[BoardRow, ...]

    @property
    def floor(self) -> BoardRow | None:
        """The best null control."""
        return next((row for row in self.rows if row.result.is_null), None)

    def row(self, name: str) -> BoardRow | None:
        return next((row for row in self.rows if row.result.name == name), None)


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """All views of the results of one `Version`; `others` are of other ones, and are never beside these."""

    benchmark: BenchmarkRef
    results: tuple[Result, ...]
    others: tuple[Result, ...]
    parts: tuple[Stratum, ...]
    views: tuple[BoardView, ...]

    @property
    def default(self) -> BoardView:
        """The widest view that at least half of the results cover, so that a partial one changes nothing."""
        half = len(self.results) / 2
        return max(self.views, key=lambda view: (len(view.rows) >= half, len(view.parts), len(view.rows)))

    def view(
        self,
        *,
        source: str | None = None,
        lvlm: str | None = None,
        mode: str | None = None,
        evidence: str | None = None,
    ) -> BoardView | None:
        """The view of these filters; None where they select nothing, or what nobody covers."""
        parts = selected(self.parts, (source, lvlm, mode, evidence))
        return next((view for view in self.views if view.parts == parts), None)


def make_board(results: Sequence[Result]) -> Board:
    """The board of the results that go together, as `of_one_version`. Raises InputError without any."""
    if not results:
        raise InputError("no results to show; score a submission and put its result there first")
    shown = of_one_version(results)
    others = tuple(result for result in results if result.version != shown[0].version)
    parts = tuple(sorted({part for result in shown for part in result.parts}))
    return Board(
        benchmark=shown[0].report.benchmark,
        results=shown,
        others=others,
        parts=parts,
        views=tuple(_views(shown, parts)),
    )


def _views(results: Sequence[Result], strata: Sequence[Stratum]) -> Iterator[BoardView]:
    """One view for every selection that some result covers in full, wide ones first."""
    own = [{selected(result.parts, view.filters): view for view in result.views} for result in results]
    for chosen, filters in selections(strata).items():
        members = []
        for result, views in zip(results, own, strict=True):
            if chosen <= result.parts:
                if chosen not in views:
                    raise InputError(f"{result.name}: its result lacks a view that it covers; rebuild it")
                members.append((result, views[chosen]))
        if members:
            yield _board_view(filters, chosen, members)


def _board_view(
    filters: Filters, parts: frozenset[Stratum], members: Sequence[tuple[Result, View]]
) -> BoardView:
    name = headline_name()
    order = sorted(members, key=lambda member: (-member[1].scores[name].mean, member[0].name))
    first = order[0][1]
    for result, view in order:
        if (view.samples, view.patients) != (first.samples, first.patients):
            raise InputError(
                f"{result.name}: has {view.samples} samples where {order[0][0].name} has {first.samples}; "
                "rebuild both on one benchmark"
            )
    results = [result for result, _ in order]
    ranked = np.array([result.unranked is None for result in results], dtype=np.bool_)
    better = significantly_better(contributions(results, parts), ranked)
    ranks = shared_ranks(better, ranked)
    rows = tuple(
        BoardRow(
            result=result,
            rank=rank,
            scores=view.scores,
            beats=frozenset(results[other].name for other in np.flatnonzero(better[number])),
        )
        for number, ((result, view), rank) in enumerate(zip(order, ranks, strict=True))
    )
    return BoardView(filters, parts, first.samples, first.patients, rows)
