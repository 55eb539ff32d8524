"""The submission document: JSON with places, typed parts, and the published schema."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfocus_bench.submission.document import (
    MAX_DOCUMENT_BYTES,
    MAX_PROBLEMS,
    DocumentError,
    json_pointer,
    parse_document,
    read_document,
)
from medfocus_bench.submission.raw import raw_document
from medfocus_bench.submission.schema import SubmissionDocument, submission_json_schema

from .documents import WITH_BOXES, changed, json_values, places, sound_document


@pytest.fixture
def document(bench):
    return sound_document(bench)


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(submission_json_schema())


def raw(document):
    return raw_document(json.dumps(document).encode())


def problems_of(document):
    try:
        return parse_document(raw(document), "file").problems
    except ValueError as error:  # NaN and infinities, which Python writes, are no JSON
        return [str(error)]


def test_a_document_is_read_as_its_bytes_and_their_value(tmp_path):
    path = tmp_path / "submission.json"
    path.write_bytes(b'{"a": ["\xc3\xa4", 1.5, null]}')
    read = read_document(path)
    assert (read.data, read.head, len(read)) == (path.read_bytes(), {"a": ["ä", 1.5, None]}, 0)


def test_a_document_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "submission.json"
    path.write_bytes(b"1" + b" " * (MAX_DOCUMENT_BYTES - 1))
    assert read_document(path).head == 1
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(DocumentError, match=r"is 67,108,865 bytes; at most 67,108,864 are read"):
        read_document(path)


def test_a_duplicate_key_is_refused(tmp_path):
    path = tmp_path / "submission.json"
    path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
    with pytest.raises(DocumentError, match=r"the key 'c' stands twice in one object"):
        read_document(path)


def test_a_sound_document_is_parsed_whole_and_valid_under_the_published_schema(document, validator):
    parsed = parse_document(raw(document), "file")
    assert (parsed.problems, parsed.complete) == ([], True)
    assert parsed.document.attributions == []
    assert parsed.document.benchmark == parsed.benchmark
    jsonschema.Draft202012Validator.check_schema(submission_json_schema())
    validator.validate(document)
    whole = SubmissionDocument.model_validate(document)
    assert whole.attributions == list(parsed.attributions.values())
    assert json.loads(whole.model_dump_json(exclude_unset=True)) == document


def test_the_sound_parts_of_a_broken_document_are_kept(document):
    broken = changed(changed(document, ("method", "name"), 1), ("attributions", 0, "boxes"), 1)
    parsed = parse_document(raw(broken), "file")
    assert parsed.document is None
    assert (parsed.benchmark is not None, parsed.maps is not None) == (True, True)
    assert (list(parsed.attributions), parsed.complete) == ([1], False)
    assert len(parsed.problems) == 2


def test_a_problem_names_the_pointer_and_the_sample(document):
    (problem,) = problems_of(changed(document, ("attributions", 0, "boxes", 0, 3), "x"))
    assert problem == f"file: /attributions/0/boxes/0/3 ({WITH_BOXES}): should be a valid number"


def test_a_value_that_fits_no_alternative_is_one_problem(document):
    (problem,) = problems_of(changed(document, ("method", "hyperparameters", "rate"), {"x": 1}))
    assert problem.startswith("file: /method/hyperparameters/rate: should be a valid boolean, or should be ")


def test_a_missing_key_is_named_where_it_should_be(document):
    del document["method"]["version"]
    del document["attributions"][1]["sample_id"]
    assert problems_of(document) == [
        "file: /method/version: is required",
        "file: /attributions/1/sample_id: is required",
    ]


def test_a_pointer_escapes_as_the_standard_says(document):
    document["a/b~c"] = 1
    assert problems_of(document) == ["file: /a~1b~0c: is not a key of the format; remove it"]


def test_a_sample_id_is_quoted_only_where_it_is_short_and_printable():
    for sample_id, quoted in (("a", " (a)"), ("a\x1b", ""), ("a" * 201, ""), (7, ""), (None, "")):
        assert json_pointer(("attributions", 0), "file", sample_id) == f"file: /attributions/0{quoted}"


def test_problems_end_at_a_limit(document):
    document["attributions"] = [1] * (MAX_PROBLEMS + 10)
    problems = problems_of(document)
    assert len(problems) == MAX_PROBLEMS + 2
    assert problems[-1] == "file: more than 10,000 problems; the rest is not listed"


def test_one_attribution_can_have_only_so_many_problems(document):
    document["attributions"] = [
        {
            "sample_id": "a",
            "boxes": [["x"] * 4] * 100,
            "concepts": {str(number): "x" for number in range(1000)},
            "tokens": [{"x": 1}] * 10_000,
        }
    ]
    document["method"]["hyperparameters"] = {str(number): ["x", {}] * 500 for number in range(1000)}
    assert len(problems_of(document)) < 5000


def test_hyperparameters_are_bounded_together(document):
    """Each text may be long, not all of them: a page shows every one."""
    document["method"]["hyperparameters"] = {str(number): "\u00e4" * 8000 for number in range(4)}
    assert problems_of(document) == []
    document["method"]["hyperparameters"]["more"] = "a" * 1600
    (problem,) = problems_of(document)
    assert problem.startswith("file: /method/hyperparameters: are 65")
    assert "bytes of JSON; at most 65536 are taken" in problem


@settings(max_examples=100)
@given(data=st.data(), new=json_values, extra=st.booleans())
def test_what_is_parsed_is_valid_under_the_published_schema(data, new, extra, document, validator):
    at = data.draw(st.sampled_from(places(document)))
    candidate = changed(document, at, new, extra=extra)
    if not problems_of(candidate):
        validator.validate(candidate)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("schema_version",), "2.0"),
        (("extra",), 1),
        (("method", "name"), "No Name"),
        (("method", "paper"), "javascript:alert(1)"),
        (("method", "display_name"), "a\x1b[31m"),
        (("method", "display_name"), "a" * 61),
        (("attributions", 0, "concepts", "left lung"), 1.1e6),
        (("attributions", 0, "concepts", "left lung"), -1.1e6),
        (("attributions", 0, "tokens", 0, "score"), 1.1e6),
        (("attributions", 0, "tokens", 0, "score"), 1e308),
        (("attributions", 0, "cost", "seconds"), 1.1e7),
        (("attributions", 0, "cost", "forward_passes"), 10**9 + 1),
        (("attributions", 0, "cost", "backward_passes"), 10**9 + 1),
        (("maps", "file"), "../maps.safetensors"),
        (("maps", "sha256"), "x"),
        (("attributions", 0, "sample_id"), "a b"),
        (("attributions", 0, "boxes", 0), [1, 2, 3]),
        (("attributions", 0, "boxes", 0, 0), -1),
        (("attributions", 0, "map"), True),
        (("attributions", 1, "map"), False),
        (("attributions", 1), {"sample_id": "a"}),
        (("attributions", 1), {"sample_id": "a", "map": None, "boxes": None}),
        (("submitters",), []),
    ],
)
def test_the_published_schema_refuses_what_the_parser_refuses(at, value, document, validator):
    broken = changed(document, at, value)
    assert problems_of(broken)
    assert not validator.is_valid(broken)
