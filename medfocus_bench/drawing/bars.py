"""Horizontal bars with their intervals, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.drawing.lettering import printable

_BACKGROUND: Final = (255, 255, 255)
_TEXT: Final = (24, 28, 36)
_QUIET: Final = (104, 110, 122)
_BAR: Final = (186, 42, 92)
_MARGIN: Final = 28
_NAME: Final = 230
_BAR_WIDTH: Final = 330
_NUMBER: Final = 170
_LINE: Final = 24
_GAP: Final = 26
_COLUMNS: Final = 3
_MAX_HEIGHT: Final = 30_000


@dataclass(frozen=True, slots=True)
class Bar:
    """A value of at least 0 with the ends of its interval, where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars on one scale, under a title."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class BarStyle:
    """Colours, the size of the letters, and the distances in pixels of one bar."""

    text: tuple[int, int, int]
    quiet: tuple[int, int, int]
    bar: tuple[int, int, int]
    size: int
    offset: int
    gap: int
    digits: str
    letters: int


_STYLE: Final = BarStyle(_TEXT, _QUIET, _BAR, size=14, offset=3, gap=8, digits=".1f", letters=32)


def bar_chart(title: str, groups: Sequence[BarGroup]) -> Image.Image:
    """All groups on one scale, up to three beside each other, the largest value at full width."""
    columns = min(_COLUMNS, max(1, len(groups)))
    width = _NAME + _BAR_WIDTH + _NUMBER
    rows = [groups[start : start + columns] for start in range(0, len(groups), columns)]
    heights = [30 + _LINE * max(len(group.bars) for group in row) + _GAP for row in rows]
    height = min(_MARGIN + 44 + sum(heights) + _MARGIN, _MAX_HEIGHT)
    sheet = Image.new("RGB", (2 * _MARGIN + columns * width + (columns - 1) * _GAP, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), printable(title), font=ImageFont.load_default(22), fill=_TEXT)
    ends = [end for group in groups for bar in group.bars for end in (bar.value, bar.high or 0.0)]
    largest = max([*ends, 1e-9])
    top = _MARGIN + 44
    for row, own_height in zip(rows, heights, strict=True):
        for column, group in enumerate(row):
            _draw_group(draw, group, _MARGIN + column * (width + _GAP), top, largest)
        top += own_height
    return sheet


def _draw_group(draw: ImageDraw.ImageDraw, group: BarGroup, left: int, top: int, largest: float) -> None:
    draw.text((left, top), printable(group.title)[:80], font=ImageFont.load_default(16), fill=_TEXT)
    for number, bar in enumerate(group.bars):
        at = (left, top + 30 + _LINE * number)
        draw_bar(draw, at, (left + _NAME, _BAR_WIDTH), bar, largest, _STYLE)


def draw_bar(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    room: tuple[int, int],
    bar: Bar,
    largest: float,
    style: BarStyle,
) -> None:
    """A name at a place, its bar, its number, and its interval as a whisker.

    `room`: where bars begin, and how wide that of the value `largest` is.
    """
    font = ImageFont.load_default(style.size)
    left, y = at
    start, width = room
    top = y + style.offset

    def along(value: float) -> int:
        return start + (round(width * max(value, 0.0) / largest) if largest > 0 else 0)

    draw.text((left, y), printable(bar.name)[: style.letters], font=font, fill=style.text)
    draw.rectangle((start, top, max(along(bar.value), start + 1), top + 12), fill=style.bar)
    number, end = format(bar.value, style.digits), along(bar.value)
    if bar.low is not None and bar.high is not None:
        number += f" [{bar.low:{style.digits}}, {bar.high:{style.digits}}]"
        draw.line((along(bar.low), top + 6, along(bar.high), top + 6), fill=style.text, width=2)
        for edge in (bar.low, bar.high):
            draw.line((along(edge), top + 2, along(edge), top + 10), fill=style.text, width=2)
        end = max(end, along(bar.high))
    draw.text((end + style.gap, y), number, font=font, fill=style.quiet)
