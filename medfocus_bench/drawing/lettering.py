"""Text that fits the width that it is drawn in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from PIL import ImageFont

_MAX_TEXT: Final = 5_000
_ELLIPSIS: Final = " ..."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def wrapped(text: str, size: int, width: float, most: int) -> list[str]:
    """Wrap text to a width; after `most` lines it ends in an ellipsis."""
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


def _pieces(word: str, font: Font, width: float) -> Iterator[str]:
    """A word, cut where it is wider than a line."""
    while word:
        count = _fitting(word, font, width)
        yield word[:count]
        word = word[count:]


def shortened(text: str, font: Font, width: float) -> str:
    """Text on one line; what is longer ends in an ellipsis."""
    return text if _fitting(text, font, width) >= len(text) else _cut(text, font, width)


def _cut(text: str, font: Font, width: float) -> str:
    """The beginning of a text with an ellipsis behind it."""
    return text[: _fitting(text, font, width - font.getlength(_ELLIPSIS))].rstrip() + _ELLIPSIS


def _fitting(text: str, font: Font, width: float) -> int:
    """How many of the first characters of a text fit the width, one at least."""
    counts = range(1, min(len(text), int(width)) + 1)
    return max(1, bisect_right(counts, width, key=lambda count: font.getlength(text[:count])))


def printable(text: str) -> str:
    """A text, cut where it is very long, with blanks for what cannot be drawn."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
