"""Faithfulness, without an LVLM: the order of pixels, the pictures, areas, and what stands for 0 and 1."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.faithfulness import (
    SHARES,
    Areas,
    Reference,
    aggregate,
    area,
    chosen_samples,
    curve_pictures,
    pixel_order,
    random_map,
    response_log_odds,
    sample_scores,
    token_log_probs,
)
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import Frame

FRAME = Frame(224, 224)


def sample(number: int, lvlm: str = "tiny", mode: str = "direct") -> Sample:
    return Sample(
        sample_id=f"phantom-{number:05d}-{lvlm}-{mode}",
        split=mode,
        source="phantom",
        index=number,
        patient_id=f"p{number}",
        width=224,
        height=224,
        finding="nodule",
        lvlm=lvlm,
        mode=mode,
        evidence="lesion",
        boxes=np.array([[0.0, 0.0, 10.0, 10.0]]),
    )


def reference(name: str, mask: float = 0.9, random: float = 0.1, drop: float = 10.0) -> Reference:
    return Reference(name, drop, 0.0, Areas(mask, mask), Areas(random, random))


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(-20, 20)))
def test_the_log_odds_of_a_response_are_those_of_the_product_of_its_tokens(odds):
    p = np.prod(1 / (1 + np.exp(-odds)), axis=-1)
    assert 1 / (1 + np.exp(-response_log_odds(odds))) == pytest.approx(p, rel=1e-9, abs=1e-12)
    assert token_log_probs(odds).sum(-1) == pytest.approx(np.log(p), rel=1e-9, abs=1e-9)


def test_the_log_odds_of_one_token_are_its_own_however_certain_it_is():
    assert response_log_odds([[40.0], [-40.0]]) == pytest.approx([40, -40])


def test_after_a_certain_line_of_reasoning_the_token_that_hangs_on_the_picture_decides():
    assert float(response_log_odds([30.0, 2.0, 30.0])) == pytest.approx(2.0, abs=1e-6)


def test_pixels_come_by_their_value_in_the_frame_of_the_picture():
    values = np.zeros((112, 224), dtype=np.float32)
    values[98:, 196:] = 1.0
    frame = Frame(400, 200)
    rows, columns = np.divmod(pixel_order(values, frame, "a")[: 25 * 50], 400)
    assert (rows.min(), columns.min()) == (175, 350)
    assert sorted(pixel_order(values, frame, "a")) == list(range(400 * 200))


def test_ties_are_broken_at_random_the_same_way_for_every_method_and_another_for_every_sample():
    flat = np.zeros((224, 224), dtype=np.float32)
    order = pixel_order(flat, FRAME, "a")
    assert np.array_equal(order, pixel_order(flat + 1, FRAME, "a"))
    assert not np.array_equal(order, pixel_order(flat, FRAME, "b"))
    assert not np.array_equal(order, pixel_order(flat, FRAME, "a", seed=1))
    tenth = np.zeros(224 * 224)
    tenth[order[: len(order) // 10]] = 1
    quarters = tenth.reshape(2, 112, 2, 112).mean((1, 3))
    assert quarters == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("colours", [(), (3,)])
def test_the_pictures_heal_the_first_pixels_and_insert_them(colours):
    shape = (20, 30, *colours)
    original, healed = np.full(shape, 200, np.uint8), np.full(shape, 50, np.uint8)
    order = np.random.default_rng(0).permutation(600)
    pictures = curve_pictures(order, original, healed)
    assert len(pictures) == 2 * len(SHARES)
    for n, share in enumerate(SHARES):
        count = round(share * 600)
        changed = (pictures[n] == 50).reshape(600, -1).all(1)
        assert changed.sum() == count
        assert changed[order[:count]].all()
        assert np.array_equal(pictures[n + len(SHARES)], 250 - pictures[n])


def test_a_picture_of_few_pixels_has_one_replaced_at_least():
    pictures = curve_pictures(np.arange(4), np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8))
    assert [int(picture.sum()) for picture in pictures[:3]] == [1, 1, 1]


def test_the_area_is_over_the_log_of_the_share():
    assert float(area(np.ones(len(SHARES)))) == pytest.approx(1.0)
    assert float(area(np.log(SHARES))) == pytest.approx((log(0.01) + log(0.5)) / 2)
    late = np.array([0, 0, 0, 0, 0, 1.0])
    assert float(area(late)) == pytest.approx(log(2.5) / 2 / log(50))


def test_areas_are_shares_of_the_drop_in_either_direction():
    healed = np.linspace(10, -5, 6)
    inserted = np.linspace(-5, 10, 6)
    areas = Areas.of([*healed, *inserted], 10.0, -5.0)
    assert areas.healing == pytest.approx(areas.insertion)
    assert areas.healing == pytest.approx(float(area(np.linspace(0, 1, 6))))


def test_random_maps_have_16_cells_a_side_and_depend_on_the_sample():
    assert random_map("a").shape == (16, 16)
    assert np.array_equal(random_map("a"), random_map("a"))
    assert not np.array_equal(random_map("a"), random_map("b"))


def test_the_mask_has_1_random_0_and_the_mean_is_the_ratio_of_means_in_each_lvlm():
    rng = np.random.default_rng(0)
    samples = [sample(n, lvlm) for lvlm in ("one", "two") for n in range(30)]
    references = {
        s.sample_id: reference(s.sample_id, rng.uniform(0.5, 1), rng.uniform(-0.2, 0.3)) for s in samples
    }
    masks = {key: found.mask for key, found in references.items()}
    randoms = {key: found.random for key, found in references.items()}
    assert sample_scores(samples, masks, references).reshape(2, 30, 3).mean(1) == pytest.approx(1)
    assert sample_scores(samples, randoms, references) == pytest.approx(0)
    assert sample_scores(samples, {}, references) == pytest.approx(0)
    method = {s.sample_id: Areas(rng.random(), rng.random()) for s in samples}
    scores = sample_scores(samples, method, references)
    for lvlm in ("one", "two"):
        of = [n for n, s in enumerate(samples) if s.lvlm == lvlm]
        keys = [samples[n].sample_id for n in of]

        def mean(found, name, keys=keys):
            return np.mean([getattr(found[key], name) for key in keys])

        for column, name in ((1, "healing"), (2, "insertion")):
            above = mean(method, name) - mean(randoms, name)
            assert scores[of, column].mean() == pytest.approx(
                above / (mean(masks, name) - mean(randoms, name))
            )
    assert scores[:, 0] == pytest.approx(scores[:, 1:].mean(1))


def test_the_section_has_every_lvlm_and_leaves_out_samples_that_the_cause_does_not_move():
    samples = [sample(n, lvlm) for lvlm in ("one", "two") for n in range(20)]
    references = {s.sample_id: reference(s.sample_id) for s in samples}
    still = samples[0].sample_id
    references[still] = reference(still, drop=0.5)
    halves = {s.sample_id: Areas(0.5, 0.9 if s.lvlm == "one" else 0.1) for s in samples}
    found = aggregate(samples, halves, references, 12.0, Settings(resamples=100))
    assert (found.samples, found.patients, found.unmoved) == (39, 20, 1)
    assert found.forward_passes == 12.0
    assert found.healing.mean == pytest.approx(0.5)
    assert [(part.lvlm, part.samples) for part in found.lvlms] == [("one", 19), ("two", 20)]
    assert [part.insertion.mean for part in found.lvlms] == pytest.approx([1, 0])
    assert found.faithfulness.mean == pytest.approx((0.75 + 0.25) / 2)


def test_nothing_to_be_faithful_to_is_said():
    samples = [sample(0)]
    key = samples[0].sample_id
    with pytest.raises(InputError, match="no more to the answers of tiny than healing pixels at random"):
        sample_scores(samples, {}, {key: reference(key, 0.1, 0.2)})
    with pytest.raises(InputError, match="moves the response of no sample"):
        aggregate(samples, {}, {key: reference(key, drop=0.2)}, 0.0, Settings(resamples=100))


def test_fewer_samples_are_a_part_of_more_and_come_from_every_lvlm_and_mode():
    samples = [
        sample(n, lvlm, mode)
        for lvlm in ("one", "two")
        for mode in ("direct", "reasoning")
        for n in range(25)
    ]
    few, more = chosen_samples(samples, 10), chosen_samples(samples, 40)
    assert {s.sample_id for s in few} < {s.sample_id for s in more}
    assert len(few) == 10
    counts = [sum((s.lvlm, s.mode) == key for s in more) for key in {(s.lvlm, s.mode) for s in samples}]
    assert counts == [10, 10, 10, 10]
    assert chosen_samples(samples, None) == chosen_samples(samples, 1000) == samples
    assert [samples.index(s) for s in few] == sorted(samples.index(s) for s in few)


def test_the_odds_of_the_whole_response_saturate_nowhere():
    """A probability of 1 - 1e-12 is 1 in float32; its odds are not."""
    assert float(response_log_odds([27.0, 35.0])) == pytest.approx(-log(exp(-27) + exp(-35)), rel=1e-6)


def test_a_picture_that_changes_nothing_has_no_areas_and_no_warning():
    assert Areas.of(np.linspace(0, 1, 2 * len(SHARES)), 3.0, 3.0) == Areas(0.0, 0.0)
    assert not Reference("s", 3.0, 3.0, Areas(0.0, 0.0), Areas(0.0, 0.0)).applies
