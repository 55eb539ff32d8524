"""Text made comparable: what is written differently and looks the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfocus_bench.text import plain, plain_places, same, tidy

WRITTEN = {
    "full width": ("\uff39\uff45\uff53\uff0c \uff11\uff12\uff1a", "Yes, 12:"),
    "no-break and other spaces": ("a\u00a0b\u2009c\u3000d\u1680e", "a b c d e"),
    "zero width, byte-order mark, soft hyphen": ("\ufeffa\u200b\u200d\u2060b\u00adc", "abc"),
    "marks that reorder": ("\u202ea\u202c\u2066b\u2069", "ab"),
    "line breaks": ("a\r\nb\rc\u2028d\u2029e\x85f\vg\fh", "a\nb\nc\nd\ne\nf\ng\nh"),
    "quotes": ("\u201ca\u201d \u2018b\u2019 \u00abc\u00bb \u00b4d", '"a" \'b\' "c" \'d'),
    "ideographic stops": ("a\u3002b\u3001c", "a.b,c"),
    "ligatures and styles": ("\ufb01nding \U0001d5ec", "finding Y"),
    "control characters": ("a\x00b\x1b[0m", "a b [0m"),
    "letters of their own": ("h\u00e9mithorax \u5fc3", "h\u00e9mithorax \u5fc3"),
    "composed or not": ("he\u0301mi", "h\u00e9mi"),
    "ASCII": ('Yes, \t it\'s "so".\n', 'Yes, \t it\'s "so".\n'),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_looks_the_same_is_written_the_same(kind):
    text, expected = WRITTEN[kind]
    assert plain(text) == expected


def test_names_are_the_same_whatever_their_case_and_spaces():
    assert tidy(" Pleural\u00a0 effusion\r\n") == "Pleural effusion"
    assert same("\ufeffPleural\u00a0effusion ") == same("pleural  EFFUSION") == "pleural effusion"


@given(st.text(max_size=60))
def test_plain_text_is_plain_already(text):
    once = plain(text)
    assert plain(once) == once
    assert not {unicodedata.category(c) for c in once if c not in "\t\n"} & {"Cf", "Cc", "Zl", "Zp"}
    assert all(c == " " for c in once if unicodedata.category(c) == "Zs")


@given(st.text(max_size=60) | st.text("a \r\n\u0301\ufeff\uff39\ufdfa\u1100\u1161\u00a0", max_size=30))
def test_every_character_knows_the_place_that_it_comes_from(text):
    shown, places = plain_places(text)
    assert shown == plain(text)
    assert len(places) == len(shown)
    assert list(places) == sorted(places)
    assert all(0 <= place < len(text) for place in places)
    for place, letter in zip(places, shown, strict=True):
        if letter.isascii() and letter.isalnum() and text[place].isascii():
            assert text[place] == letter


def test_a_letter_keeps_no_more_marks_than_can_be_sorted_quickly():
    """Sorting the marks of one letter takes the square of their number: a megabyte of them took minutes."""
    assert len(plain("a" + "\u0323\u0301" * 50_000)) <= 32
