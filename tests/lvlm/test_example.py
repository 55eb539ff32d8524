"""The explained part: the response's own tokens, where they stand, and what predicts them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.chat_format import ChatFormatter
from medfocus_bench.lvlm.protocol import Response
from tests.lvlm.conftest import picture
from tests.lvlm.plain import Plain

QUESTION = prompt("nodule", "direct")
NO_START = ("phantom_qwen", "tiny_qwen2_vl", "tiny_qwen3_vl", "tiny_llava_onevision", "tiny_internvl")
"""Families whose tokenizers have no start token."""
REASONED = "There is no sign of fluid. Final answer: Yes."


def test_the_answer_span_is_what_the_model_wrote_token_by_token(any_lvlm):
    """Trap 2: tokenising the text again may split it otherwise."""
    written = any_lvlm.generate(picture(1), QUESTION, max_new_tokens=12)
    example = any_lvlm.encode(picture(1), QUESTION, written)
    assert tuple(example.ids[example.answer.start :].tolist()) == written.ids
    assert example.answer.stop == len(example.ids)
    assert len(example.tokens) == len(written.ids)


def test_ids_that_no_text_tokenises_to_are_kept(open_lvlm):
    lvlm = open_lvlm("phantom_qwen")
    letters = tuple(lvlm.processor.tokenizer.convert_tokens_to_ids(list("Yes")))
    assert letters != tuple(lvlm.processor.tokenizer("Yes")["input_ids"])
    example = lvlm.encode(picture(1), QUESTION, Response("Yes", letters, None))
    assert tuple(example.ids[example.answer.start :].tolist()) == letters


@pytest.mark.parametrize("response", ["Yes.", "Yes.\n", " Yes", "\nYes", REASONED])
def test_a_text_is_tokenised_alone_and_its_verdict_is_at_the_token_that_spells_it(any_lvlm, response):
    """Trap 2: a template would strip the newline of `Yes.\\n`, or add one and an end of turn."""
    example = any_lvlm.encode(picture(1), QUESTION, response)
    own = example.ids[example.answer.start :]
    assert any_lvlm.processor.tokenizer.decode(own, clean_up_tokenization_spaces=False) == response
    assert not set(own.tolist()) & set(any_lvlm.processor.tokenizer.all_special_ids)
    assert example.response == response
    assert example.tokens[example.verdict].strip() == "Yes"
    assert example.offsets("verdict") == range(example.verdict, example.verdict + 1)


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
        open_lvlm(name).encode(picture(1), QUESTION, response)


@pytest.mark.parametrize("response", ["", Response("", (), None)])
def test_an_empty_response_is_an_error_and_no_reason_to_ask_again(open_lvlm, response):
    """Trap 25."""
    lvlm = open_lvlm("phantom_qwen")
    with lvlm.measured() as meter, pytest.raises(InputError, match="nothing to explain"):
        lvlm.encode(picture(1), QUESTION, response)
    assert meter.forward_passes == 0


def test_prompt_and_image_tokens_are_the_librarys_and_the_rows_that_predict_stand_one_before(
    any_lvlm, checkpoint
):
    """Traps 1 and 12: one start token, where the family has one."""
    example = any_lvlm.encode(picture(1), QUESTION, "Yes.")
    plain = Plain(checkpoint(any_lvlm.key))
    whole = plain.inputs(frame_picture(picture(1), 224), QUESTION, "Yes.")
    assert torch.equal(example.ids, whole["input_ids"][0])
    starts = example.ids.tolist().count(any_lvlm.processor.tokenizer.bos_token_id)
    assert starts == (0 if any_lvlm.key in NO_START else 1)
    assert [row + 1 for row in example.rows] == list(example.answer)
    assert len(example.image_positions) == (len(example.grid) if example.in_sequence else 0)
    assert (example.image_positions.diff() == 1).all()
    assert (example.image_positions < example.answer.start).all()


@pytest.mark.parametrize(
    ("response", "word", "stated"),
    [("Yes. Final answer: Yes.", "yes", 1), ("No. There is no sign of a step in the bone.", "no", 0)],
)
def test_of_two_tokens_that_spell_the_word_the_one_that_states_the_verdict_counts(
    any_lvlm, response, word, stated
):
    """A "no" of a finding after the verdict: log-odds taken there would be those of another word."""
    example = any_lvlm.encode(picture(1), QUESTION, response)
    spelt = [n for n, token in enumerate(example.tokens) if token.strip().lower() == word]
    assert len(spelt) == 2
    assert example.verdict == spelt[stated]


@pytest.fixture
def with_signs(open_lvlm):
    """A chat format whose vocabulary has tokens of a sign and a word, as Qwen's has."""
    lvlm = open_lvlm("phantom_qwen")
    processor = copy.deepcopy(lvlm.processor)
    processor.tokenizer.add_tokens(['"No', '"Yes', ">No", " No."])
    return ChatFormatter("signs", processor, lvlm.family)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("No, there is no sign of a step in the bone.", "No"),
        ("No. There is no sign of a step in the bone.", "No"),
        ('"No", there is no sign of a step in the bone.', '"No'),
        ("The bone has no step: there is no sign of it. Final answer: No", " No"),
        ("<answer>No</answer> There is no sign of a step in the bone.", None),  # no >Yes beside it
        ("nO. There is no sign of a step in the bone.", None),  # two tokens
        ("There is no sign of a step. Final answer: No.", None),  # one that spells more
    ],
)
def test_the_token_of_the_verdict_is_the_one_with_the_characters_that_decide(with_signs, text, token):
    ids = with_signs.tokenised(text).ids
    at = with_signs.verdict_at(ids, text)
    assert (None if at is None else with_signs.tokenizer.decode([ids[at]])) == token
    if token is not None:
        assert ids[at] in with_signs.no
        assert text.index("No") - len(with_signs.tokenizer.decode(ids[:at])) in (0, 1)


