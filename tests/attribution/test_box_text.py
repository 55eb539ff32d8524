"""Boxes and phrases in the text of models: every form seen, broken text, and time."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medfocus_bench.attribution.box_text import MAX_BOXES, MAX_PHRASES, parse_boxes, parse_phrases

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
        "[[10, 20], [30, 40], [50, 60]]",
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


def test_numbers_are_read_in_the_convention_of_the_family():
    text = "[[100, 200, 300, 400]]"
    assert parse_boxes(text, "pixels", 1000, 500).tolist() == [[0.1, 0.4, 0.3, 0.8]]
    assert parse_boxes(text, "thousandths_xy", 896, 896).tolist() == [[0.1, 0.2, 0.3, 0.4]]
    assert parse_boxes(text, "thousandths_yx", 896, 896).tolist() == [[0.2, 0.1, 0.4, 0.3]]
    points = "(100, 200), (300, 400)"
    assert parse_boxes(points, "thousandths_yx", 896, 896).tolist() == [[0.2, 0.1, 0.4, 0.3]]


def test_named_coordinates_and_location_tokens_mean_the_same_in_every_family():
    for convention in ("thousandths_xy", "thousandths_yx"):
        named = parse_boxes('{"x1": 100, "y1": 200, "x2": 300, "y2": 400}', convention, 9, 9)
        assert named.tolist() == [[0.1, 0.2, 0.3, 0.4]]
        located = parse_boxes("<loc0256><loc0128><loc0512><loc0384>", convention, 9, 9)
        assert located.tolist() == [[0.125, 0.25, 0.375, 0.5]]


def test_fractions_keep_the_order_of_the_family():
    assert parse_boxes("[0.1, 0.2, 0.3, 0.4]", "thousandths_yx", 9, 9).tolist() == [[0.2, 0.1, 0.4, 0.3]]


def test_one_number_above_one_makes_all_of_them_no_fractions():
    boxes = parse_boxes("[[0, 0, 1, 1], [0, 0, 50, 50]]", "pixels", 100, 100)
    assert boxes.tolist() == [[0, 0, 0.01, 0.01], [0, 0, 0.5, 0.5]]


def test_a_hopeless_box_does_not_change_how_the_others_are_read():
    boxes = parse_boxes("[[0.1, 0.2, 0.3, 0.4], [2e9, 0, 3e9, 1]]", "pixels", 100, 100)
    assert boxes.tolist() == [[0.1, 0.2, 0.3, 0.4]]


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


PIECES = [
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    " ",
    "\n",
    "1",
    "20",
    "-3.5",
    "1e9",
    "%",
    "px",
    "x1:",
    "y2=",
    '"',
    "'",
]
PIECES += [
    "\\",
    "<loc0123>",
    "```",
    "- ",
    "1. ",
    ":",
    "to",
    "lung",
    "bbox_2d",
    "\x00",
    "\u0663",
    "\ud800",
    ".",
]
SOUP = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=200).map("".join))


@settings(max_examples=300)
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


@settings(max_examples=60)
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


def test_one_phrase_is_a_list_too():
    assert parse_phrases("Left lower lobe.") == ("Left lower lobe",)


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
