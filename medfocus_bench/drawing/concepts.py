"""A panel of the scores of concepts and tokens, like figure 5 of the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.drawing.bars import Bar, BarStyle, draw_bar
from medfocus_bench.drawing.colours import BACKGROUND, QUIET, TEXT, colour_scale
from medfocus_bench.drawing.lettering import printable

_DARK: Final = (14, 14, 18)
_BAR: Final = (245, 128, 32)

_MARGIN: Final = 28
_COLUMN: Final = 620
_LINE: Final = 34
_BAR_LINE: Final = 28
_NAME: Final = 250
_NUMBER: Final = 170
_MAX_CONCEPTS: Final = 8
_MAX_LINES: Final = 14


@dataclass(frozen=True, slots=True, eq=False)
class ConceptDrawing:
    """The content of one panel: `picture` is the image with its explanation over it.

    `tokens`: those of the response with their scores; `concepts`: scores by name, with their `intervals`,
    where they are known; `note`: a line below.
    """

    title: str
    question: str
    picture: Image.Image
    tokens: Sequence[tuple[str, float]]
    concepts: Mapping[str, float]
    response: str
    note: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def concept_panel(drawing: ConceptDrawing) -> Image.Image:
    """The picture, and beside it the question, the response coloured token by token, and the top concepts."""
    left = _MARGIN * 2 + drawing.picture.width
    sheet = Image.new("RGB", (left + _COLUMN + _MARGIN, 4000), BACKGROUND)
    sheet.paste(drawing.picture, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(sheet)
    y = _heading(draw, drawing.title, left, _MARGIN, 22, TEXT)
    y = _flow(draw, [(drawing.question, None)], left, y, 16) + 14
    y = _heading(draw, "Response, by how much each token loses", left, y, 14, QUIET)
    y = _flow(draw, _coloured(drawing), left, y, 18) + 14
    if drawing.concepts:
        y = _heading(draw, "Concepts, the strongest first", left, y, 14, QUIET)
        y = _bars(draw, drawing, left, y)
    if drawing.note:
        y = _heading(draw, drawing.note, left, y + 6, 14, QUIET)
    return sheet.crop((0, 0, sheet.width, max(y, _MARGIN + drawing.picture.height) + _MARGIN))


def _coloured(drawing: ConceptDrawing) -> list[tuple[str, float | None]]:
    """The tokens with their scores as shares of the largest; the whole response without scores."""
    if not drawing.tokens:
        return [(drawing.response, None)]
    largest = max(score for _, score in drawing.tokens)
    return [(text, max(score, 0.0) / largest if largest > 0 else 0.0) for text, score in drawing.tokens]


def _heading(
    draw: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int, colour: tuple[int, int, int]
) -> int:
    draw.text((x, y), printable(text), font=ImageFont.load_default(size), fill=colour)
    return y + size + 10


def _flow(
    draw: ImageDraw.ImageDraw, pieces: Sequence[tuple[str, float | None]], left: int, top: int, size: int
) -> int:
    """Draw text in lines, each piece on its colour; return the y below it."""
    font = ImageFont.load_default(size)
    x, y, lines = float(left), top, 1
    for text, share in pieces:
        for piece in re.findall("^[^ ]+| [^ ]*", printable(text)):  # a line can end before a blank
            word, width = piece, font.getlength(piece)
            if x + width > left + _COLUMN and x > left:
                x, y, lines = float(left), y + _LINE, lines + 1
                if lines > _MAX_LINES:
                    draw.text((x, y), "...", font=font, fill=QUIET)
                    return y + _LINE
                word = word.lstrip(" ")
                width = font.getlength(word)
            ground, ink = _shade(share)
            if ground is not None:
                draw.rectangle((x, y - 3, x + width, y + size + 7), fill=ground)
            draw.text((x, y), word, font=font, fill=ink)
            x += width
    return y + _LINE


def _shade(share: float | None) -> tuple[tuple[int, int, int] | None, tuple[int, int, int]]:
    """The ground and the ink of a piece of text: pale grounds have dark ink."""
    if share is None or not np.isfinite(share):
        return None, TEXT
    red, green, blue, _ = colour_scale()[round(min(share, 1.0) * 255)]
    colours = zip(BACKGROUND, (red, green, blue), strict=True)
    mixed = [round(base + (value - base) * share**0.7) for base, value in colours]
    return (mixed[0], mixed[1], mixed[2]), (_DARK if sum(mixed) > 330 else TEXT)


def _bars(draw: ImageDraw.ImageDraw, drawing: ConceptDrawing, left: int, top: int) -> int:
    """The largest scores as bars, each with its number, and with its interval as a whisker."""
    shown = sorted(drawing.concepts.items(), key=lambda one: -one[1])[:_MAX_CONCEPTS]
    ends = [drawing.intervals.get(name, (score, score))[1] for name, score in shown]
    largest = max((end for end in [*ends, *(score for _, score in shown)] if end > 0), default=0.0)
    style = BarStyle(TEXT, QUIET, _BAR, size=15, offset=4, gap=10, digits=".3g", letters=34)
    for name, score in shown:
        interval = drawing.intervals.get(name)
        room = _COLUMN - _NAME - _NUMBER
        draw_bar(draw, (left, top), (left + _NAME, room), Bar(name, score, *(interval or ())), largest, style)
        top += _BAR_LINE
    return top
