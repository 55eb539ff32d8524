"""The shipped effects: those that the shipped models have, in words and concepts."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.lvlm.registry import kept_lvlm
from medfocus_bench.phantom.effects import JOURNAL_NAME, effects_of, shipped_track, write_effects
from medfocus_bench.phantom.truth import EFFECTS_NAME, EFFECTS_SCHEMA, FOLDER


@pytest.fixture(scope="module")
def samples():
    return shipped_track().samples


@pytest.fixture(scope="module")
def rows():
    return {row["sample_id"]: row for row in pq.read_table(FOLDER / EFFECTS_NAME).to_pylist()}


def test_every_sample_of_the_track_has_its_effects_in_a_small_file(samples, rows):
    assert set(rows) == {sample.sample_id for sample in samples}
    assert (FOLDER / EFFECTS_NAME).stat().st_size < 600_000
    assert pq.read_schema(FOLDER / EFFECTS_NAME).equals(EFFECTS_SCHEMA)


def test_they_are_what_the_models_give(samples, rows):
    for sample in (samples[0], samples[1], samples[1500]):
        again, shipped = effects_of(kept_lvlm(sample.lvlm), sample), rows[sample.sample_id]
        assert again["tokens"] == shipped["tokens"]
        assert again["concepts"] == shipped["concepts"]
        for name in ("token_effects", "concept_effects", "drop"):
            assert again[name] == pytest.approx(shipped[name], abs=1e-3)


def test_tokens_are_the_response_and_their_effects_sum_to_the_drop(samples, rows):
    for sample in samples[::97]:
        row = rows[sample.sample_id]
        assert "".join(row["tokens"]) == sample.response
        assert sum(row["token_effects"]) == pytest.approx(row["drop"], abs=1e-3)
        assert row["drop"] > 0.5
        assert set(row["concepts"]) == {*CONCEPTS, *COMPOSITES}


def test_a_union_does_not_do_less_than_the_cause_in_one_member_alone_by_much(rows):
    """Healing more of the cause takes more of the response, but for a few where two parts interact."""
    lost = [
        max(effects[member] for member in members) - effects[union]
        for row in rows.values()
        for effects in [dict(zip(row["concepts"], row["concept_effects"], strict=True))]
        for union, members in COMPOSITES.items()
    ]
    assert np.mean(np.array(lost) > 1) < 0.02


def test_a_stopped_measurement_goes_on_to_the_same_file(samples, tmp_path):
    few = samples[:3]

    def stopping(items, label, total):
        for number, item in enumerate(items):
            if number == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        write_effects(tmp_path / "work", tmp_path / "truth", few, progress=stopping)
    journal = tmp_path / "work" / JOURNAL_NAME
    assert len(journal.read_text().splitlines()) == 2
    assert not (tmp_path / "truth").exists()
    first = json.loads(journal.read_text().splitlines()[1])
    written = pq.read_table(write_effects(tmp_path / "work", tmp_path / "truth", few)).to_pylist()
    assert [row["sample_id"] for row in written] == [sample.sample_id for sample in few]
    row = next(row for row in written if row["sample_id"] == first["sample_id"])
    assert row["drop"] == pytest.approx(first["drop"])
