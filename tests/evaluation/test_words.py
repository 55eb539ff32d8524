"""Words and concepts: a ranking against the effects of the cause, corrected for chance exactly."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import medfocus_bench as mb
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.words import (
    Heard,
    aggregate,
    concept_ndcg,
    ndcg,
    on_tokens,
    says_none,
    token_ndcg,
    word_scores,
)

SETTINGS = Settings(resamples=100)
TOKENS = ("There", " is", " an", " enlarged", " heart", ".")
EFFECTS = np.array([0.0, 0.1, 9.0, 0.5, -0.2, 0.0], dtype=np.float32)
CONCEPTS = {"left lung": 6.0, "right lung": 0.0, "mediastinum": 1.0, "both lungs": 6.0}


def known(number: int = 0, *, concepts=CONCEPTS, drop: float = 8.0, tokens=TOKENS, effects=EFFECTS):
    """A sample whose effects are known."""
    return SimpleNamespace(
        sample_id=f"s{number}",
        tokens=tokens,
        token_effects=effects,
        concept_effects=concepts,
        drop=drop,
        lvlm="tiny",
        evidence="lesion",
        source="phantom",
        patient=("phantom", f"p{number}"),
    )


gains = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 3.0]), min_size=2, max_size=12)


@given(gains)
def test_the_effects_themselves_score_1_and_constants_0(gained):
    if min(gained) == max(gained):
        assert ndcg(gained, gained) is None
        return
    assert ndcg(gained, gained) == pytest.approx(1)
    assert ndcg(np.exp(gained), gained) == pytest.approx(1)
    assert ndcg([2.0] * len(gained), gained) == 0


@pytest.mark.parametrize("scores", [[5, 4, 3, 2, 1, 0, -1], [1, 1, 1, 0, 0, 0, 0], [3, 3, 2, 2, 2, 1, 1]])
def test_the_expectation_of_a_random_order_is_exact_ties_included(scores):
    """Issue 19: 20,000 shuffles agree to three standard errors, whatever ties the scores have."""
    gained = np.array([4.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.5])
    rng = np.random.default_rng(3)
    found = np.array([ndcg(rng.permutation(scores), gained) for _ in range(20_000)])
    assert abs(found.mean()) <= 3 * found.std() / np.sqrt(len(found))
    assert found.std() > 0.05


def test_tied_items_have_the_mean_of_all_orders_that_break_the_tie():
    gained = np.array([2.0, 0.0, 1.0])
    broken = [ndcg(scores, gained) for scores in ([3, 2, 1], [2, 3, 1])]
    assert ndcg([2, 2, 1], gained) == pytest.approx(np.mean(broken))


def test_a_reversed_order_is_worse_than_chance():
    assert ndcg([0, 1, 2], [2.0, 1.0, 0.0]) < 0


def test_tokens_are_matched_by_the_places_of_their_texts():
    assert on_tokens(list(zip(TOKENS, range(6), strict=True)), TOKENS).tolist() == [0, 1, 2, 3, 4, 5]
    words = [("There", 1), ("is", 2), ("an", 3), ("enlarged heart", 4), (".", 5)]
    assert on_tokens(words, TOKENS).tolist() == [1, 2, 3, 4, 4, 5]
    pieces = [("en", 2.0), ("larged", 1.0)]
    found = on_tokens(pieces, TOKENS)
    assert found[3] == pytest.approx((2 * 2 + 6 * 1) / 8)
    assert found[[0, 1, 2, 4, 5]].tolist() == [0] * 5


def test_texts_that_stand_nowhere_in_the_response_do_not_count():
    assert on_tokens([("No", 9.0), ("", 3.0), ("heart", 1.0)], TOKENS).tolist() == [0, 0, 0, 0, 1, 0]


def test_the_second_of_two_equal_words_is_the_second_in_the_text():
    tokens = ("the", " heart", " and", " the", " lung")
    given_words = [("the", 0.0), ("heart", 0.0), ("the", 1.0)]
    assert on_tokens(given_words, tokens).tolist() == [0, 0, 0, 1, 0]


def test_true_effects_of_tokens_score_1_and_flat_ones_0():
    sample = known()
    assert token_ndcg(list(zip(TOKENS, EFFECTS.tolist(), strict=True)), sample) == pytest.approx(1)
    assert token_ndcg([(token, 1.0) for token in TOKENS], sample) == 0
    assert token_ndcg((), sample) == 0
    assert token_ndcg((), known(tokens=None, effects=None)) is None


def test_a_concept_that_a_method_does_not_list_has_the_score_0():
    sample = known()
    assert concept_ndcg(CONCEPTS, sample) == pytest.approx(1)
    assert concept_ndcg({"Left  Lung": 6.0, "both lungs": 6.0, "mediastinum": 1.0}, sample) == pytest.approx(
        1
    )
    assert concept_ndcg({"right lung": 1.0}, sample) < 0
    assert concept_ndcg({"left upper lung zone": 3.0}, sample) == 0


@pytest.mark.parametrize(
    ("concepts", "none"),
    [
        ({}, False),
        ({"left lung": 0.0, "right lung": -1.0}, True),
        ({"left lung": 0.1}, False),
        ({"none": 2.0, "left lung": 1.0}, True),
        ({"None": 1.0, "left lung": 1.0}, True),
        ({"none": 0.5, "left lung": 1.0}, False),
    ],
)
def test_a_method_says_none_with_no_concept_above_zero_or_by_name(concepts, none):
    assert says_none(concepts) is none


def test_where_no_concept_holds_a_tenth_of_the_drop_the_answer_is_none():
    outside = known(concepts=dict.fromkeys(CONCEPTS, 0.7))
    found = word_scores(Attribution(boxes=np.empty((0, 4)), concepts={"left lung": 0.0}), outside)
    assert found == {"abstention": 1.0}
    found = word_scores(Attribution(boxes=np.empty((0, 4)), concepts={"left lung": 1.0}), outside)
    assert found == {"abstention": 0.0}
    inside = word_scores(Attribution(boxes=np.empty((0, 4)), concepts=CONCEPTS), known())
    assert inside == {"concept_ndcg": pytest.approx(1)}


def test_an_attribution_without_words_has_no_score_of_them():
    assert word_scores(None, known()) == {}
    assert word_scores(Attribution(saliency=np.eye(4)), known()) == {}
    assert Heard.words_of(Attribution(saliency=np.eye(4)), None) is None


def test_samples_without_words_count_0_in_the_mean_of_a_method_that_has_some():
    outside = dict.fromkeys(CONCEPTS, 0.0)
    samples = [known(n) for n in range(4)] + [known(n, concepts=outside) for n in (4, 5)]
    full = list(zip(TOKENS, EFFECTS.tolist(), strict=True))
    heard = {samples[n].sample_id: Heard.of(full, CONCEPTS, samples[n]) for n in (0, 1)}
    heard["s4"] = Heard.of((), {"left lung": 0.0}, samples[4])
    found = aggregate(samples, heard, SETTINGS)
    assert found.token_ndcg.samples == 6
    assert found.token_ndcg.score.mean == pytest.approx(2 / 6)
    assert found.concept_ndcg.samples == 4
    assert found.concept_ndcg.score.mean == pytest.approx(2 / 4)
    assert (found.abstention.samples, found.abstention.score.mean) == (2, 0.5)


def test_names_that_are_no_concepts_of_the_benchmark_are_no_concepts():
    """A prompt of a detector, say: nothing is known of it."""
    phrase = Attribution(boxes=np.empty((0, 4)), concepts={"Both lungs are checked": 0.8})
    assert Heard.words_of(phrase, known()) is None
    assert word_scores(phrase, known()) == {}
    assert word_scores(
        replace(phrase, concepts={"None": 1.0}), known(concepts=dict.fromkeys(CONCEPTS, 0.0))
    ) == {"abstention": 1.0}


def test_a_method_of_tokens_alone_has_no_score_of_concepts_and_one_without_words_none_at_all():
    samples = [known(n) for n in range(3)]
    found = aggregate(samples, {"s0": Heard.of([("an", 1.0)], {}, samples[0])}, SETTINGS)
    assert found.token_ndcg is not None
    assert found.concept_ndcg is found.abstention is None
    assert aggregate(samples, {}, SETTINGS) is None


def test_score_and_evaluate_have_them_where_the_effects_are_known():
    benchmark = mb.load_benchmark("phantom", split="dev")
    part = replace(benchmark, samples=benchmark.samples[:12])
    true = [
        mb.Attribution(
            sample.sample_id,
            boxes=sample.boxes,
            tokens=list(zip(sample.tokens, sample.token_effects.tolist(), strict=True)),
            concepts=sample.concept_effects,
        )
        for sample in part.samples
    ]
    assert mb.score(true[0], part.samples[0])["token_ndcg"] == pytest.approx(1)
    report = mb.evaluate(true, part, nulls=False, resamples=100)
    assert report.words.token_ndcg.samples == 12
    assert report.words.token_ndcg.score.mean == pytest.approx(1)
    assert report.words.concept_ndcg.score.mean == pytest.approx(1)
    plain = [mb.Attribution(sample.sample_id, boxes=sample.boxes) for sample in part.samples]
    assert mb.evaluate(plain, part, nulls=False, resamples=100).words is None
    assert not {"token_ndcg", "concept_ndcg", "abstention"} & mb.score(plain[0], part.samples[0]).keys()


def test_a_score_that_is_no_number_says_nothing():
    nan = float("nan")
    tokens = ("Yes", ",", " yes")
    np.testing.assert_array_equal(on_tokens([("Yes", nan), ("yes", 2.0)], tokens), [0, 0, 2])
    sample = known()
    given = {"left lung": nan, "right lung": 1.0}
    assert concept_ndcg(given, sample) == concept_ndcg({"right lung": 1.0}, sample)
    assert not says_none(given)
    assert not says_none({"left lung": nan})
