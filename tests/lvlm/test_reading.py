"""What is explained: the response's own tokens, where they stand, and what predicts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.protocol import Response
from tests.lvlm.conftest import picture
from tests.lvlm.plain import Plain

QUESTION = prompt("nodule", "direct")
REASONED = "There is no sign of fluid. Final answer: Yes."


def test_the_answer_span_is_what_the_model_wrote_token_by_token(any_lvlm):
    """Trap 2: tokenising the text again may split it otherwise."""
    written = any_lvlm.generate(picture(1), QUESTION, max_new_tokens=12)
    reading = any_lvlm.read(picture(1), QUESTION, written)
    assert tuple(reading.ids[reading.answer.start :].tolist()) == written.ids
    assert reading.answer.stop == len(reading.ids)
    assert len(reading.tokens) == len(written.ids)


def test_ids_that_no_text_tokenises_to_are_kept(open_lvlm):
    lvlm = open_lvlm("phantom_qwen")
    letters = tuple(lvlm.processor.tokenizer.convert_tokens_to_ids(list("Yes")))
    assert letters != tuple(lvlm.processor.tokenizer("Yes")["input_ids"])
    reading = lvlm.read(picture(1), QUESTION, Response("Yes", letters, None))
    assert tuple(reading.ids[reading.answer.start :].tolist()) == letters


@pytest.mark.parametrize("response", ["Yes.", "Yes.\n", " Yes", "\nYes", REASONED])
def test_a_text_is_tokenised_alone_and_comes_back_unchanged(any_lvlm, response):
    """Trap 2: a template would strip the newline of `Yes.\\n`, or add one and an end of turn."""
    reading = any_lvlm.read(picture(1), QUESTION, response)
    own = reading.ids[reading.answer.start :]
    assert any_lvlm.processor.tokenizer.decode(own, clean_up_tokenization_spaces=False) == response
    assert not set(own.tolist()) & set(any_lvlm.processor.tokenizer.all_special_ids)
    assert reading.response == response


@pytest.mark.parametrize(
    ("name", "response", "said"),
    [
        ("phantom_qwen", "Yes.<|im_end|>", "special tokens"),
        ("phantom_gemma", "Yes.<end_of_turn>", "special tokens"),
        ("phantom_qwen", "E\u0301panchement: Yes.", "cannot be written"),
        ("phantom_gemma", "Yes\u2581.", "cannot be written"),
    ],
)
def test_a_text_that_its_tokens_do_not_spell_is_an_error(open_lvlm, name, response, said):
    with pytest.raises(InputError, match=said):
        open_lvlm(name).read(picture(1), QUESTION, response)


@pytest.mark.parametrize("response", ["", Response("", (), None)])
def test_an_empty_response_is_an_error_and_no_reason_to_ask_again(open_lvlm, response):
    """Trap 25."""
    lvlm = open_lvlm("phantom_qwen")
    with lvlm.measured() as meter, pytest.raises(InputError, match="nothing to explain"):
        lvlm.read(picture(1), QUESTION, response)
    assert meter.forward_passes == 0


def test_the_prompt_ends_where_the_response_begins(any_lvlm, checkpoint):
    """Trap 12, too: one start token, where the family has one."""
    reading = any_lvlm.read(picture(1), QUESTION, "Yes.")
    plain = Plain(checkpoint(any_lvlm.key))
    whole = plain.inputs(frame_picture(picture(1), 224), QUESTION, "Yes.")
    assert torch.equal(reading.ids, whole["input_ids"][0])
    starts = reading.ids.tolist().count(any_lvlm.processor.tokenizer.bos_token_id)
    assert starts == (0 if "qwen" in any_lvlm.key else 1)


def test_the_rows_that_predict_the_response_stand_one_before_it(any_lvlm):
    """Trap 1."""
    reading = any_lvlm.read(picture(1), QUESTION, "Yes.\n")
    assert [row + 1 for row in reading.rows] == list(reading.answer)


def test_image_positions_are_those_of_the_grid(any_lvlm):
    reading = any_lvlm.read(picture(1), QUESTION, "Yes.")
    assert len(reading.image_positions) == reading.grid.rows * reading.grid.columns
    assert (reading.image_positions.diff() == 1).all()
    assert reading.image_positions[-1] < reading.answer.start


@pytest.mark.parametrize("response", ["Yes.", "Yes.\n", REASONED])
def test_the_verdict_is_the_last_token_that_spells_it(any_lvlm, response):
    reading = any_lvlm.read(picture(1), QUESTION, response)
    assert reading.tokens[reading.verdict].strip() == "Yes"
    assert reading.offsets("verdict") == range(reading.verdict, reading.verdict + 1)


def test_a_response_without_a_verdict_has_none_to_explain(any_lvlm):
    reading = any_lvlm.read(picture(1), QUESTION, "There is.")
    with pytest.raises(ValueError, match="states no yes or no"):
        reading.offsets("verdict")


def test_colours_are_normalised_and_the_mean_leaves_the_padding_out(open_lvlm):
    lvlm = open_lvlm("phantom_gemma")
    wide = np.full((112, 224), 128, np.uint8)
    reading = lvlm.read(wide, QUESTION, "Yes.")
    assert torch.allclose(reading.mean_colour(), reading.colour(128 / 255), atol=1e-5)
    assert (reading.canvas[:, 0] - reading.colour(0.0)[:, :, 0]).abs().max() < 1e-5
