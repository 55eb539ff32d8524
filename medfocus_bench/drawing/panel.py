"""A panel of explanations side by side, below the question and the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.drawing.colours import BACKGROUND, QUIET, TEXT, colour_scale
from medfocus_bench.drawing.lettering import printable, shortened, wrapped

_DIMMED: Final = 0.2
"""Brightness of a picture with a message across it."""

_CELL: Final = 300
TILE_SIZE: Final = (_CELL, 375)
"""Width and height that the picture of a tile has at most."""
_GAP: Final = 18
_MARGIN: Final = 28
_MAX_COLUMNS: Final = 5
_MAX_RESPONSE_LINES: Final = 8
_LEAST_MESSAGE_LINES: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture of a panel, with its title, a line below it and perhaps a message across it."""

    title: str
    caption: str
    picture: Image.Image
    message: str = ""


def panel(tiles: Sequence[Tile], lvlm: str, question: str, response: str) -> Image.Image:
    """All tiles in rows below the question and the response."""
    columns = _columns(len(tiles))
    width = max(2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP, 2 * _MARGIN + 2 * _CELL + _GAP)
    header = _header(lvlm, question, response, width - 2 * _MARGIN)
    tallest = max(tile.picture.height for tile in tiles)
    step = 30 + tallest + 26 + _GAP
    rows = ceil(len(tiles) / columns)
    top = _MARGIN + sum(line.height for line in header) + 16
    sheet = Image.new("RGB", (width, top + rows * step + 28 + _MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for line in header:
        draw.text((_MARGIN, y), line.text, font=ImageFont.load_default(line.size), fill=line.colour)
        y += line.height
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        _draw_tile(sheet, tile, _MARGIN + column * (_CELL + _GAP), top + row * step, tallest)
    _draw_legend(sheet, top + rows * step)
    return sheet


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: int
    colour: tuple[int, int, int]
    height: int


def _columns(tiles: int) -> int:
    """The number of columns that fills the rows best; ties go to the wider sheet."""
    most = min(tiles, _MAX_COLUMNS)
    return min(range(min(most, 3), most + 1), key=lambda n: (ceil(tiles / n) * n - tiles, -n))


def _header(lvlm: str, question: str, response: str, width: int) -> list[_Line]:
    lines = [_Line(text, 22, TEXT, 31) for text in wrapped(question, 22, width, 4)]
    said = wrapped(f"{lvlm} answers: {response}", 18, width, _MAX_RESPONSE_LINES)
    return [*lines, _Line("", 18, QUIET, 6), *(_Line(text, 18, QUIET, 26) for text in said)]


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int, tallest: int) -> None:
    draw = ImageDraw.Draw(sheet)
    heading, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((left, top), shortened(printable(tile.title), heading, _CELL), font=heading, fill=TEXT)
    top += 30
    picture = tile.picture if not tile.message else tile.picture.point(lambda value: value * _DIMMED)
    sheet.paste(picture, (left, top))
    if tile.message:
        lines = wrapped(tile.message, 14, _CELL - 16, max(_LEAST_MESSAGE_LINES, tallest // 19))
        y = top + (tallest - 19 * len(lines)) / 2
        for line in lines:
            draw.text((left + 8, y), line, font=small, fill=TEXT)
            y += 19
    caption = shortened(printable(tile.caption), small, _CELL)
    draw.text((left, top + tallest + 6), caption, font=small, fill=QUIET)


def _draw_legend(sheet: Image.Image, top: int) -> None:
    """The colour scale as it lies over a dark picture, with what it means."""
    draw = ImageDraw.Draw(sheet)
    scale = colour_scale()
    grey = 70.0
    mixed = grey * (1 - scale[:, 3:]) + scale[:, :3] * scale[:, 3:]
    bar = Image.fromarray(np.round(mixed).astype(np.uint8)[None]).resize((220, 14))
    font = ImageFont.load_default(14)
    draw.text((_MARGIN, top + 2), "low", font=font, fill=QUIET)
    sheet.paste(bar, (_MARGIN + 30, top + 5))
    note = "high; every map on its own scale, boxes outlined"
    draw.text((_MARGIN + 258, top + 2), note, font=font, fill=QUIET)
