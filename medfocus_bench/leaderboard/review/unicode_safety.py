"""Reject invisible and look-alike Unicode characters in submitted text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

SPACING: Final = "\t\n"
"""The control characters that a text of several lines has."""

_BREAKS: Final = "\t\n\v\f\r\x85\u2028\u2029"

_BLANK: Final = re.compile(
    "[\u2800\u3164\uffa0\u115f\u1160\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0d\U000e0100-\U000e01ef]"
)
"""Letters, signs and marks of Unicode that fonts do not show.

The selectors U+FE0E and U+FE0F are not among them: they say how an emoji is drawn.
"""

_REORDERING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_ALIKE: Final = frozenset(
    {"LATIN", "CYRILLIC", "GREEK", "COPTIC", "ARMENIAN", "GEORGIAN", "CHEROKEE", "LISU", "CANADIAN"}
    | {"DESERET", "GOTHIC", "OSAGE", "TIFINAGH", "VAI"}
)
"""Scripts with letters that look like one of Latin, by the first word of their names in Unicode."""

MAX_TEXT: Final = 600
"""Characters of a text in the Markdown of a review."""

_PLAIN: Final = frozenset(" %,;\N{EN DASH}")
"""Besides letters and digits, the characters without a meaning in the middle of a line of Markdown."""

_WORD: Final = re.compile(r"[^\W_]+")

MAX_MARKS: Final = 2
"""Combining marks of one letter; Vietnamese has as many."""

_SHAPED: Final = re.compile(
    r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL )?(?:REVERSED |TURNED |INVERTED |SIDEWAYS )?"
    r"([A-Z])(?: WITH .*)?"
)
"""The name of a letter that is one of A to Z in another shape, as small capitals are."""

_SAME_AT_A_GLANCE: Final = str.maketrans("i1|0\u044f\u0438", "lllorn")
"""After a small letter was made of each: I, l, 1 and | are one stroke, O and 0 one ring; the Cyrillic letters
ya and i are R and N reversed."""


def unseen(text: str, allowed: str = "") -> str | None:
    """The first character of a text that no reader sees, but for those that are `allowed`; None for none.

    Of the categories control, format, private use and unassigned, a separator of lines or paragraphs, a
    surrogate, or a letter or sign that is drawn as nothing. The joiner of emoji (U+200D) is one of them.
    """
    return next((c for c in text if c not in allowed and _is_unseen(c)), None)


def unseen_in_token(text: str) -> str | None:
    """As `unseen`, but of what a model wrote, which may have any break, and joiners that reorder nothing."""
    kept = (c for c in text if unicodedata.category(c) != "Cf" or _REORDERING.match(c))
    return unseen("".join(kept), _BREAKS)


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from texts_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_in(part)


def mixed_word(text: str) -> str | None:
    """The first word of a text with letters of two scripts whose letters look alike; None for none.

    A Greek letter that is a word of its own (the beta of beta-LRP) mixes nothing.
    """
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.category(c).startswith("M"))
    for word in _WORD.findall("".join(letters)):
        scripts = {unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha()}
        if len(scripts & _ALIKE) > 1:
            return str(word)
    return None


def stacked_marks(text: str) -> str | None:
    """The first letter of a text with more than `MAX_MARKS` combining marks, with them; None for none."""
    letter, count = "", 0
    for character in unicodedata.normalize("NFD", text):
        if not unicodedata.category(character).startswith("M"):
            letter, count = character, 0
            continue
        letter, count = letter + character, count + 1
        if count > MAX_MARKS:
            return letter
    return None


def skeleton(text: str) -> str:
    """The shape of a text at a glance: texts that look alike have the same skeleton.

    That of Unicode's TR39 (whose data come with `confusable_homoglyphs`), without marks and case, and with
    small capitals, reversed and turned letters as what they are shapes of.
    """
    for _ in range(3):  # a small letter that is made of a large one may look like another large one
        decomposed = unicodedata.normalize("NFKD", text)
        plain = "".join(c for c in decomposed if not unicodedata.category(c).startswith("M"))
        text = "".join(map(_prototype, plain)).casefold()
    return text.translate(_SAME_AT_A_GLANCE)


@cache
def _prototype(character: str) -> str:
    """The character that stands for a class of look-alikes in TR39."""
    from confusable_homoglyphs.confusables import confusables_data

    if "a" <= character <= "z":
        return "rn" if character == "m" else character
    found, new = {character}, [character]
    while new:
        alike = {entry["c"] for text in new for entry in confusables_data.get(text, ())}
        new = sorted(alike - found)
        found |= alike
    plain = sorted(text for text in found if text.isascii() and text.isprintable())
    if plain:
        return max(plain, key=lambda text: (text.isalnum(), text.islower(), len(text)))
    shaped = _SHAPED.fullmatch(unicodedata.name(character, ""))
    return shaped[1].lower() if shaped else min(found)


def _is_unseen(character: str) -> bool:
    if character.isprintable():  # false of all that is below, and of all spaces but the plain one
        return _BLANK.match(character) is not None
    return unicodedata.category(character) != "Zs"


def neutral(text: str) -> str:
    """`text` on one line as it reads, with every sign that could be markup, a link or a mention disarmed.

    Signs become character references, which Markdown shows and never obeys; after an at sign stands a space
    of no width, as GitHub finds mentions in rendered text. Invisible characters are escaped.
    """
    line = " ".join(text.split())
    if len(line) > MAX_TEXT:
        line = line[: MAX_TEXT - 3] + "..."
    return "".join(_neutral(c) for c in line)


def _neutral(character: str) -> str:
    if character == "@":
        return "&#64;&#8203;"
    if character.isalnum() or character in _PLAIN:
        return character
    if not character.isprintable():
        return neutral(ascii(character)[1:-1])
    return f"&#{ord(character)};"
