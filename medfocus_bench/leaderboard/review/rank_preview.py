"""The row of a new result among the committed ones, and the ranks that would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medfocus_bench.leaderboard.board import BoardRow, BoardView, make_board
from medfocus_bench.leaderboard.result import Result
from medfocus_bench.tables import Row, Table

MAX_NEIGHBOURS = 5
"""Rows that are shown on either side of the new one."""


@dataclass(frozen=True, slots=True)
class Move:
    """A row whose rank changes; None for unranked."""

    name: str
    title: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The row that a result would get, in the widest view that it covers.

    `tied`: the rows, null controls among them, that are not significantly better or worse.
    """

    row: BoardRow
    view: BoardView
    before: BoardRow | None
    tied: tuple[BoardRow, ...]
    moves: tuple[Move, ...]

    @property
    def ranked(self) -> int:
        return sum(row.rank is not None for row in self.view.rows)

    @property
    def unbeaten_nulls(self) -> tuple[BoardRow, ...]:
        """The null controls that it is not significantly better than."""
        return tuple(r for r in self.view.rows if r.result.is_null and r.result.name not in self.row.beats)


def standing(result: Result, committed: Sequence[Result]) -> Standing:
    """Compare a result with the committed ones of the same version of benchmark and evaluator.

    A committed result of the same name is what it replaces. Raises InputError where the committed results do
    not go together.
    """
    others = [other for other in committed if other.version == result.version]
    old = {other.name: other for other in others}
    board = make_board([*(other for other in others if other.name != result.name), result])
    views = [view for view in board.views if view.row(result.name) is not None]
    view = max(views, key=lambda view: len(view.parts))
    row = view.row(result.name)
    assert row is not None
    earlier = _same_view(others, view)
    return Standing(
        row=row,
        view=view,
        before=earlier.row(result.name) if earlier is not None and result.name in old else None,
        tied=tuple(other for other in view.rows if other is not row and not _apart(row, other)),
        moves=tuple(_moves(earlier, view, result.name)),
    )


def standing_tables(found: Standing) -> list[Table]:
    """The new row among its neighbours, and the ranks that change."""
    rows = found.view.rows
    at = rows.index(found.row)
    near = rows[max(0, at - MAX_NEIGHBOURS) : at + MAX_NEIGHBOURS + 1]
    nulls = [row for row in rows if row.result.is_null and row not in near][:1]
    table = Table(
        f"The row of {found.row.result.name}, of {found.ranked} in the ranking",
        ("rank", "method", "evidence AP [95 %]", "samples", "coverage", "not told apart from the new row"),
        tuple(_ranking_row(row, found) for row in (*near, *nulls)),
        tuple(_notes(found)),
    )
    moves = Table(
        "Ranks that change",
        ("method", "before", "after"),
        tuple(Row((move.title, _rank(move.before), _rank(move.after))) for move in found.moves),
    )
    return [table, moves] if found.moves else [table]


def _same_view(committed: Sequence[Result], view: BoardView) -> BoardView | None:
    if not committed:
        return None
    return next((v for v in make_board(committed).views if v.parts == view.parts), None)


def _apart(row: BoardRow, other: BoardRow) -> bool:
    return other.result.name in row.beats or row.result.name in other.beats


def _moves(before: BoardView | None, after: BoardView, new: str) -> list[Move]:
    ranks = {row.result.name: row.rank for row in before.rows} if before is not None else {}
    return [
        Move(row.result.name, row.result.title, ranks[row.result.name], row.rank)
        for row in after.rows
        if row.result.name in ranks and ranks[row.result.name] != row.rank and row.result.name != new
    ]


def _ranking_row(row: BoardRow, found: Standing) -> Row:
    counts, score = row.result.report.counts, row.headline
    new = row is found.row
    return Row(
        (
            "null" if row.result.is_null else _rank(row.rank),
            f"{row.result.title} (new)" if new else row.result.title,
            f"{score.mean:z.3f} [{score.low:z.3f}, {score.high:z.3f}]",
            f"{found.view.samples}",
            f"{counts.coverage:.1%}",
            "" if new else "yes" if row in found.tied else "no",
        ),
        quiet=row.result.is_null,
    )


def _notes(found: Standing) -> list[str]:
    notes = []
    if found.before is not None:
        old, new = found.before.headline.mean, found.row.headline.mean
        rank = _rank(found.before.rank)
        notes.append(f"It replaces a row of evidence AP {old:z.3f}, rank {rank}: {new - old:+z.3f}.")
    if found.view.floor is None:
        notes.append("The results hold no null controls: nothing here can be told from a prior.")
    elif found.unbeaten_nulls:
        titles = ", ".join(row.result.title for row in found.unbeaten_nulls)
        notes.append(f"Not significantly better than these, which look at no model: {titles}.")
    else:
        notes.append("It is significantly better than every null control.")
    missing = found.row.result.report.counts.missing
    if missing:
        notes.append(f"{missing} samples are missing; each scores 0.")
    notes.append(
        "Rows share a rank where no row is significantly better; Holm's correction is over all pairs of "
        "ranked rows, so that a new one can join or part others by a little."
    )
    return notes


def _rank(rank: int | None) -> str:
    return "\N{EN DASH}" if rank is None else str(rank)
