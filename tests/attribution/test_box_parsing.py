"""Boxes and phrases in the text of models: every form seen, broken text, and time."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medfocus_bench.attribution.box_parsing import MAX_BOXES, MAX_PHRASES, parse_boxes, parse_phrases

ONE = [[10, 20, 30, 40]]
TWO = [[10, 20, 30, 40], [50, 60, 70, 80]]

WRITTEN = {
    "JSON": ("[[10, 20, 30, 40], [50, 60, 70, 80]]", TWO),
    "one list": ("[10, 20, 30, 40]", ONE),
    "fenced JSON": ("Here you are:\n```json\n[[10, 20, 30, 40], [50, 60, 70, 80]]\n```\nThat is all.", TWO),
    "dicts": ('[{"bbox_2d": [10, 20, 30, 40], "label": "mass"}, {"bbox_2d": [50, 60, 70, 80]}]', TWO),
    "fenced dicts": ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "lung (left)"}\n]\n```', ONE),
    "broken off": ('[{"bbox_2d": [10, 20, 30, 40], "label": "mass"}, {"bbox_2d": [50, 60, 7', ONE),
    "prose": ("The mass lies at [10, 20, 30, 40], the effusion at [50, 60, 70, 80].", TWO),
    "round brackets": ("(10, 20, 30, 40)", ONE),
    "points in prose": ("From (10, 20) to (30, 40). Also (50, 60), (70, 80).", TWO),
    "corners": ("top-left (10, 20), bottom-right corner: (30, 40)", ONE),
    "points in JSON": ("[[[10, 20], [30, 40]], [[50, 60], [70, 80]]]", TWO),
    "tags": ("<box>(10,20),(30,40)</box><box>(50,60),(70,80)</box>", TWO),
    "several lists": ("[[10, 20, 30, 40]]\n\n[[50, 60, 70, 80]]", TWO),
    "named": ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40}', ONE),
    "named, otherwise sorted": ("[ymin=20, xmin=10, ymax=40, xmax=30]", ONE),
    "quoted numbers": ('["10", "20", "30", "40"]', ONE),
    "units": ("[10px, 20px, 30 px, 40 px]", ONE),
    "per cent": ("[10%, 20%, 30%, 40%]", ONE),
    "fractions": ("[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]", TWO),
    "escaped brackets": (r"\[10, 20, 30, 40\]", ONE),
    "no blanks": ("[[10,20,30,40],[50,60,70,80]]", TWO),
    "over several lines": ("[\n  [\n    10,\n    20,\n    30,\n    40\n  ]\n]", ONE),
    "decimals": ("[10.0, 2e1, +30., 4.0e+1]", ONE),
    "swapped corners": ("[30, 40, 10, 20] [50, 80, 70, 60]", TWO),
    "twice": ("[10, 20, 30, 40] and again [10, 20, 30, 40]", ONE),
    "location tokens": ("<loc0256><loc0128><loc0512><loc0384> mass", [[12.5, 25, 37.5, 50]]),
    "sides": ('{"left": 10, "top": 20, "right": 30, "bottom": 40}', ONE),
    "sides, otherwise sorted": ('{"top": 20, "bottom": 40, "left": 10, "right": 30}', ONE),
    "sides and a label": ('{"label": "mass", "left": 10, "top": 20, "right": 30, "bottom": 40}', ONE),
    "sides of two": (
        '[{"left":10,"top":20,"right":30,"bottom":40},{"left":50,"top":60,"right":70,"bottom":80}]',
        TWO,
    ),
    "named without brackets": ("x1=10, y1=20, x2=30, y2=40", ONE),
    "named in prose": ("The mass is at x1 = 10, y1 = 20, x2 = 30 and y2 = 40.", ONE),
    "named over lines": ("xmin: 10\nymin: 20\nxmax: 30\nymax: 40", ONE),
    "named with a score": ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40, "score": 0.87}', ONE),
    "named in per cent": ("left: 10%, top: 20%, right: 30%, bottom: 40%", ONE),
    "a corner and a size": ('{"x": 10, "y": 20, "width": 20, "height": 20}', ONE),
    "a corner and a size, in short": ("x=10, y=20, w=20, h=20", ONE),
    "a tag with spaces": ("<box>10 20 30 40</box>", ONE),
    "a tag with commas": ("<box>10, 20, 30, 40</box> <bbox>50,60,70,80</bbox>", TWO),
    "a tag with a list": ("<box>[[10, 20, 30, 40]]</box>", ONE),
    "a score": ("[10, 20, 30, 40, 0.95]", ONE),
    "scores": ("[[10, 20, 30, 40, 0.9], [50, 60, 70, 80, 1]]", TWO),
    "fractions with a score": ("[0.1, 0.2, 0.3, 0.4, 0.95]", ONE),
    "a polygon": ("[[10, 25], [20, 20], [30, 30], [15, 40]]", ONE),
    "a polygon in tuples": ("(10, 25), (20, 20), (30, 30), (15, 40)", ONE),
    "a polygon of objects": ('[{"x": 10, "y": 20}, {"x": 30, "y": 20}, {"x": 20, "y": 40}]', ONE),
    "a polygon by its name": ('{"segmentation": [[10, 20, 30, 20, 30, 40, 10, 40]]}', ONE),
    "a triangle": ("[[10, 20], [30, 40], [10, 40]]", ONE),
    "two polygons": ("[[[10, 20], [30, 20], [30, 40]], [[50, 60], [70, 60], [70, 80]]]", TWO),
    "full-width commas": ("[10\uff0c20\uff0c30\uff0c40]", ONE),
    "full-width digits and brackets": (
        "\uff3b\uff11\uff10\u3001\uff12\uff10\u3001\uff13\uff10\u3001\uff14\uff10\uff3d",
        ONE,
    ),
    "no-break and zero-width spaces": ("[10,\u00a020,\u00a030,\u200b40]", ONE),
    "curly quotes": ("{\u201cx1\u201d: 10, \u201cy1\u201d: 20, \u201cx2\u201d: 30, \u201cy2\u201d: 40}", ONE),
    "carriage returns": ("[\r\n10,\r\n20,\r\n30,\r\n40\r\n]", ONE),
    "out of the picture": ("[-10, 20, 300, 40]", [[-10, 20, 300, 40]]),
}


def percent(boxes):
    return np.round(100 * boxes, 9).tolist()


@pytest.mark.parametrize("form", WRITTEN)
def test_boxes_are_found_in_every_form(form):
    """Trap 30."""
    text, expected = WRITTEN[form]
    assert percent(parse_boxes(text, "pixels", 100, 100)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No.",
        "[]",
        "[[]]",
        "[[x1, y1, x2, y2], ...]",
        "[1, 2, 3]",
        "[10, 20, 30, 40, 50]",
        "[10 20 30 40]",
        "[10, 20, 30, 4",
        "[10, 20, 10, 40]",
        "[0, 0, 0, 0]",
        "[NaN, 20, 30, 40]",
        "[Infinity, 20, 30, 40]",
        "[1e400, 20, 30, 40]",
        "[1, 2, 3, 4000000]",
        "[1, 2, 3, 99999999999999999999999999]",
        "(10, 20) and (30, 40), (50, 60) to (70, 80)",
        "[10, 20, 30, 40, 1.5]",
        "[10, 20, 30, 40, 0.5, 0.5]",
        "left lung: 2, right lung: 3, top: 1, bottom: 4",
        "left: 1, right: 3, left: 2, right: 4",
        "max=10, min=20, max=30, min=40",
        "x=10, y=20, w=20",
        "<box>10 20 30</box>",
        '{"segmentation": [[10, 20, 30, 20, 30]]}',
        "[x: 10, x: 20, x: 30, y: 40]",
        "[10%, 20%, 30, 40]",
        "(10, 20)",
        "__import__('os').system('touch /tmp/x')",
        "[__import__('os').getpid(), 2, 3, 4]",
        "[10 + 0, 20, 30, 40]",
        "<loc0256><loc0128><loc0512>",
    ],
)
def test_what_is_no_box_is_left_out(text):
    assert parse_boxes(text, "pixels", 100, 100).shape == (0, 4)


XY, YX = [[0.1, 0.2, 0.3, 0.4]], [[0.2, 0.1, 0.4, 0.3]]


@pytest.mark.parametrize(
    ("text", "in_xy", "in_yx"),
    [
        ("[[100, 200, 300, 400]]", XY, YX),
        ("(100, 200), (300, 400)", XY, YX),
        ("[0.1, 0.2, 0.3, 0.4]", XY, YX),
        ("[[100, 200], [300, 200], [300, 400]]", XY, YX),
        ('{"x1": 100, "y1": 200, "x2": 300, "y2": 400}', XY, XY),
        ('{"left": 100, "top": 200, "right": 300, "bottom": 400}', XY, XY),
        ("<loc0256><loc0128><loc0512><loc0384>", [[0.125, 0.25, 0.375, 0.5]], [[0.125, 0.25, 0.375, 0.5]]),
    ],
)
def test_bare_numbers_are_read_in_the_order_of_the_family_and_named_ones_alike_in_all(text, in_xy, in_yx):
    assert parse_boxes(text, "thousandths_xy", 9, 9).tolist() == in_xy
    assert parse_boxes(text, "thousandths_yx", 9, 9).tolist() == in_yx


def test_pixels_are_pixels_unless_every_usable_number_is_a_fraction():
    for text, expected in (
        ("[[100, 200, 300, 400]]", [[0.1, 0.4, 0.3, 0.8]]),
        ("[[0, 0, 1, 1], [0, 0, 500, 250]]", [[0, 0, 0.001, 0.002], [0, 0, 0.5, 0.5]]),
        ("[[0.1, 0.2, 0.3, 0.4], [2e9, 0, 3e9, 1]]", XY),
    ):
        assert parse_boxes(text, "pixels", 1000, 500).tolist() == expected


def test_the_number_of_boxes_and_the_text_read_are_bounded():
    many = json.dumps([[n, 0, n + 1, 5] for n in range(5 * MAX_BOXES)])
    assert len(parse_boxes(many, "pixels", 100, 100)) == MAX_BOXES
    late = " " * 100_000 + "[10, 20, 30, 40]"
    assert len(parse_boxes(late, "pixels", 100, 100)) == 0


INTEGERS = st.integers(0, 500)
BOXES = st.lists(
    st.tuples(INTEGERS, INTEGERS, st.integers(2, 500), st.integers(2, 500)).map(
        lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    ),
    min_size=1,
    max_size=6,
    unique_by=tuple,
)
FORMS = {
    "json": json.dumps,
    "dicts": lambda boxes: json.dumps([{"bbox_2d": box, "label": "a [b] (c, d)"} for box in boxes], indent=1),
    "prose": lambda boxes: " and at ".join(str(tuple(box)) for box in boxes),
    "points": lambda boxes: "\n".join(f"* ({a}, {b}), ({c}, {d})." for a, b, c, d in boxes),
}


@given(BOXES, st.sampled_from(sorted(FORMS)))
def test_boxes_come_back_from_every_form(boxes, form):
    assert parse_boxes(FORMS[form](boxes), "pixels", 1, 1).tolist() == boxes


@given(BOXES, st.sampled_from(["json", "dicts"]), st.data())
def test_text_that_breaks_off_keeps_the_boxes_that_are_complete(boxes, form, data):
    whole = FORMS[form](boxes)
    cut = data.draw(st.integers(0, len(whole)))
    found = parse_boxes(whole[:cut], "pixels", 1, 1).tolist()
    assert found == boxes[: len(found)]
    assert len(found) >= whole[:cut].count("label") - 1


PIECES = [*"[](){},1%.: \n\"'\\\uff0c\x00\u0663\ud800", "20", "-3.5", "1e9", "px", "x1:", "y2=", "<loc0123>"]
PIECES += ["<box>", "</box>", "left:", '"w": ', "points: [", "and", "```", "- ", "1. ", "to", "bbox_2d"]
SOUP = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=80).map("".join))


@settings(max_examples=120)
@given(SOUP, st.sampled_from(["pixels", "thousandths_xy", "thousandths_yx"]))
def test_any_text_gives_boxes_and_phrases_that_are_well_formed(text, convention):
    boxes = parse_boxes(text, convention, 224, 100)
    assert boxes.shape[1:] == (4,)
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    for phrase in parse_phrases(text):
        assert phrase == phrase.strip()
        assert phrase.isprintable()
        assert len(phrase) <= 80


@settings(max_examples=20)
@example("{ ")
@example("[ ")
@example("(1,2),")
@example(" (1, 2) to")
@example("[1, 2, 3,")
@example("x1: ")
@example('"\\\\')
@example("[''")
@example("\n- ")
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join))
def test_no_repetition_makes_the_parsers_slow(part):
    """A hundred thousand characters, whatever is repeated: a tenth of a second of this processor's own time.

    A quadratic pattern takes longer than the hundredfold that is granted.
    """
    text = (part * (100_000 // len(part) + 1))[:100_000]
    start = time.process_time()
    parse_boxes(text, "pixels", 224, 224)
    parse_phrases(text)
    assert time.process_time() - start < 10


PHRASES = ("left lower lobe", "costophrenic angle")


@pytest.mark.parametrize(
    "text",
    [
        '["left lower lobe", "costophrenic angle"]',
        '```json\n["left lower lobe",\n "costophrenic angle"]\n```',
        'Sure: ["left lower lobe", "costophrenic angle", "hea',
        "['left lower lobe', 'costophrenic angle']",
        '[{"label": "left lower lobe"}, {"label": "costophrenic angle"}]',
        '{"regions": ["left lower lobe", "costophrenic angle"]}',
        "- left lower lobe\n- costophrenic angle",
        "The evidence:\n* **left lower lobe**: an opacity, dense.\n* **costophrenic angle** - blunted",
        "1. left lower lobe\n2. costophrenic angle",
        "1) left lower lobe (1)\n2) costophrenic angle".replace(" (1)", ""),
        "left lower lobe, costophrenic angle",
        "left lower lobe; costophrenic angle.",
        "left lower lobe\ncostophrenic angle",
        "The regions are: left lower lobe, and costophrenic angle.",
        "[left lower lobe, costophrenic angle]",
        '["left lower lobe", "costophrenic angle", "left lower lobe"]',
    ],
)
def test_phrases_are_found_in_every_form(text):
    assert parse_phrases(text) == PHRASES


def test_phrases_are_read_in_compatibility_form():
    text = "\ufeff[\u201cleft\u00a0lower lobe\u201d\uff0c\u201ccostophrenic\u200b angle\u201d]\r\n"
    assert parse_phrases(text) == PHRASES
    assert parse_phrases('["left\\u00a0lower lobe", "\\ufeffcostophrenic angle"]') == PHRASES
    assert parse_phrases("\uff0d\u3000left lower lobe\r\uff0d\u3000costophrenic angle") == PHRASES


def test_escapes_and_apostrophes_belong_to_the_phrase():
    assert parse_phrases('["h\\u00e9mithorax", "a \\"mass\\" there"]') == (
        "h\u00e9mithorax",
        'a "mass" there',
    )
    assert parse_phrases("['patient's left lung', 'heart']") == ("patient's left lung", "heart")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes.",
        "Yes. Final answer: Yes.",
        "No. There is no sign of a step in the bone. Final answer: No.",
        "NoNoNoNoNoNo" * 20,
        "No.No.",
        "[]",
        "[[10, 20, 30, 40]]",
        "I looked at the whole of the picture and found that there was really nothing to be named in it",
    ],
)
def test_verdicts_sentences_and_numbers_are_no_phrases(text):
    assert parse_phrases(text) == ()


def test_the_number_of_phrases_is_bounded():
    assert len(parse_phrases(json.dumps([f"rib {n}" for n in range(100)]))) == MAX_PHRASES
