"""Boxes and phrases in the text that a model wrote.

Text is only ever matched, never evaluated, in compatibility form. Whatever stands around it (a fence, JSON
that broke off, prose), a box is one bracket with four numbers and perhaps a score, four numbers by name or in
a tag, two points in brackets of their own, a polygon, or four location tokens; so one pattern finds them all,
in time that grows with the length of the text alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from medfocus_bench.geometry import FloatArray, as_boxes
from medfocus_bench.lvlm.families import BoxConvention
from medfocus_bench.text import plain, tidy

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
_NAME = r"(?:[xy](?:_?+(?:[0-2]|min|max))?+|left|right|top|bottom|w(?:idth)?+|h(?:eight)?+)"
_AXIS = rf"[\"']?+{_NAME}[\"']?+\s*+[:=]\s*+"
_BARE = rf"[\"']?+{_NUMBER}(?:\s?+(?:px|%))?[\"']?+"
_COORDINATE = rf"(?:{_AXIS})?{_BARE}"
_COMMA = r"\s*+,\s*+"
_POINT = rf"[\[({{]\s*+{_COORDINATE}{_COMMA}{_COORDINATE}\s*+[\])}}]"
_TO = r"(?:[\s,;:=\-\u2013\u2192]++|(?:to|and|the|at|bottom|lower|right|corner)\b){0,12}"
_BOX = re.compile(
    rf"(?P<box>[\[({{]\s*+{_COORDINATE}(?:{_COMMA}{_COORDINATE}){{3}}(?:{_COMMA}{_BARE})?\s*+\\?+[\])}}])"
    rf"|(?P<points>{_POINT}(?:{_TO}{_POINT})+)"
    r"|(?P<tokens>(?:<loc\d{4}>){4})"
    rf"|<b?box>(?P<tagged>\s*+{_BARE}(?:[\s,;]++{_BARE}){{3}}\s*+)</b?box>"
    rf"|(?<![A-Za-z0-9_])(?P<named>{_AXIS}{_BARE}(?:\s*+(?:[,;]|and\b)?+\s*+{_AXIS}{_BARE}){{3}})"
    rf"|\b(?:polygon|segmentation|points)[\"']?+\s*+[:=]\s*+"
    rf"(?P<polygon>\[{{1,2}}+\s*+{_NUMBER}(?:{_COMMA}{_NUMBER}){{5,}}+\s*+\])"
)
_PART = re.compile(
    rf"(?:(?P<axis>{_NAME})[\"']?+\s*+[:=]\s*+[\"']?+)?(?P<number>{_NUMBER})(?P<percent>\s?+%)?"
)
_ALONG = {"l": "x", "r": "x", "t": "y", "b": "y"}
"""The axis of a side, by its first letter; any other name begins with that of its axis."""
_CORNER = re.compile(_POINT)
_TOKEN = re.compile(r"<loc(\d{4})>")

_Values = tuple[float, float, float, float]


def parse_boxes(text: str, convention: BoxConvention, width: int, height: int) -> FloatArray:
    """The boxes in `text`, as fractions [x1, y1, x2, y2] of the sides of the picture: (n, 4).

    `convention` is the unit of a bare number and the first axis; `width` and `height` are those of the
    picture that the model was given, in pixels. Coordinates with their axis named (`x1: 12`) may come in any
    order, and may be sides (`left`, `top`, ...) or a corner with its width and height; a fifth number within
    [0, 1] is a score. A polygon, three points or more, counts as the box around it. Coordinates are fractions
    already where all of the text lie in [0, 1], or end in `%`; location tokens (`<loc0123>`, y first) count
    1024ths. Corners that are swapped are put right; a box without area, or with a coordinate that is not a
    finite number below a million, is left out, and so is a repeated one. The boxes may reach out of the
    picture. At most `MAX_BOXES`, from the first `MAX_CHARACTERS`.
    """
    bare: list[_Values] = []
    scaled: list[_Values] = []
    for match in _BOX.finditer(_readable(text)):
        if match["tokens"]:
            y1, x1, y2, x2 = (int(number) / _LOCATIONS for number in _TOKEN.findall(match["tokens"]))
            scaled.append((x1, y1, x2, y2))
            continue
        if match["points"] and _are_scattered(match["points"]):
            continue
        written = next(part for part in match.group("box", "points", "tagged", "named", "polygon") if part)
        found = _values(written, convention == "thousandths_yx")
        if found is not None:
            values, percent = found
            (scaled if percent else bare).append(values)
    sides = [width, height] * 2 if convention == "pixels" else [_THOUSANDTHS] * 4
    own = _usable(bare)
    if not ((own >= 0) & (own <= 1)).all():
        own = own / np.array(sides, dtype=np.float64)
    return _distinct(np.concatenate([own, _usable(scaled)]))


def _readable(text: str) -> str:
    return plain(text[:MAX_CHARACTERS])[:MAX_CHARACTERS]


def _are_scattered(points: str) -> bool:
    """Whether words stand between three points or more: corners of boxes then, nobody knows which."""
    between, count = _CORNER.subn("", points)
    return count > 2 and between.strip(" \t\n,;") != ""


def _values(written: str, y_first: bool) -> tuple[_Values, bool] | None:
    """The box of all points in the order x, y, x, y, and whether it is in per cent; None for no box."""
    parts = list(_PART.finditer(written))
    if len(parts) == 5 and not parts[4]["axis"] and 0 <= float(parts[4]["number"]) <= 1:
        del parts[4]  # a score
    names = [(part["axis"] or "")[:1] for part in parts]
    axes = [_ALONG.get(name, name) for name in names]
    if not any(axes):
        axes = ["y", "x"] * (len(parts) // 2) if y_first else ["x", "y"] * (len(parts) // 2)
    percents = {part["percent"] is not None for part in parts}
    if len(axes) != len(parts) or len(percents) != 1:
        return None
    along: dict[str, list[float]] = {axis: [] for axis in "xywh"}
    for axis, part in zip(axes, parts, strict=True):
        if axis:
            along[axis].append(float(part["number"]))
    xs, ys, widths, heights = along.values()
    if len(widths) == len(heights) == len(xs) == len(ys) == 1:
        xs, ys = [xs[0], xs[0] + widths[0]], [ys[0], ys[0] + heights[0]]
        widths, heights = [], []
    if widths or heights or len(xs) != len(ys) or len(xs) < 2:
        return None
    percent = percents == {True}
    unit = 100 if percent else 1
    return (min(xs) / unit, min(ys) / unit, max(xs) / unit, max(ys) / unit), percent


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
    verdicts and text longer than a name are left out. At most `MAX_PHRASES`, from the first
    `MAX_CHARACTERS`.
    """
    shown = _FENCE.sub("\n", _readable(text))
    for listed in (_quoted(shown), _items(shown), _separated(shown)):
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
        phrase = tidy(tidy(candidate).strip(_EDGES))  # JSON may have spelt a space or a mark by its number
        is_name = 2 <= len(phrase) <= _MAX_PHRASE and len(phrase.split()) <= _MAX_WORDS
        is_text = phrase.isprintable() and any(letter.isalpha() for letter in phrase)
        if is_name and is_text and phrase.lower() not in _NO_REGIONS and not _SENTENCES.search(phrase):
            yield phrase
