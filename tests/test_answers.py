"""The verdict in a text, and log-odds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfocus_bench.answers import log_odds, parse_verdict

YES = [
    "Yes",
    "yes.",
    "Yes\n",
    "YES!",
    "**Yes**",
    '"Yes."',
    "Yes, there is a small right pleural effusion.",
    "No effusion is seen, but the heart is enlarged. Final answer: Yes.",
    "There is no fracture. There is an opacity. The answer is yes.",
    "Step 1: the lungs are clear. Step 2: no effusion.\nAnswer: **Yes**",
    "Therefore, the answer would be: yes",
    "The heart is large.\nSo yes.",
    "The final answer is $\\boxed{Yes}$.",
    "Final answer: No. Wait, I missed the apex. Final answer: Yes.",
    "Let me think. No? Look again.\n\nYes.",
    "The answer is (yes).",
    "The silhouette is wide. Conclusion: yes, cardiomegaly is present.",
    "Yes - the heart is enlarged.",
    "Yes \u2013 the heart is enlarged.",
    "Yes\u2014the heart is enlarged.",
    "The heart is large, the lungs are not clear.\nTherefore, $\\boxed{Yes}$.",
    "The final answer is $\\boxed{\\text{Yes}}$.",
    "<think>No effusion.</think>\n<answer>Yes</answer>",
    "The answer to the question is yes.",
    "The answer is therefore, yes.",
    "Based on the image, the answer is most likely yes.",
]
NO = [
    "No",
    "no.",
    "No\n",
    "No, the lungs are clear.",
    "Yes-men aside, the lungs are clear. Final answer: No.",
    "There is evidence of a device. The answer is no.",
    "Yes. On a second look there is none. Final answer: No",
    "The lungs are clear. No.",
    "Answer: No, there is no sign of it.",
    "No - the lungs are clear.",
    "<think>Is it? Yes.</think><answer>No</answer>",
    "The answer to this question is likely no.",
]
NEITHER = [
    "",
    "   ",
    "No effusion is seen.",
    "There is no evidence of pneumothorax in the image.",
    "I cannot tell.",
    "Answer yes or no.",
    "The answer is yes or no.",
    "The answer is yes/no.",
    "Noted. Yesterday's film is not at hand.",
    "Unknown",
    "maybe yes maybe",
    "The answer is not yes.",
    "No-one saw this before.",
    "The answer is likely yes or no.",
]


@pytest.mark.parametrize("text", YES)
def test_a_yes_is_found(text):
    assert parse_verdict(text) == "yes"


@pytest.mark.parametrize("text", NO)
def test_a_no_is_found(text):
    assert parse_verdict(text) == "no"


@pytest.mark.parametrize("text", NEITHER)
def test_a_text_without_a_conclusion_has_no_verdict(text):
    """Trap 14: a regex for "no" would call each of these a no."""
    assert parse_verdict(text) is None


def test_every_published_answer_has_the_verdict_of_its_place(real_data):
    records = json.loads((real_data / "medground" / "direct.json").read_text())
    for record in records:
        assert parse_verdict(record["prediction_direct"]) == "yes"
        assert parse_verdict(record["prediction_edited_direct"]) == "no"
        assert parse_verdict(record["prediction_edited_kept_direct"]) == "yes"
        assert parse_verdict(record["prediction_edited_kept_normal_direct"]) == "yes"


@given(st.text(max_size=400))
def test_no_text_breaks_the_parser(text):
    assert parse_verdict(text) in ("yes", "no", None)


@pytest.mark.parametrize(
    "unit",
    [
        "answer is ",
        "no ",
        "yes, ",
        "final answer: (",
        "(((",
        "\n",
        "answer : : :",
        "boxed",
        "<a>",
        "answer to the question ",
    ],
)
def test_long_repetitive_text_is_parsed_in_linear_time(unit):
    parse_verdict(unit * (100_000 // len(unit)))


@given(st.text(max_size=60), st.sampled_from(["Yes", "No"]))
def test_a_final_answer_outweighs_whatever_came_before(before, verdict):
    assert parse_verdict(f"{before}\nFinal answer: {verdict}.") == verdict.lower()


def test_log_odds_add_the_probabilities_of_all_spellings():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4]))
    assert log_odds(logits, yes=[0, 2], no=[1]) == pytest.approx(np.log(0.4 / 0.2), abs=1e-6)
    assert log_odds(logits + 50, yes=[0, 2], no=[1]) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize(("yes", "no"), [([], [1]), ([0], []), ([3], [1])])
def test_log_odds_need_finite_logits_of_both(yes, no):
    with pytest.raises(ValueError, match="finite logits"):
        log_odds([0.0, 1.0, 2.0, np.nan], yes, no)
