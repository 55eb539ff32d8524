"""Drawings of explanations: one over its picture, and all of them side by side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.evaluation.regions import explains
from medfocus_bench.geometry import Frame, UInt8Image

_ANCHORS: Final = (
    (0.00, (10, 8, 40)),
    (0.25, (84, 20, 125)),
    (0.50, (186, 42, 92)),
    (0.75, (245, 128, 32)),
    (1.00, (255, 244, 150)),
)
"""Colours of the scale: their lightness grows evenly from black to a pale yellow."""

_OPACITY: Final = 0.8
_TOP_QUANTILE: Final = 0.998
"""The value that gets the brightest colour: a few outlying pixels shall not hide the rest of a map."""

_BOX_COLOUR: Final = (255, 214, 64)
BACKGROUND: Final = (18, 20, 26)
TEXT: Final = (236, 238, 242)
QUIET: Final = (150, 156, 168)
"""Colours of every sheet that shows a picture with its explanation."""

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
_MAX_TEXT: Final = 5_000
_ELLIPSIS: Final = " ..."

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture of a panel, with its title, a line below it and perhaps a message across it."""

    title: str
    caption: str
    picture: Image.Image
    message: str = ""


def colour_scale() -> npt.NDArray[np.float64]:
    """The scale in 256 steps, (256, 4): red, green, blue in 0 to 255, and opacity, 0 at the low end."""
    steps = np.linspace(0, 1, 256)
    places = [place for place, _ in _ANCHORS]
    channels = [np.interp(steps, places, [colour[n] for _, colour in _ANCHORS]) for n in range(3)]
    return np.stack([*channels, _OPACITY * steps**0.7], axis=1)


def fit(width: int, height: int, within: tuple[int, int]) -> tuple[int, int]:
    """The largest size of a picture within a width and a height, its aspect kept."""
    scale = min(within[0] / width, within[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def overlay(
    image: UInt8Image,
    attribution: Attribution,
    size: tuple[int, int],
    model_size: int,
    at_hand: Image.Image | None = None,
) -> Image.Image | None:
    """An explanation over its picture (height, width) at a size in pixels; None where it explains nothing.

    The part of a map that is padding is cut away; the rest is scaled from its lowest to its highest value.
    `at_hand`: the `plain` picture of that size, where it was made already.
    """
    height, width = image.shape[:2]
    picture = plain(image, size) if at_hand is None else at_hand.copy()
    frame = Frame(width, height, model_size)
    framed = attribution.in_model_frame(frame)
    if framed.saliency is not None:
        values = _content(framed.saliency, frame)
        return None if values is None else _coloured(picture, values)
    if attribution.boxes is None or len(attribution.boxes) == 0:
        return None
    scale = np.array([size[0] / width, size[1] / height] * 2)
    _outline(picture, attribution.boxes * scale)
    return picture


def plain(image: UInt8Image, size: tuple[int, int]) -> Image.Image:
    """A picture at a size in pixels, RGB."""
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).convert("RGB")


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
    """As many as fill the rows best; wider sheets win ties."""
    most = min(tiles, _MAX_COLUMNS)
    return min(range(min(most, 3), most + 1), key=lambda n: (ceil(tiles / n) * n - tiles, -n))


def _content(saliency: npt.NDArray[np.generic], frame: Frame) -> npt.NDArray[np.float64] | None:
    """The values over the image in [0, 1]; None for a map that explains nothing."""
    if not explains(saliency):
        return None
    values = frame.content_of(saliency).astype(np.float64)
    if not explains(values):
        return None
    low, high = values.min(), np.quantile(values, _TOP_QUANTILE)
    high = high if high > low else values.max()
    return np.asarray(np.clip((values - low) / (high - low), 0, 1))


def _coloured(picture: Image.Image, values: npt.NDArray[np.float64]) -> Image.Image:
    enlarged = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    levels = np.clip(np.round(np.asarray(enlarged) * 255), 0, 255).astype(np.uint8)
    colours, opacity = np.split(colour_scale().astype(np.float32), [3], axis=1)
    mixed = np.asarray(picture, dtype=np.float32)
    mixed *= (1 - opacity)[levels]
    mixed += (colours * opacity + np.float32(0.5))[levels]  # the half rounds
    return Image.fromarray(mixed.astype(np.uint8))


def _outline(picture: Image.Image, boxes: npt.NDArray[np.float64]) -> None:
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 130))
    for x1, y1, x2, y2 in np.round(boxes).astype(int).tolist():
        # Edges are half-open, and drawn ends are not; a thin box still has an outline.
        inner = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(inner, outline=(0, 0, 0), width=stroke + 2)
        draw.rectangle(inner, outline=_BOX_COLOUR, width=stroke)


def _header(lvlm: str, question: str, response: str, width: int) -> list[_Line]:
    lines = [_Line(text, 22, TEXT, 31) for text in _wrapped(question, 22, width, 4)]
    said = _wrapped(f"{lvlm} answers: {response}", 18, width, _MAX_RESPONSE_LINES)
    return [*lines, _Line("", 18, QUIET, 6), *(_Line(text, 18, QUIET, 26) for text in said)]


def _wrapped(text: str, size: int, width: float, most: int) -> list[str]:
    """Text in at most so many lines that fit the width; what is longer ends in an ellipsis."""
    font = ImageFont.load_default(size)
    lines = [""]
    for word in printable(text).split():
        for piece in _pieces(word, font, width):
            longer = f"{lines[-1]} {piece}".strip()
            if font.getlength(longer) <= width:
                lines[-1] = longer
            elif len(lines) < most:
                lines.append(piece)
            else:
                lines[-1] = _cut(lines[-1], font, width)
                return lines
    return lines


def _pieces(word: str, font: _Font, width: float) -> Iterator[str]:
    """A word, cut where it is wider than a line."""
    while word:
        count = _fitting(word, font, width)
        yield word[:count]
        word = word[count:]


def _shortened(text: str, font: _Font, width: float) -> str:
    """Text on one line; what is longer ends in an ellipsis."""
    return text if _fitting(text, font, width) >= len(text) else _cut(text, font, width)


def _cut(text: str, font: _Font, width: float) -> str:
    """The beginning of a text with an ellipsis behind it."""
    return text[: _fitting(text, font, width - font.getlength(_ELLIPSIS))].rstrip() + _ELLIPSIS


def _fitting(text: str, font: _Font, width: float) -> int:
    """How many of the first characters of a text fit the width, one at least."""
    counts = range(1, min(len(text), int(width)) + 1)
    return max(1, bisect_right(counts, width, key=lambda count: font.getlength(text[:count])))


def printable(text: str) -> str:
    """A text, cut where it is very long, with blanks for what cannot be drawn."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int, tallest: int) -> None:
    draw = ImageDraw.Draw(sheet)
    heading, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((left, top), _shortened(printable(tile.title), heading, _CELL), font=heading, fill=TEXT)
    top += 30
    picture = tile.picture if not tile.message else tile.picture.point(lambda value: value * _DIMMED)
    sheet.paste(picture, (left, top))
    if tile.message:
        lines = _wrapped(tile.message, 14, _CELL - 16, max(_LEAST_MESSAGE_LINES, tallest // 19))
        y = top + (tallest - 19 * len(lines)) / 2
        for line in lines:
            draw.text((left + 8, y), line, font=small, fill=TEXT)
            y += 19
    caption = _shortened(printable(tile.caption), small, _CELL)
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
