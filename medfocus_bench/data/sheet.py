"""A contact sheet of questions: each picture as it is, with the experts' boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medfocus_bench.data.questions import Question
from medfocus_bench.drawing.lettering import Font
from medfocus_bench.drawing.sheets import contact_sheet
from medfocus_bench.geometry import Frame

TILE: Final = 320
"""Side of a tile in pixels; a caption of two lines stands below it."""

_CAPTION = 40
_GAP = 6
_INK = (235, 235, 235)
_BOX = (64, 200, 255)


def question_sheet(questions: Sequence[Question], columns: int = 4) -> Image.Image:
    """The pictures in rows of `columns`, padded to squares, never flipped. Raises ValueError for none."""
    if not questions:
        raise ValueError("a contact sheet needs a question")
    tiles = [_tile(question) for question in questions]
    columns = min(columns, len(tiles))
    return contact_sheet(tiles, columns, gap=_GAP, margin=_GAP, background=(20, 20, 24))


def _tile(question: Question) -> Image.Image:
    height, width = question.image.shape[:2]
    frame = Frame(width, height, TILE)
    tile = Image.new("RGB", (TILE, TILE + _CAPTION))
    picture = Image.fromarray(question.image).resize(frame.content_size, Image.Resampling.BICUBIC)
    tile.paste(picture.convert("RGB"), frame.content[:2])
    pen = ImageDraw.Draw(tile)
    for x1, y1, x2, y2 in np.round(frame.to_model(question.boxes)).astype(int).tolist():
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=_BOX, width=2)
    font = ImageFont.load_default(14)
    for line, text in enumerate((f"{question.source} {question.index}", question.finding)):
        pen.text((4, TILE + 3 + 18 * line), _fitting(text, font), fill=_INK, font=font)
    return tile


def _fitting(text: str, font: Font) -> str:
    """`text`, cut to the width of a tile; letters that the font lacks are drawn as boxes."""
    shown = text
    while font.getlength(shown) > TILE - 8 and len(shown) > 4:
        shown = shown.removesuffix("...")[:-1] + "..."
    return shown
