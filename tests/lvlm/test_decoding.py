"""How an LVLM writes is said, and never inherited from a checkpoint's generation config."""

from __future__ import annotations

import json
import shutil

import pytest

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.decoding import most_tokens
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.render import Patient, render

IMAGES = [render(Patient.sample((20, number))).image for number in range(3)]
QUESTIONS = [prompt("mass", "reasoning"), prompt("nodule", "direct"), prompt("cardiomegaly", "reasoning")]

NEVER = (
    {"num_beams": 4},
    {"min_new_tokens": 6, "min_length": 400},
    {"return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True},
    {"prompt_lookup_num_tokens": 3},
    {"do_sample": True, "temperature": 5.0},
    {"stop_strings": ["e"]},
)
"""Settings that hold in neither way of decoding."""

PENALTIES = ({"repetition_penalty": 10.0}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": [318]})
"""The last one is of the token "No"."""


@pytest.fixture(scope="module")
def with_config(tmp_path_factory):
    """Opens the shipped Qwen2.5-VL with further settings in its generation config."""

    def opened(settings, **options):
        folder = shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], tmp_path_factory.mktemp("decoding") / "lvlm")
        file = folder / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        return HuggingFaceLVLM("lvlm", folder, **options)

    return opened


@pytest.fixture(scope="module")
def plain(with_config):
    return with_config({}).respond(IMAGES, QUESTIONS)


def named(settings):
    return ", ".join(settings)


def is_the_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.log_odds == pytest.approx(other.log_odds, abs=1e-4)


@pytest.mark.parametrize("settings", [*NEVER, *PENALTIES], ids=named)
def test_greedy_decoding_is_greedy_whatever_the_checkpoint_says(with_config, plain, settings):
    is_the_same(with_config(settings).respond(IMAGES, QUESTIONS), plain)


def test_of_the_settings_of_a_checkpoint_only_penalties_hold_for_its_own_decoding(with_config, plain):
    every = {name: value for settings in NEVER for name, value in settings.items()}
    is_the_same(with_config(every, decoding="checkpoint").respond(IMAGES, QUESTIONS), plain)


def test_a_penalty_holds_where_the_checkpoint_decodes_and_log_odds_are_of_before_it(with_config, plain):
    lvlm = with_config({"repetition_penalty": 10.0, "num_beams": 4}, decoding="checkpoint")
    said = lvlm.respond(IMAGES, QUESTIONS)
    assert [one.ids for one in said] != [one.ids for one in plain]
    assert said[0].log_odds is not None
    for image, question, written in zip(IMAGES[:2], QUESTIONS, said, strict=False):
        example = lvlm.encode(image, question, written)
        score = lvlm.scores(example, example.pixel_values[None], "verdict")[0].item()
        assert score == pytest.approx(written.log_odds, abs=1e-3)


def test_end_tokens_and_padding_are_the_checkpoints(with_config):
    own = json.loads((PHANTOM_LVLMS["phantom_qwen"] / "generation_config.json").read_text())
    for decoding in ("greedy", "checkpoint"):
        config = with_config({}, decoding=decoding).model.generation_config
        assert (config.eos_token_id, config.pad_token_id) == (own["eos_token_id"], own["pad_token_id"])
        assert (config.do_sample, config.num_beams) == (False, 1)


def test_an_end_token_that_is_not_special_is_no_part_of_the_response(with_config, plain):
    end = next(token for token in plain[0].ids[1:] if token != plain[0].ids[0])
    found = with_config({"eos_token_id": end, "pad_token_id": None}).respond(IMAGES, QUESTIONS)
    assert found[0].ids == plain[0].ids[: plain[0].ids.index(end)]
    assert all(end not in response.ids for response in found)


def test_end_tokens_that_are_not_numbers_are_an_error(with_config):
    for wrong in ("<|im_end|>", [3, "<|im_end|>"]):
        with pytest.raises(InputError, match=r"eos_token_id .*<\|im_end\|>.*give a number"):
            with_config({"eos_token_id": wrong})


def test_a_generation_config_that_cannot_be_read_is_an_error(tmp_path):
    folder = shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], tmp_path / "lvlm")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"lvlm/generation_config\.json: cannot be read"):
        HuggingFaceLVLM("lvlm", folder)


def test_a_response_is_as_long_as_its_mode_allows_and_in_the_papers_way_256_tokens():
    assert [most_tokens("greedy", mode) for mode in ("direct", "reasoning")] == [64, 512]
    assert [most_tokens("checkpoint", mode) for mode in ("direct", "reasoning")] == [256, 256]


@pytest.mark.parametrize(("decoding", "length"), [("greedy", 512), ("checkpoint", 256)])
def test_a_response_that_does_not_end_is_cut_where_its_decoding_says(with_config, decoding, length):
    lvlm = with_config({"eos_token_id": 3}, decoding=decoding)
    lvlm.chat_format.ends = frozenset()
    assert len(lvlm.generate(IMAGES[0], QUESTIONS[1]).ids) == length


def test_another_decoding_is_refused_before_the_weights_are_read():
    with pytest.raises(InputError, match="no decoding 'beam'; there are greedy, checkpoint"):
        HuggingFaceLVLM("lvlm", PHANTOM_LVLMS["phantom_qwen"], decoding="beam")
