"""float16 that overflows is an error in a sentence: never an empty response, never a map of NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.cli.main import cli
from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.finite import check_finite
from medfocus_bench.lvlm.protocol import NotFiniteError
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm.checkpoints import save_overflowing

QUESTION = prompt("nodule", "direct")
IMAGE = render(Patient.sample((21, 0))).image
SAID = (
    "huge: the (logits|hidden states that predict the response) are not finite numbers, which float16 cannot "
    r"hold: load it in bfloat16 or float32 \(--dtype\)"
)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A folder whose hidden states go beyond float16's 65,504."""
    return save_overflowing(tmp_path_factory.mktemp("overflowing") / "huge")


@pytest.fixture(scope="module")
def half(huge):
    return load_lvlm(huge, dtype="float16")


def test_the_weights_themselves_fit_into_float16(half):
    assert all(weight.isfinite().all() for weight in half.model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_a_wider_type_it_answers_as_the_model_it_was_made_of(huge, open_lvlm, dtype):
    expected = open_lvlm("phantom_qwen", dtype=dtype).generate(IMAGE, QUESTION)
    found = load_lvlm(huge, dtype=dtype).generate(IMAGE, QUESTION)
    assert found.text == expected.text
    assert found.log_odds == pytest.approx(expected.log_odds, abs=0.01 if dtype == "float32" else 0.5)


def test_in_float16_writing_is_an_error_and_no_empty_response(half):
    with pytest.raises(NotFiniteError, match=SAID):
        half.generate(IMAGE, QUESTION)
    with pytest.raises(NotFiniteError, match=SAID):
        half.respond([IMAGE, IMAGE], [QUESTION, prompt("mass", "reasoning")], max_new_tokens=4)
    with pytest.raises(NotFiniteError, match=SAID):
        half.log_probs([IMAGE], QUESTION, "Yes.")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("occlusion", {"cells": 1}),
        ("rise", {"masks": 1}),
        ("integrated-gradients", {"steps": 1}),
        ("grad-cam", {}),
        ("gradient-weighted-attention", {}),
        ("attention-rollout", {}),
        ("token-activation-map", {}),
        ("lrp", {}),
    ],
)
def test_in_float16_no_method_makes_a_map(half, name, settings):
    example = half.encode(IMAGE, QUESTION, "Yes.")
    with pytest.raises(NotFiniteError, match=SAID):
        load_method(name, **settings).explain(half, example)


def test_gradients_that_overflow_where_the_pass_does_not_are_an_error(open_lvlm):
    lvlm = open_lvlm("phantom_qwen", dtype="float16")
    example = lvlm.encode(IMAGE, QUESTION, "Yes.")
    trace = lvlm.trace(example, hidden=[1], gradients=True)
    value = lvlm.objective(example, trace)
    assert np.isfinite(value.item())
    with pytest.raises(
        NotFiniteError, match="phantom_qwen: the gradients are not finite numbers, which float16"
    ):
        lvlm.gradients(value * 1e9, [trace.hidden[1]])


@pytest.mark.parametrize(
    ("dtype", "way_out"),
    [
        (torch.float16, r"which float16 cannot hold: load it in bfloat16 or float32 \(--dtype\)"),
        (torch.bfloat16, r"in bfloat16: load it in float32 \(--dtype\)"),
        (torch.float32, "even in float32: its weights are damaged, fetch the checkpoint again"),
    ],
)
def test_the_way_out_fits_the_type(dtype, way_out):
    with pytest.raises(NotFiniteError, match=f"^a: the logits are not finite numbers, {way_out}$"):
        check_finite([torch.zeros(2), torch.tensor([1.0, torch.inf])], "the logits", "a", dtype)
    check_finite(torch.zeros(2), "the logits", "a", dtype)


def test_on_the_command_line_it_is_one_sentence_that_names_the_picture_and_status_2(huge, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "chest.png")
    words = ["attribute", "--image", str(tmp_path / "chest.png"), "--question", QUESTION, "--lvlm", str(huge)]
    words += ["--method", "grad-cam", "--dtype", "float16", "--out", str(tmp_path / "look")]
    run = CliRunner().invoke(cli, words)
    assert run.exit_code != 0
    assert isinstance(run.exception, Exception)
    assert str(run.exception).startswith("chest.png: huge: the logits are not finite numbers, which float16")
    assert not (tmp_path / "look").exists()
    # A given response needs no writing: the method itself then fails, and nothing is left to show.
    run = CliRunner().invoke(cli, [*words, "--response", "Yes."])
    assert run.exit_code == 2
    assert "grad-cam: huge: the hidden states that predict the response are not finite numbers" in run.output
