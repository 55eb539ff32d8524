"""Token activation maps: the lens, the two steps that clean it, and whose words it looks for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.token_activation import (
    TokenActivationMap,
    question_tokens,
    rank_gaussian,
    without_interference,
)
from medfocus_bench.data.questions import MODES, prompt
from medfocus_bench.phantom.findings import FINDINGS
from tests.attribution.conftest import PATIENT, QUESTION
from tests.attribution.plain import (
    at_image,
    evidence_ap,
    plain_model,
    plain_pass,
    planted,
)

PLAIN = {"interference": False, "denoise": 1}


def asked(lvlm, question, **options):
    return TokenActivationMap(**options).explain(lvlm, lvlm.encode(PATIENT.image, question, "Yes.")).saliency


# -- the steps, one by one ---------------------------------------------------------------------------------


def test_a_map_that_earlier_words_explain_is_emptied():
    rng = np.random.default_rng(0)
    earlier = rng.random((20, 3))
    weights = np.array([0.2, 0.0, 1.4])
    explained = 2.5 * (earlier @ weights)
    assert np.allclose(without_interference(explained, earlier, weights), 0, atol=1e-12)


def test_the_interference_is_scaled_by_least_squares():
    rng = np.random.default_rng(1)
    activation, earlier, weights = rng.random(20), rng.random((20, 3)), rng.random(3)
    mean = earlier @ weights / weights.sum()
    (scale,), *_ = np.linalg.lstsq(mean[:, None], activation, rcond=None)
    expected = np.clip(activation - scale * mean, 0, None)
    assert np.allclose(without_interference(activation, earlier, weights), expected)


@pytest.mark.parametrize("earlier", [np.zeros((4, 0)), np.zeros((4, 2)), np.ones((4, 2))])
def test_words_without_weight_or_without_a_map_take_nothing_away(earlier):
    """Trap 21: 0/0 where nothing stands before the word, or nothing of it says the word."""
    activation = np.array([0.0, 1.0, 2.0, 3.0])
    weights = np.zeros(earlier.shape[1])
    assert np.array_equal(without_interference(activation, earlier, weights), activation)
    if not earlier.any():
        assert np.array_equal(without_interference(activation, earlier, weights + 1), activation)


def test_the_filter_is_a_gaussian_over_ranks():
    """The formula with a loop: sorted values, sigma the coefficient of variation, centred on the median."""
    values = np.random.default_rng(2).random((5, 7))
    padded = np.pad(values, 1, mode="reflect")
    filtered = rank_gaussian(values, 3)
    for row in range(5):
        for column in range(7):
            window = np.sort(padded[row : row + 3, column : column + 3].ravel())
            weights = np.exp(-((np.arange(9) - 4) ** 2) / (2 * (window.std() / window.mean()) ** 2))
            assert filtered[row, column] == pytest.approx(window @ weights / weights.sum())


def test_the_filter_takes_out_a_lone_peak_and_keeps_a_plateau():
    values = np.ones((8, 8))
    values[2, 2] = 3
    values[5:8, 5:8] = 3
    filtered = rank_gaussian(values, 3)
    assert filtered[2, 2] < 1.1
    assert filtered[6, 6] == pytest.approx(3)


@pytest.mark.parametrize("shape", [(8, 8), (1, 6), (1, 1)])
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_the_filter_of_a_flat_map_is_that_map(shape, level):
    """Trap 21: without variation the Gaussian over ranks is 0/0, without a mean so is its width."""
    flat = np.full(shape, level)
    assert np.allclose(rank_gaussian(flat, 3), flat)


# -- the lens ----------------------------------------------------------------------------------------------


def test_the_lens_is_the_models_own_logit_at_the_image_and_its_mean_over_the_response(lvlm, example):
    passed = plain_pass(lvlm, example)
    token = passed.ids[passed.prompt_length]
    expected = at_image(lvlm, passed, passed.logits[:, token]).clip(min=0)
    method = TokenActivationMap(**PLAIN)
    parts = [method.explain(lvlm, example, target=(n, n + 1)).saliency for n in range(len(example.answer))]
    assert np.allclose(parts[0], expected, atol=1e-3)
    assert np.allclose(method.explain(lvlm, example).saliency, np.mean(parts, axis=0), atol=1e-4)


def test_the_last_block_is_the_default_and_earlier_ones_differ(lvlm, example):
    default, *maps = (
        TokenActivationMap(layer=layer, words="question", centred=True).explain(lvlm, example).saliency
        for layer in (None, 3, 0)
    )
    assert np.array_equal(default, maps[0])
    assert not np.allclose(default, maps[1])


def test_the_question_and_the_response_so_far_are_the_earlier_words(lvlm):
    """The whole method written out for the last word of a response, which the question holds too."""
    question = "Is there a nodule. Yes or no."
    example = lvlm.encode(PATIENT.image, question, "Yes.")
    passed = plain_pass(lvlm, example)
    word = passed.prompt_length + 1
    token = passed.ids[word]
    positions, _ = question_tokens(lvlm, example)
    same = [position for position in positions if passed.ids[position] == token]
    before = [position for position in (*positions, word - 1) if position not in same]
    assert same
    assert passed.ids[before[-1]] != token
    earlier = [at_image(lvlm, passed, passed.logits[:, passed.ids[place]]).ravel() for place in before]
    weights = passed.logits[before, token].detach().numpy().clip(min=0)
    own = at_image(lvlm, passed, passed.logits[:, token]).ravel().clip(min=0)
    cleaned = without_interference(own, np.stack(earlier, 1).clip(min=0), weights)
    expected = rank_gaussian(cleaned.reshape(8, 8), 3)
    found = TokenActivationMap().explain(lvlm, example, target=(1, 2)).saliency
    assert np.allclose(found, expected, atol=1e-3)


# -- whose words -------------------------------------------------------------------------------------------


def test_the_words_of_the_finding_are_what_makes_a_question_this_one(lvlm):
    """Without a question mark all sentences count; without a word of its own a question counts whole."""
    asked = [(prompt(finding, mode), finding) for finding in FINDINGS for mode in MODES]
    asked += [("Find the nodule.", "nodule")]
    asked += [(question, question) for question in ("Is there any finding?", "Yes or no?")]
    decode = lvlm.processor.tokenizer.decode
    for question, words in asked:
        example = lvlm.encode(PATIENT.image, question, "Yes.")
        positions, content = question_tokens(lvlm, example)
        assert decode(example.ids[positions]).strip() == question
        assert decode(example.ids[content]).strip() == words


def test_an_empty_question_falls_back_on_all_text_after_the_image(lvlm):
    example = lvlm.encode(PATIENT.image, "", "Yes.")
    positions, content = question_tokens(lvlm, example)
    assert positions == content == list(range(int(example.image_positions[-1]) + 1, example.answer.start))


def test_the_image_knows_nothing_of_a_question_that_comes_after_it(lvlm):
    """Why the lens of "Yes" cannot be of a finding: it is one map whatever is asked."""
    questions = [prompt(finding, "direct") for finding in ("pneumothorax", "nodule")]
    answer = [asked(lvlm, question, words="response", **PLAIN) for question in questions]
    finding = [asked(lvlm, question, words="question", centred=True, **PLAIN) for question in questions]
    assert np.allclose(*answer, atol=1e-4 * answer[0].max())
    assert not np.allclose(*finding, atol=1e-2 * finding[0].max())


def test_both_is_the_mean_over_the_words_of_both(lvlm, example):
    _, content = question_tokens(lvlm, example)
    maps = {words: asked(lvlm, QUESTION, words=words, **PLAIN) for words in ("response", "question", "both")}
    counts = np.array([len(content), len(example.answer)])
    expected = (counts[0] * maps["question"] + counts[1] * maps["response"]) / counts.sum()
    assert np.allclose(maps["both"], expected, atol=1e-4)


def test_the_input_lens_reads_with_the_embeddings_of_the_prompt(lvlm, example):
    _, content = question_tokens(lvlm, example)
    trace = lvlm.trace(example)
    weight = plain_model(lvlm.key).get_input_embeddings().weight.detach()
    states = trace.last[example.image_positions]
    logits = states @ weight[example.ids[content]].T
    found = asked(lvlm, QUESTION, words="question", lens="input", **PLAIN)
    assert np.allclose(found, logits.clamp(min=0).mean(1).reshape(8, 8), atol=1e-3)
    if "gemma" in lvlm.key:  # whose embeddings are tied
        assert np.allclose(found, asked(lvlm, QUESTION, words="question", **PLAIN), atol=1e-3)


def test_candidates_are_words_and_blocks_with_the_input_lens_where_it_is_another(lvlm):
    options = list(TokenActivationMap().candidates(lvlm))
    assert {option["words"] for option in options} == {"response", "question", "both"}
    assert {option["layer"] for option in options} == {0, 1, 2, 3}
    assert {option["lens"] for option in options} == (
        {"output"} if "gemma" in lvlm.key else {"output", "input"}
    )
    assert len(options) == len({tuple(option.items()) for option in options})


# -- the method --------------------------------------------------------------------------------------------


def test_image_tokens_that_are_all_alike_explain_nothing(lvlm, example, monkeypatch):
    """Trap 21: rounding is not to make a map of a flat lens."""
    plain = lvlm.trace

    def alike(*args, **options):
        trace = plain(*args, **options)
        for layer, hidden in trace.hidden.items():
            positions = torch.arange(hidden.shape[1])
            positions[example.image_positions] = example.image_positions[0]
            trace.hidden[layer] = hidden[:, positions]
        return trace

    monkeypatch.setattr(lvlm, "trace", alike)
    assert not asked(lvlm, QUESTION, words="question", centred=True).any()


@pytest.mark.data
def test_untied_output_embeddings_do_not_know_words_that_are_never_written(qwen):
    """Why the input lens is there: the same words, the same hidden states."""
    samples = planted(qwen, 12)
    output, own = (
        evidence_ap(qwen, TokenActivationMap(words="question", lens=lens, centred=True, **PLAIN), samples)
        for lens in ("output", "input")
    )
    assert output < 0.2
    assert own > 0.5