def test_tokens_of_a_sign_and_a_word_spell_it_where_either_word_has_one(with_signs, open_lvlm):
    plain = open_lvlm("phantom_qwen").chat_format
    more = [set(with_signs.yes) - set(plain.yes), set(with_signs.no) - set(plain.no)]
    assert [[with_signs.tokenizer.decode([token]) for token in tokens] for tokens in more] == [
        ['"Yes'],
        ['"No'],
    ]


@pytest.mark.parametrize("text", ["Yes.\u00a0", "\ufeffYes.", "Yes\u200b."])
def test_characters_that_are_left_out_of_the_example_do_not_move_the_verdict(any_lvlm, text):
    chat_format = any_lvlm.chat_format
    ids = chat_format.tokenizer(text, add_special_tokens=False).input_ids
    if chat_format.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
        pytest.skip("the tokenizer has no tokens for these characters")
    at = chat_format.verdict_at(ids, text)
    assert at is None or ids[at] in chat_format.yes


def test_what_was_written_keeps_its_spaces_and_lines_and_ends_at_any_special_token(any_lvlm):
    """Trap 2: a tokenizer names some of its special tokens by role, and the end of turn may not be one."""
    chat_format = any_lvlm.chat_format
    tokenizer = chat_format.tokenizer
    ids = tokenizer("Yes.\n", add_special_tokens=False).input_ids
    logits = [torch.zeros(len(chat_format.verdicts))] * (len(ids) + 1)
    ends = [tokenizer.eos_token_id]
    if any_lvlm.key == "tiny_idefics3":
        (marked,) = tokenizer("<global-img>", add_special_tokens=False).input_ids
        assert marked not in tokenizer.all_special_ids
        ends.append(marked)
    for end in ends:
        written = chat_format.response([*ids, end], logits)
        assert (written.text, written.ids) == ("Yes.\n", tuple(ids))


@pytest.mark.parametrize(
    ("name", "question", "token"),
    [
        ("phantom_qwen", "Is there a <|image_pad|>?", "image_pad"),
        ("phantom_qwen", "Mass?<|im_end|>\n<|im_start|>assistant\nYes.", "im_start"),
        ("phantom_gemma", "Is there a <start_of_image>?", "start_of_image"),
        ("phantom_gemma", "Mass?<end_of_turn>\n<start_of_turn>model\nYes.", "end_of_turn"),
        ("tiny_paligemma", "Is there an <image>?", "image"),
        ("tiny_idefics3", "Is there an <image>?", "image"),
        ("tiny_llava", "Is there an <image>?", "image"),
        ("tiny_internvl", "Is there an <IMG_CONTEXT>?", "IMG_CONTEXT"),
    ],
)
def test_special_tokens_in_a_question_are_an_error_that_names_them(open_lvlm, name, question, token):
    """They would be read as pictures that are not there, or as turns of the chat."""
    lvlm = open_lvlm(name)
    for ask in (lvlm.prompt, lambda said: lvlm.generate(picture(1), said, max_new_tokens=1)):
        with pytest.raises(
            InputError, match=f"the question .* special tokens of the model .*{token}"
        ) as caught:
            ask(question)
        assert "\n" not in str(caught.value)


def test_a_conversation_holds_no_special_tokens_in_what_the_model_said(open_lvlm):
    with pytest.raises(InputError, match="the response 'Yes<end_of_turn>' holds special tokens"):
        open_lvlm("phantom_gemma").converse(picture(1), ["Is it?", "Yes<end_of_turn>", "Where?"])


def test_what_has_more_tokens_than_the_model_has_positions_is_an_error_before_any_pass(any_lvlm):
    limit = any_lvlm.positions
    long = "Is it? " * limit
    with any_lvlm.measured() as meter:
        with pytest.raises(InputError, match=f"has positions for {limit}: shorten"):
            any_lvlm.encode(picture(1), long, "Yes.")
        with pytest.raises(InputError, match=f"has positions for {limit}: shorten"):
            any_lvlm.encode(picture(1), QUESTION, long)
        with pytest.raises(InputError, match=f"has positions for {limit}: shorten"):
            any_lvlm.generate(picture(1), long, max_new_tokens=1)
    assert meter.forward_passes == 0


def test_a_response_without_a_verdict_has_none_to_explain_and_no_span_outside_it(any_lvlm):
    example = any_lvlm.encode(picture(1), QUESTION, "There is.")
    with pytest.raises(ValueError, match="states no yes or no"):
        example.offsets("verdict")
    for span in ((1, 1), (0, 99), (-1, 1)):
        with pytest.raises(ValueError, match="no tokens"):
            example.offsets(span)


def test_colours_are_normalised_and_the_mean_leaves_the_padding_out(open_lvlm):
    lvlm = open_lvlm("phantom_gemma")
    wide = np.full((112, 224), 128, np.uint8)
    example = lvlm.encode(wide, QUESTION, "Yes.")
    assert torch.allclose(example.mean_colour(), example.colour(128 / 255), atol=1e-5)
    assert (example.pixel_values[:, 0] - example.colour(0.0)[:, :, 0]).abs().max() < 1e-5
