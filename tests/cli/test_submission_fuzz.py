"""Any submission at all is scored, or refused in printable lines."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from medfocus_bench.data.benchmark import Benchmark

from ..submission.documents import (
    changed,
    json_values,
    mutated_bytes,
    places,
    sound_document,
    sound_maps,
    write_folder,
)
from .refusing import evaluate, refusal, validate

fuzz = settings(max_examples=75)


def outcome(folder: Path, bench: Benchmark) -> None:
    """Both commands end in status 0, or in status 2 with printable lines; but for warnings, that is all."""
    status, _, err = validate(folder, bench)
    assert status in (0, 2)
    if status == 2:
        refusal(folder, bench)
    else:
        assert evaluate(folder, bench)[0] == 0
        assert all(line.startswith("warning: ") and line.isprintable() for line in err.splitlines())


@fuzz
@given(document=json_values)
def test_any_json_value_is_scored_or_refused(document, folder, bench):
    outcome(write_folder(folder, document), bench)


@fuzz
@given(data=st.data(), new=json_values, extra=st.booleans())
def test_any_changed_value_of_a_document_is_scored_or_refused(data, new, extra, folder, bench):
    document = sound_document(bench)
    at = data.draw(st.sampled_from(places(document)))
    outcome(write_folder(folder, changed(document, at, new, extra=extra)), bench)


@fuzz
@given(raw=st.binary(max_size=64))
def test_any_bytes_of_a_document_are_scored_or_refused(raw, folder, bench):
    outcome(write_folder(folder, raw=raw), bench)


@fuzz
@given(data=st.data())
def test_any_damage_to_a_document_is_scored_or_refused(data, folder, bench):
    raw = data.draw(mutated_bytes(json.dumps(sound_document(bench)).encode()))
    outcome(write_folder(folder, raw=raw), bench)


@fuzz
@given(maps=mutated_bytes(sound_maps()))
def test_any_damage_to_a_map_file_is_scored_or_refused(maps, folder, bench):
    outcome(write_folder(folder, sound_document(bench, maps), maps), bench)
