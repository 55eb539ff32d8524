"""Horizontal bars with their intervals, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.runs.panel import printable

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
    font = ImageFont.load_default(14)
    start = left + _NAME

    def along(value: float) -> int:
        return start + round(_BAR_WIDTH * max(value, 0.0) / largest)

    y = top + 30
    for bar in group.bars:
        draw.text((left, y), printable(bar.name)[:32], font=font, fill=_TEXT)
        draw.rectangle((start, y + 3, max(along(bar.value), start + 1), y + 15), fill=_BAR)
        text, end = f"{bar.value:.1f}", along(bar.value)
        if bar.low is not None and bar.high is not None:
            text += f" [{bar.low:.1f}, {bar.high:.1f}]"
            draw.line((along(bar.low), y + 9, along(bar.high), y + 9), fill=_TEXT, width=2)
            for edge in (bar.low, bar.high):
                draw.line((along(edge), y + 5, along(edge), y + 13), fill=_TEXT, width=2)
            end = max(end, along(bar.high))
        draw.text((end + 8, y), text, font=font, fill=_QUIET)
        y += _LINE
