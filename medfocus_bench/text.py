"""Text from models and tables, made comparable: one way to write what looks the same.

Only for reading. The text of a model is stored as it is, since its tokens are scored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Final

_MAX_MARKS: Final = 30
"""Combining marks that one letter may have, as in Unicode's stream-safe format: sorting them takes the square
of their number."""

_BREAKS: Final = "\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_CONTROLS: Final = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
_WRITTEN_AS: Final = str.maketrans(
    dict.fromkeys([*_CONTROLS, "\u1680"], " ")
    | dict.fromkeys(_BREAKS, "\n")
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2039\u203a\u00b4\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
    | {"\u3002": ".", "\uff61": ".", "\u3001": ",", "\uff64": ",", "\u060c": ",", "\u061f": "?"}
)
_PIECE: Final = re.compile(r"\r\n|[\x00-\x7f](?![^\x00-\x7f])|[\x00-\x7f]?[^\x00-\x7f]+")
"""Pieces that are written plainly one by one: nothing composes across an ASCII character's left side."""


def plain(text: str) -> str:
    r"""`text` in compatibility form (NFKC), without format characters, with plain spaces, breaks and quotes.

    Full-width letters and stops become ASCII, the byte-order mark and zero-width characters go, every kind of
    line break is one `\n`, other control characters are spaces. ASCII without those stays as it is.
    """
    written = text.replace("\r\n", "\n").translate(_WRITTEN_AS)
    if written.isascii():
        return written
    visible = "".join([c for c in written if c.isascii() or unicodedata.category(c) != "Cf"])
    return unicodedata.normalize("NFKC", _few_marks(visible)).translate(_WRITTEN_AS)


def plain_places(text: str) -> tuple[str, Sequence[int]]:
    """`plain(text)`, and for each of its characters the place in `text` that it comes from."""
    if text.isascii() and "\r\n" not in text:
        return plain(text), range(len(text))
    parts: list[str] = []
    places: list[int] = []
    for piece in _PIECE.finditer(text):
        part = plain(piece[0])
        parts.append(part)
        places += [min(piece.start() + n, piece.end() - 1) for n in range(len(part))]
    return "".join(parts), places


def tidy(text: str) -> str:
    """`plain(text)` on one line: single spaces, none at the ends."""
    return " ".join(plain(text).split())


def same(text: str) -> str:
    """One form for names that differ only in how they are written: tidy, case left out."""
    return tidy(text).casefold()


def _few_marks(text: str) -> str:
    """Without the combining marks of a letter beyond `_MAX_MARKS`."""
    runs = groupby(text, key=lambda c: unicodedata.combining(c) > 0)
    return "".join(["".join(run)[:_MAX_MARKS] if marks else "".join(run) for marks, run in runs])
