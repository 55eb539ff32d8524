"""The document as it stands in the file: read as the json module reads it, one attribution at a time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfocus_bench.submission import raw as raw_module
from medfocus_bench.submission.raw import raw_document

from .documents import json_values, mutated_bytes


def whole(raw):
    """The value with its attributions back in their place."""
    return {**raw.head, "attributions": list(raw.attributions())} if raw.has_list else raw.head


@pytest.mark.parametrize(
    "text",
    [
        "1",
        " [1, 2] ",
        "{}",
        "{ }",
        '{"attributions": []}',
        '{"attributions": [ ]}',
        '{"a": 1, "attributions" : [ {"x": "ä,]}"} , 2,[3,[4]] ] , "b": {"attributions": [1]}}',
        '{"attributions": {"attributions": [1]}}',
        '{"attributi\\u006fns": [1, "\\ud83d\\ude00", "😀"]}',
        '{"attributions": null, "a": "\u2028"}',
    ],
)
def test_a_document_is_read_as_the_json_module_reads_it(text):
    assert whole(raw_document(text.encode())) == json.loads(text)


@settings(max_examples=80)
@given(value=st.dictionaries(st.sampled_from(["a", "attributions", "b"]), json_values, max_size=3))
def test_any_value_is_read_as_the_json_module_reads_it(value):
    try:
        data = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # NaN, or half of a surrogate pair: neither is JSON in UTF-8
        return
    assert whole(raw_document(data)) == json.loads(data)


SOUND = '{"a": {"b": [1, "é"]}, "attributions": [{"x": [1.5]}, "y\\n", null], "c": true}\n'.encode()


@settings(max_examples=600)
@given(data=mutated_bytes(SOUND))
def test_what_is_damaged_is_refused_where_the_json_module_refuses_it(data):
    try:
        expected = json.loads(data.decode())
    except ValueError as error:
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            raw_document(data)
        if isinstance(error, json.JSONDecodeError) and isinstance(raised.value, json.JSONDecodeError):
            said = [(e.msg, e.lineno, e.colno) for e in (error, raised.value)]
            assert said[0] == said[1] or "byte-order mark" in said[1][0]
        return
    try:
        found = raw_document(data)
    except json.JSONDecodeError:
        raise
    except ValueError:  # what the json module takes: a key twice, NaN
        return
    assert whole(found) == expected


def test_values_are_bounded_before_anything_is_made_of_them(monkeypatch):
    monkeypatch.setattr(raw_module, "MAX_VALUES", 4)
    assert raw_document(b'{"attributions": [1, 2, 3]}').head == {"attributions": []}
    with pytest.raises(ValueError, match="holds more than 4 values"):
        raw_document(b'{"attributions": [1, 2, 3, 4]}')
