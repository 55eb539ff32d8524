"""Whatever stands in a submission, `validate` and `evaluate` answer with its place, and status 2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..submission.documents import (
    MAPS,
    WITH_BOXES,
    WITH_MAP,
    changed,
    entry,
    safetensors,
    sound_document,
    write_folder,
)
from .refusing import BOXES, evaluate, refusal, validate

Broken = tuple[tuple[int | str, ...], Any, str]

ENTRY: tuple[int | str, ...] = ("attributions", 0)

# fmt: off
WRONG_VALUES: dict[str, Broken] = {
    "a document that is a list": ((), [], "/: should be"),
    "no attributions": (("attributions",), None, "/attributions: should be a valid list"),
    "an unknown schema version": (("schema_version",), "2.0", "/schema_version: should be '1.0'"),
    "a sample id of the wrong type": ((*ENTRY, "sample_id"), 7, "/attributions/0/sample_id: should be"),
    "a sample id with an escape": ((*ENTRY, "sample_id"), "a\x1b[31m", "/attributions/0/sample_id: "),
    "a sample id with a newline": ((*ENTRY, "sample_id"), "a\nb", "/attributions/0/sample_id: "),
    "a lone surrogate in a sample id": ((*ENTRY, "sample_id"), "\ud800", "/attributions/0/sample_id: "),
    "a lone surrogate in a name": (("submitters", 0, "name"), "\ud800", "/submitters/0/name: "),
    "a lone surrogate in a key":
        ((*ENTRY, "concepts"), {"\udfff": 1}, f"/attributions/0/concepts ({WITH_BOXES})"),
    "an escape in a key": (("method", "\x1b[31m"), 1, r"/method/\x1b[31m: is not a key of the format"),
    "a newline in a key": (("a\r\nb",), 1, "/a b: is not a key of the format"),
    "an escape in a name": (("submitters", 0, "name"), "\x1b]0;x\x07", "/submitters/0/name: should have no"),
    "a reordering mark in a name":
        (("method", "display_name"), "a\u202eb", "/method/display_name: should have"),
    "a newline in a version":
        (("benchmark", "version"), "1\n2", "/benchmark/version: should have no line breaks"),
    "an unknown key": ((*ENTRY, "score"), 1, f"/attributions/0/score ({WITH_BOXES}): is not a key"),
    "boxes of the wrong type": (BOXES, "10 20 30 40", f"/attributions/0/boxes ({WITH_BOXES}): should be"),
    "a box of three numbers": ((*BOXES, 0), [1, 2, 3], f"/attributions/0/boxes/0 ({WITH_BOXES}): "),
    "a box of text": ((*BOXES, 0, 0), "1", f"/attributions/0/boxes/0/0 ({WITH_BOXES}): should be"),
    "a box of truth values": ((*BOXES, 0, 0), True, f"/attributions/0/boxes/0/0 ({WITH_BOXES}): should be"),
    "a box inside out": ((*BOXES, 0), [30, 20, 10, 40], f"/boxes/0 ({WITH_BOXES}): the box is inside out"),
    "a box without area": ((*BOXES, 0), [30, 20, 30, 40], f"/boxes/0 ({WITH_BOXES}): the box is inside out"),
    "a box whose area is no number": ((*BOXES, 0), [0, 0, 5e-324, 5e-324], "/attributions/0/boxes/0"),
    "a box beyond the image":
        ((*BOXES, 0), [0, 0, 224, 200.5], "/boxes/0 (phantom-00000-tiny-direct): reaches"),
    "a box before the image": ((*BOXES, 0, 1), -0.5, "/attributions/0/boxes/0/1"),
    "a box with a huge integer": ((*BOXES, 0, 2), 10**400, "/attributions/0/boxes/0/2"),
    "too many boxes": (BOXES, [[1, 2, 3, 4]] * 101, "/attributions/0/boxes"),
    "a map that is false": (("attributions", 1, "map"), False, f"/attributions/1/map ({WITH_MAP}): "),
    "a map and boxes": ((*ENTRY, "map"), True, f"/attributions/0 ({WITH_BOXES}): give either"),
    "neither a map nor boxes": (BOXES, None, f"/attributions/0 ({WITH_BOXES}): give either"),
    "a cost that sums to infinity": ((*ENTRY, "cost", "seconds"), 1.7e308, "/attributions/0/cost/seconds"),
    "a negative cost": ((*ENTRY, "cost", "forward_passes"), -1, "/attributions/0/cost/forward_passes"),
    "a cost of a huge integer":
        ((*ENTRY, "cost", "forward_passes"), 10**4000, "/attributions/0/cost/forward"),
    "an unknown sample":
        ((*ENTRY, "sample_id"), "vindr-00000-a-direct", "(vindr-00000-a-direct): no such sample"),
    "a sample twice":
        ((*ENTRY, "sample_id"), WITH_MAP, f"/attributions/0 ({WITH_MAP}): the sample stands 2 times"),
    "a link that runs code": (("method", "paper"), "javascript:alert(1)", "/method/paper: "),
    "a link that leaves its attribute": (("method", "code"), "https://a/'x", "/method/code: "),
    "a link with an escape": (("submitters", 0, "url"), "https://a/\x1b[31m", "/submitters/0/url: "),
    "a hyperparameter that is an object":
        (("method", "hyperparameters", "rate"), {}, "/hyperparameters/rate: "),
    "maps in the folder above": (("maps", "file"), f"../{MAPS}", "/maps/file: "),
    "maps at an absolute path": (("maps", "file"), f"/tmp/{MAPS}", "/maps/file: "),
    "maps that are hidden": (("maps", "file"), f".{MAPS}", "/maps/file: "),
    "maps of another type": (("maps", "file"), "maps.npz", "/maps/file: "),
    "maps that are not declared": (("maps",), None, "/maps: is required"),
    "maps that are not there":
        (("maps", "file"), "none.safetensors", "none.safetensors: cannot be read: No such"),
    "a wrong sha256": (("maps", "sha256"), "0" * 64, "/maps/sha256: is not that of"),
    "a sha256 that is none": (("maps", "sha256"), "x", "/maps/sha256: "),
    "another dataset":
        (("benchmark", "dataset"), "other", "/benchmark/dataset: the submission is of 'other'"),
    "another version": (("benchmark", "fingerprint"), "0" * 64, "/benchmark/fingerprint: made for version"),
    "an unknown config":
        (("benchmark", "configs"), ["a"], "/benchmark/configs: no 'a' in the benchmark, only ph"),
    "an unknown split":
        (("benchmark", "splits"), ["dev"], "/benchmark/splits: no 'dev' in the benchmark, only d"),
}
# fmt: on


@pytest.mark.parametrize(("at", "value", "said"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_place(at, value, said, folder, bench):
    write_folder(folder, changed(sound_document(bench), at, value))
    problems = refusal(folder, bench)
    assert any(said in problem for problem in problems), problems
    assert all(problem.startswith(str(folder)) for problem in problems)


# fmt: off
RAW_DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "not valid JSON at line 1, column 1"),
    "truncated": (b'{"schema_version": "1.0", "method": {', "not valid JSON at line 1, column 38"),
    "two values": (b"{} {}", "not valid JSON at line 1, column 4"),
    "not UTF-8": (b'{"schema_version": "\xff"}', "not UTF-8 at byte 20"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "a duplicate key": (b'{"method": 1, "method": 2}', "the key 'method' stands twice in one object"),
    "a duplicate key with an escape": (b'{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"the key '\x1b[31m' stands"),
    "a duplicate key inside": (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' stands twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a number of JSON"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
    "an integer of 100,000 digits": (b'{"a": ' + b"9" * 100_000 + b"}", "integer"),
    "100,000 brackets": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "100,000 braces": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "an object of too many keys":
        (json.dumps({str(number): 1 for number in range(1001)}).encode(), "an object has 1,001 keys"),
}
# fmt: on


@pytest.mark.parametrize(("raw", "said"), RAW_DOCUMENTS.values(), ids=RAW_DOCUMENTS)
def test_a_document_that_is_no_json_is_refused_with_its_place(raw, said, folder, bench):
    (problem,) = refusal(write_folder(folder, raw=raw), bench)
    assert problem.startswith(f"{folder}/submission.json: ")
    assert said in problem


def test_a_number_too_large_for_a_float_is_refused(folder, bench):
    text = json.dumps(changed(sound_document(bench), (*BOXES, 0, 0), 424242)).replace("424242", "1e999")
    problems = refusal(write_folder(folder, raw=text.encode()), bench)
    assert f"/attributions/0/boxes/0/0 ({WITH_BOXES})" in problems[0]


def test_a_submission_that_covers_nothing_is_refused(folder, tmp_path):
    from medfocus_bench.data.writing import write_benchmark

    from ..conftest import make_row

    other = make_row(1, source="other", sample_id="other-00001-tiny-reasoning", mode="reasoning")
    bench = write_benchmark(
        tmp_path / "both", {"direct": [make_row(0)], "reasoning": [other]}, name="both", version="1"
    )
    covers = {**bench.reference(), "configs": ["other"], "splits": ["direct"]}
    document = {**sound_document(bench), "benchmark": covers, "maps": None, "attributions": []}
    (problem,) = refusal(write_folder(folder, document), bench)
    assert problem.endswith("/benchmark: the benchmark holds no samples in other / direct")


def test_validate_lists_all_problems_at_once(folder, bench):
    document = sound_document(bench)
    document["method"]["name"] = "No Name"
    document["extra"] = 1
    document["maps"]["sha256"] = "0" * 64
    document["benchmark"]["fingerprint"] = "0" * 64
    document["attributions"] += [
        {"sample_id": WITH_MAP, "map": True},
        {"sample_id": "unknown", "boxes": [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, "a", 1]]},
        {"sample_id": "unknown2", "boxes": []},
        {"sample_id": WITH_BOXES, "boxes": [[0, 0, 500, 500]]},
        {"boxes": []},
    ]
    problems = refusal(write_folder(folder, document), bench)
    file = folder / "submission.json"
    for said in (
        "/method/name: ",
        "/extra: is not a key of the format; remove it",
        "/maps/sha256: is not that of",
        "/benchmark/fingerprint: made for version 1.0.0",
        f"/attributions/0 ({WITH_BOXES}): the sample stands 2 times",
        f"/attributions/1 ({WITH_MAP}): the sample stands 2 times",
        f"/attributions/2 ({WITH_MAP}): the sample stands 2 times",
        "/attributions/3/boxes/1 (unknown): the box is inside out",
        "/attributions/3/boxes/2/2 (unknown): should be a valid number",
        "/attributions/4/sample_id (unknown2): no such sample",
        f"/attributions/5/boxes/0 ({WITH_BOXES}): reaches out of the image of 224 x 200",
        "/attributions/6/sample_id: is required",
    ):
        assert any(problem.startswith(f"{file}: {said}") for problem in problems), said
    assert len(problems) == 13  # entry 5 is one of the two of its sample as well


def test_validate_lists_map_problems_beside_those_of_the_document(folder, bench):
    maps = safetensors({"a": entry([1, 1, 1], 0, 1), "b": entry([1, 1], 1, 9, "F64")}, bytes(9))
    document = changed(sound_document(bench, maps), (*BOXES, 0), [9, 9, 1, 1])
    problems = refusal(write_folder(folder, document, maps), bench)
    assert len(problems) == 4


def test_a_sound_submission_passes_both_commands(folder, bench):
    write_folder(folder, sound_document(bench))
    said = "2 of 2 samples, 1 by maps and 1 by boxes"
    assert validate(folder, bench) == (0, f"{folder}: sound for {bench.folder}; {said}\n", "")
    assert validate(folder / "submission.json", bench)[0] == 0
    assert evaluate(folder, bench)[0] == 0
