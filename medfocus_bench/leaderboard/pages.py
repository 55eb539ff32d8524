"""The content of the pages of one method and of one LVLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.report import SliceKind, SliceScores
from medfocus_bench.leaderboard.board import Board, BoardRow, BoardView
from medfocus_bench.leaderboard.gallery import KINDS, GalleryPicture
from medfocus_bench.leaderboard.page_data import PRIOR
from medfocus_bench.leaderboard.result import Result, headline_name

_TITLES: Final[dict[SliceKind, str]] = {
    "source": "Source",
    "lvlm": "LVLM",
    "mode": "Mode",
    "evidence": "Kind of evidence",
    "size": "Size of the region",
    "finding": "Finding",
}
_VALUES: Final = {"1 small": "small", "2 medium": "medium", "3 large": "large"}


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice of a method, with the headline of the best null control there (`floor`) and of the prior."""

    label: str
    samples: int
    patients: int
    scores: dict[str, Score]
    floor: float | None
    prior: float | None

    @property
    def headline(self) -> Score:
        return self.scores[headline_name()]


@dataclass(frozen=True, slots=True)
class SliceGroup:
    """The slices of one kind."""

    title: str
    rows: tuple[SliceRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MethodPage:
    """A method's page. `standing` is its row in the view that most results cover, where it stands there."""

    result: Result
    whole: SliceRow
    groups: tuple[SliceGroup, ...]
    standing: BoardRow | None
    ranked: int
    shares: int
    gallery: tuple[tuple[str, tuple[GalleryPicture, ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class LvlmPage:
    """An LVLM's page: its rows in every mode, and in all of them where there are several."""

    lvlm: str
    sources: tuple[str, ...]
    evidence: tuple[str, ...]
    views: tuple[tuple[str, BoardView], ...]


def method_page(board: Board, result: Result, gallery: Sequence[GalleryPicture]) -> MethodPage:
    """Slices beside the null controls of the same slices, and where the method stands."""
    nulls = [other for other in board.results if other.is_null and other.parts == result.parts]
    rows = [
        (part.kind, _slice_row(part, result, nulls)) for part in result.report.slices if part.kind in _TITLES
    ]
    groups = tuple(
        SliceGroup(_TITLES[kind], tuple(row for _, row in found))
        for kind, found in ((kind, list(group)) for kind, group in groupby(rows, key=lambda item: item[0]))
        if len(found) > 1
    )
    standing = board.default.row(result.name)
    ranks = [row.rank for row in board.default.rows if row.rank is not None]
    pictures = tuple((kind, tuple(p for p in gallery if p.kind == kind)) for kind in KINDS)
    return MethodPage(
        result=result,
        whole=_slice_row(result.report.slice(), result, nulls),
        groups=groups,
        standing=standing,
        ranked=len(ranks),
        shares=ranks.count(standing.rank) if standing and standing.rank else 0,
        gallery=tuple((kind, found) for kind, found in pictures if found),
    )


def lvlm_page(board: Board, lvlm: str) -> LvlmPage:
    """The rows of one LVLM."""
    parts = [part for part in board.parts if part[1] == lvlm]
    modes = sorted({part[2] for part in parts})
    wanted = [("All modes", None)] if len(modes) > 1 else []
    wanted += [(f"{mode.capitalize()} mode", mode) for mode in modes]  # type: ignore[misc]
    found = [(title, board.view(lvlm=lvlm, mode=mode)) for title, mode in wanted]
    return LvlmPage(
        lvlm=lvlm,
        sources=tuple(sorted({part[0] for part in parts})),
        evidence=tuple(sorted({part[3] for part in parts})),
        views=tuple((title, view) for title, view in found if view is not None),
    )


def _slice_row(part: SliceScores, result: Result, nulls: Sequence[Result]) -> SliceRow:
    name = headline_name()
    floor: float | None = None
    prior: float | None = None
    for null in nulls:
        try:
            mean = null.report.slice(part.kind, part.value).scores[name].mean
        except KeyError:
            continue
        if null.name == PRIOR:
            prior = mean
        else:
            floor = mean if floor is None else max(floor, mean)
    return SliceRow(
        label=_VALUES.get(part.value, part.value),
        samples=part.samples,
        patients=part.patients,
        scores=part.scores,
        floor=floor,
        prior=prior,
    )
