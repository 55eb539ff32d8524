"""The shipped checkpoints through the adapter: loading, prompts, batches, log-odds."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from medfocus_bench.answers import log_odds, parse_verdict
from medfocus_bench.data.questions import MODES, prompt
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.lvlm.trace import recorded_logits
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.render import Patient, render

QUESTIONS = [
    prompt(finding, mode) for finding in ("pacemaker", "pleural effusion", "rib lesion") for mode in MODES
]


@pytest.fixture(scope="module", params=["phantom_qwen", "phantom_gemma"])
def lvlm(request):
    return load_lvlm(request.param)


@pytest.fixture(scope="module")
def images():
    return [render(Patient.sample((77, number))).image for number in range(len(QUESTIONS))]


@pytest.mark.parametrize("key", PHANTOM_LVLMS)
def test_shipped_checkpoints_are_ordinary_folders_of_the_real_classes(key):
    config = json.loads((PHANTOM_LVLMS[key] / "config.json").read_text())
    family = "Qwen2_5_VL" if "qwen" in key else "Gemma3"
    assert config["architectures"] == [f"{family}ForConditionalGeneration"]
    assert "auto_map" not in config
    (weights,) = PHANTOM_LVLMS[key].glob("*.safetensors")
    assert weights.stat().st_size < 6e6


def test_every_response_arrives_at_a_verdict_with_log_odds_of_its_sign(lvlm, images):
    for response in lvlm.respond(images, QUESTIONS):
        verdict = parse_verdict(response.text)
        assert verdict in ("yes", "no")
        assert (response.log_odds > 0) == (verdict == "yes")


def test_of_what_is_written_the_logits_of_the_verdicts_alone_are_kept(lvlm, images):
    """Trap 11: those of the whole vocabulary are gigabytes for a batch of reasoning."""
    inputs = lvlm.processor(
        text=[lvlm.prompt(QUESTIONS[1])], images=[[frame_picture(images[0], 224)]], return_tensors="pt"
    )
    words = lvlm.chat_format.verdicts
    with recorded_logits(lvlm.model, lvlm.head, words) as steps:
        result = lvlm.model.generate(
            **inputs, max_new_tokens=64, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    assert len(steps) == len(result.logits) > 2
    assert all(step.shape == (1, len(words)) for step in steps)
    assert torch.allclose(torch.cat(steps), torch.cat(result.logits)[:, words].float(), atol=1e-5)
    assert not lvlm.model.get_output_embeddings()._forward_pre_hooks
    (response,) = lvlm.respond(images[:1], QUESTIONS[1:2])
    stated = lvlm.chat_format.verdict_at(response.ids, response.text)
    assert response.log_odds == pytest.approx(
        log_odds(result.logits[stated][0], lvlm.chat_format.yes, lvlm.chat_format.no), abs=1e-5
    )


@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_log_odds_of_what_a_bfloat16_model_writes_are_those_of_its_scores(key, images):
    """Trap 11: the model's own head rounds logits to steps of up to 0.06 before anyone can cast them."""
    lvlm = load_lvlm(key, dtype="bfloat16")
    direct = list(zip(images, QUESTIONS[::2], strict=False))
    responses = lvlm.respond(*zip(*direct, strict=True))
    for (image, question), response in zip(direct, responses, strict=True):
        example = lvlm.encode(image, question, response)
        scored = lvlm.scores(example, example.pixel_values[None], "verdict").item()
        assert response.log_odds == pytest.approx(scored, abs=1e-2)


@pytest.mark.parametrize("shape", [(100, 300), (300, 100, 3), (224, 224)])
def test_pictures_are_framed_with_their_aspect_and_even_padding(shape):
    picture = np.asarray(frame_picture(np.full(shape, 200, np.uint8), 224))
    left, top, right, bottom = Frame(shape[1], shape[0]).content
    assert picture.shape == (224, 224, 3)
    assert (picture[top:bottom, left:right] == 200).all()
    assert picture.sum() == 200 * 3 * (right - left) * (bottom - top)


def test_pictures_are_resized_by_bicubic_interpolation():
    small = np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)
    frame = Frame(90, 60)
    left, top, right, bottom = frame.content
    shown = np.asarray(frame_picture(small, 224))[top:bottom, left:right, 0]
    resized = Image.fromarray(small).resize(frame.content_size, Image.Resampling.BICUBIC)
    assert np.array_equal(shown, np.asarray(resized))


@pytest.mark.parametrize("name", ["gpt", "no/such/folder"])
def test_an_unknown_lvlm_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(InputError, match="phantom_qwen_twin"):
        load_lvlm(name)


def test_without_torch_the_error_says_which_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "medfocus_bench.lvlm.adapter", None)
    with pytest.raises(InputError, match=r"medfocus-bench\[attribution\]"):
        load_lvlm("phantom_qwen")


def test_a_picture_is_preprocessed_once_however_often_it_is_read(lvlm, images, monkeypatch):
    """And another picture, or the same one turned, is preprocessed anew."""
    calls, processor = [], lvlm.processor.image_processor
    plain = processor._preprocess
    monkeypatch.setattr(processor, "_preprocess", lambda *a, **k: calls.append(1) or plain(*a, **k))
    image = images[0][:, ::-1].copy()
    first = lvlm.encode(image, QUESTIONS[0], "Yes.")
    again = lvlm.encode(image.copy(), "Describe it.", "No.")
    assert torch.equal(first.pixel_values, again.pixel_values)
    assert len(calls) == 1
    turned = lvlm.encode(image[::-1].copy(), QUESTIONS[0], "Yes.")
    assert len(calls) == 2
    assert not torch.equal(first.pixel_values, turned.pixel_values)
