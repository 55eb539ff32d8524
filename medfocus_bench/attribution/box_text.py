"""Boxes and phrases in the text that a model wrote.

Text is only ever matched, never evaluated. Whatever stands around it (a fence, JSON that broke off, prose), a
box is one bracket with exactly four numbers, two points in brackets of their own, or four location tokens;
so one pattern finds them all, in time that grows with the length of the text alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from medfocus_bench.geometry import FloatArray, as_boxes
from medfocus_bench.lvlm.families import BoxConvention

MAX_CHARACTERS: Final = 100_000
"""Text beyond this is not read."""
MAX_BOXES: Final = 100
MAX_PHRASES: Final = 20

_HUGE: Final = 1e6
_LOCATIONS: Final = 1024
_THOUSANDTHS: Final = 1000.0

# Repetitions are possessive, and what may follow an optional part cannot begin like it: a match that fails
# is given up where it stands.
_NUMBER = r"[-+]?+(?:\d{1,12}+(?:\.\d{0,20}+)?|\.\d{1,20}+)(?:[eE][-+]?+\d{1,3}+)?"
_AXIS = r"[\"']?+[xy](?:_?+(?:[0-2]|min|max))?[\"']?+\s*+[:=]\s*+"
_COORDINATE = rf"(?:{_AXIS})?[\"']?+{_NUMBER}(?:\s?+(?:px|%))?[\"']?+"
_COMMA = r"\s*+,\s*+"
_POINT = rf"[\[(]\s*+{_COORDINATE}{_COMMA}{_COORDINATE}\s*+[\])]"
_TO = r"(?:[\s,;:=\-\u2013\u2192]++|(?:to|and|the|at|bottom|lower|right|corner)\b){0,12}"
_BOX = re.compile(
    rf"(?P<box>[\[({{]\s*+{_COORDINATE}(?:{_COMMA}{_COORDINATE}){{3}}\s*+\\?+[\])}}])"
    rf"|(?P<points>{_POINT}(?:{_TO}{_POINT})+)"
    r"|(?P<tokens>(?:<loc\d{4}>){4})"
)
_PART = re.compile(
    rf"(?:(?P<axis>[xy])\w{{0,4}}[\"']?+\s*+[:=]\s*+[\"']?+)?(?P<number>{_NUMBER})(?P<percent>\s?+%)?"
)
_TOKEN = re.compile(r"<loc(\d{4})>")

_Values = tuple[float, float, float, float]


def parse_boxes(text: str, convention: BoxConvention, width: int, height: int) -> FloatArray:
    """The boxes in `text`, as fractions [x1, y1, x2, y2] of the sides of the picture: (n, 4).

    `convention` says what a bare number means and which axis is first; `width` and `height` are those of the
    picture that the model was given, in pixels. Coordinates with their axis named (`x1: 12`) may come in any
    order. They are fractions already where all coordinates of the text lie in [0, 1], or end in `%`; location
    tokens (`<loc0123>`, y first) count 1024ths. Corners that are swapped are put right; a box without area,
    or with a coordinate that is no finite number below a million, is left out, and so is a repeated one. The
    boxes may reach out of the picture. At most `MAX_BOXES`, from the first `MAX_CHARACTERS`.
    """
    bare: list[_Values] = []
    scaled: list[_Values] = []
    for match in _BOX.finditer(text[:MAX_CHARACTERS]):
        if match["tokens"]:
            y1, x1, y2, x2 = (int(number) / _LOCATIONS for number in _TOKEN.findall(match["tokens"]))
            scaled.append((x1, y1, x2, y2))
            continue
        found = _values(match["box"] or match["points"], convention == "thousandths_yx")
        if found is not None:
            values, percent = found
            (scaled if percent else bare).append(values)
    sides = [width, height] * 2 if convention == "pixels" else [_THOUSANDTHS] * 4
    own = _usable(bare)
    if not ((own >= 0) & (own <= 1)).all():
        own = own / np.array(sides, dtype=np.float64)
    return _distinct(np.concatenate([own, _usable(scaled)]))


def _values(written: str, y_first: bool) -> tuple[_Values, bool] | None:
    """Four numbers in the order x, y, x, y, and whether they are per cent; None where they are no box."""
    parts = list(_PART.finditer(written))
    if len(parts) != 4:
        return None
    axes = "".join(part["axis"] or "" for part in parts) or ("yxyx" if y_first else "xyxy")
    numbers = [float(part["number"]) for part in parts]
    along_x, along_y = ([n for n, own in zip(numbers, axes, strict=False) if own == axis] for axis in "xy")
    percents = {part["percent"] is not None for part in parts}
    if len(along_x) != 2 or len(along_y) != 2 or len(percents) != 1:
        return None
    (x1, x2), (y1, y2), percent = along_x, along_y, percents == {True}
    unit = 100 if percent else 1
    return (x1 / unit, y1 / unit, x2 / unit, y2 / unit), percent


def _usable(written: list[_Values]) -> FloatArray:
    """The boxes of plausible numbers, corners in order, with an area: (n, 4)."""
    boxes = np.array(written, dtype=np.float64).reshape(-1, 2, 2)
    boxes = boxes[(np.abs(boxes) < _HUGE).all(axis=(1, 2))]
    ordered = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
    return ordered[(ordered[:, 2:] > ordered[:, :2]).all(axis=1)]


def _distinct(boxes: FloatArray) -> FloatArray:
    return as_boxes(list(dict.fromkeys(map(tuple, boxes.tolist())))[:MAX_BOXES])


_QUOTED = re.compile(r"\"(?P<text>(?:[^\"\\\n]|\\.){1,200})\"(?P<key>\s*+:)?")
_SINGLE_QUOTED = re.compile(r"(?<!\w)'(?P<text>[^'\n]{1,200}+(?:'\w[^'\n]{0,200}+)?)'(?!\w)(?P<key>\s*+:)?")
_OPENING = re.compile(r"[\[{]\s*+([\"'])")
_FENCE = re.compile(r"```\w{0,20}+")
_ITEM = re.compile(r"^[ \t]*+(?:[-*\u2022\u2013]|\(?\d{1,3}+[.):])[ \t]++(?P<text>\S[^\n]*+)$", re.MULTILINE)
_BETWEEN = re.compile(r"[,;\n]")
_EXPLAINED = re.compile(r":\s|\s[-\u2013\u2014]\s|\u2014")
_LAST_AND = re.compile(r"^(?:and|or)\s++", re.IGNORECASE)
_SENTENCES = re.compile(r"[.!?](?:\s|[A-Z])")
_EDGES = " \t\r\n.,;:!?\"'`*_[](){}<>#"
_NO_REGIONS = frozenset({"yes", "no", "none", "n/a", "null", "unknown", "final answer", "true", "false"})
_MAX_PHRASE = 80
_MAX_WORDS = 10


def parse_phrases(text: str) -> tuple[str, ...]:
    """The words or phrases that `text` lists, each once, in their order.

    A list of quoted strings (JSON, broken off or not; the values of objects, not their keys), else the items
    of a bulleted or numbered list without the explanation that follows a colon or a dash, else what stands
    between commas, semicolons and line breaks, without an introduction that ends in a colon. Sentences, bare
    verdicts and whatever is longer than a name are no phrases. At most `MAX_PHRASES`, from the first
    `MAX_CHARACTERS`.
    """
    plain = _FENCE.sub("\n", text[:MAX_CHARACTERS])
    for listed in (_quoted(plain), _items(plain), _separated(plain)):
        phrases = tuple(dict.fromkeys(_phrases(listed)))
        if phrases:
            return phrases[:MAX_PHRASES]
    return ()


def _quoted(text: str) -> Iterator[str]:
    start = _OPENING.search(text)
    if start is None:
        return
    if start[1] == "'":
        yield from (
            match["text"] for match in _SINGLE_QUOTED.finditer(text, start.start()) if not match["key"]
        )
        return
    for match in _QUOTED.finditer(text, start.start()):
        if not match["key"]:
            try:
                yield json.loads(f'"{match["text"]}"')
            except ValueError:
                continue


def _items(text: str) -> Iterator[str]:
    for match in _ITEM.finditer(text):
        yield _EXPLAINED.split(match["text"].replace("**", ""), maxsplit=1)[0]


def _separated(text: str) -> Iterator[str]:
    for part in _BETWEEN.split(text):
        yield _LAST_AND.sub("", part.rpartition(":")[2].strip())


def _phrases(listed: Iterable[str]) -> Iterator[str]:
    for candidate in listed:
        phrase = " ".join(candidate.strip(_EDGES).split())
        is_name = 2 <= len(phrase) <= _MAX_PHRASE and len(phrase.split()) <= _MAX_WORDS
        is_text = phrase.isprintable() and any(letter.isalpha() for letter in phrase)
        if is_name and is_text and phrase.lower() not in _NO_REGIONS and not _SENTENCES.search(phrase):
            yield phrase
