"""Probabilities of the response: float32, equal to a full pass, and without the memory of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.half_products import SLICE
from medfocus_bench.lvlm.head import OutputHead
from tests.lvlm.checkpoints import save_gemma
from tests.lvlm.conftest import picture
from tests.lvlm.plain import Plain

QUESTION = prompt("nodule", "reasoning")
RESPONSES = ["Yes.", "Both lungs are searched. There is a small round opacity. Final answer: Yes.\n"]


@pytest.mark.parametrize("response", RESPONSES)
def test_log_probs_are_those_of_a_plain_pass_with_all_logits(any_lvlm, checkpoint, response):
    """Traps 1 and 11; for PaliGemma also trap 7: its processor marks a suffix itself."""
    images = [picture(seed, 224, 160) for seed in range(3)]
    ours = torch.from_numpy(any_lvlm.log_probs(images, QUESTION, response))
    plain = Plain(checkpoint(any_lvlm.key))
    for image, own in zip(images, ours, strict=True):
        theirs = plain.log_probs(frame_picture(image, 224), QUESTION, response, own.shape[0])
        assert torch.allclose(own, theirs, atol=1e-5, rtol=0)


def test_token_log_odds_and_log_probs_say_the_same(any_lvlm):
    images = [picture(seed, 224, 160) for seed in range(2)]
    odds = any_lvlm.token_log_odds(images, QUESTION, RESPONSES[0]).astype(float)
    log_probs = any_lvlm.log_probs(images, QUESTION, RESPONSES[0])
    assert -np.logaddexp(0, -odds) == pytest.approx(log_probs, abs=1e-5)


def test_with_bfloat16_weights_scores_differ_where_bfloat16_logits_tie(open_lvlm):
    """Trap 11."""
    lvlm = open_lvlm("phantom_qwen", dtype="bfloat16")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    pixel_values = example.pixel_values + 0.02 * torch.randn(12, 1, 16, 16).repeat_interleave(
        14, 2
    ).repeat_interleave(14, 3)
    scores = lvlm.token_scores(example, pixel_values)[:, 0]
    with torch.inference_mode():
        rows = next(lvlm._row_batches(example, pixel_values))[:, 0]
        assert rows.dtype == torch.bfloat16
        rounded = lvlm.model.lm_head(rows)[:, example.ids[example.answer.start]]
    assert scores.dtype == torch.float32
    assert len(scores.unique()) == len(rows.unique(dim=0)) == len(scores)
    assert len(rounded.unique()) < len(scores)


def _others(logits, ids):
    """Logits (..., rows, vocabulary) without that of ids[t] at row t."""
    return logits.clone().scatter(-1, ids.expand(logits.shape[:-1])[..., None], -torch.inf)


def test_the_log_odds_of_a_token_that_is_all_but_certain_are_exact():
    linear = torch.nn.Linear(1, 3, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([[0.0], [25.0], [1.0]]))
    head, hidden, ids = OutputHead(linear, None), torch.ones(1, 1), torch.tensor([1])
    assert float(head.log_probs(hidden, ids)) == 0.0
    assert float(head.own_log_odds(hidden, ids)) == pytest.approx(
        25 - float(torch.tensor([0.0, 1.0]).logsumexp(0))
    )


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("bias", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_every_logit_is_computed_in_float32_and_in_slices_whatever_the_weights_are(softcap, bias, dtype):
    """Trap 11: products that are made in the weights' dtype are rounded before they can be cast."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(32, 5000, bias=bias).requires_grad_(False).to(dtype)
    hidden, ids = (torch.randn(2, 400, 32) * 4).to(dtype), torch.randint(5000, (400,))
    exact = hidden.double() @ linear.weight.double().T + (linear.bias.double() if bias else 0)
    exact = exact if softcap is None else softcap * torch.tanh(exact / softcap)
    head = OutputHead(linear, softcap)
    wanted = exact[:, range(400), ids]
    odds = exact[..., ids[:2]].logsumexp(-1) - exact[..., ids[2]]
    for found, expected in (
        (head.logits(hidden, ids), exact[..., ids]),
        (head.own_logits(hidden, ids), wanted),
        (head.log_probs(hidden, ids), wanted - exact.logsumexp(-1)),
        (head.log_odds(hidden, ids[:2], ids[2:3]), odds),
        (head.own_log_odds(hidden, ids), wanted - _others(exact, ids).logsumexp(-1)),
    ):
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_gradient_in_slices_is_that_of_all_logits(softcap, dtype):
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 5000, bias=True).requires_grad_(False).to(dtype)
    head = OutputHead(linear, softcap)
    hidden, ids = (torch.randn(3, 400, 8) * 4).to(dtype), torch.randint(5000, (400,))
    share = torch.randn(3, 400)
    ours, plain = (hidden.clone().requires_grad_() for _ in range(2))
    logits = functional.linear(plain.float(), linear.weight.float(), linear.bias.float())
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    scores, expected = head.log_probs(ours, ids), functional.log_softmax(logits, -1)[:, range(400), ids]
    assert torch.allclose(scores, expected, atol=1e-5)
    for leaf, value in ((ours, scores), (plain, expected)):
        (value * share).sum().backward()
        assert leaf.grad.dtype == dtype
    assert torch.allclose(
        ours.grad.float(), plain.grad.float(), atol=1e-5, rtol=8e-3 * (dtype != torch.float32)
    )
    with torch.inference_mode():
        assert torch.equal(head.log_probs(hidden, ids), scores.detach())


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_second_derivative_in_slices_is_that_of_all_logits(softcap):
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 5000, bias=True).requires_grad_(False)
    ours, plain = (torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    ids, found = torch.randint(5000, (400,)), []
    for leaf, score in (
        (ours.requires_grad_(), lambda rows: OutputHead(linear, softcap).log_probs(rows, ids)),
        (plain.requires_grad_(), lambda rows: _plain_log_probs(linear(rows), softcap, ids)),
    ):
        (slopes,) = torch.autograd.grad(score(leaf).sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad((slopes**2).sum(), leaf)[0])
    assert found[0].any()
    assert torch.allclose(*found, atol=1e-4)


def _plain_log_probs(logits, softcap, ids):
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return functional.log_softmax(logits, -1)[range(len(ids)), ids]


def test_the_graph_of_log_probs_holds_no_slice_of_the_vocabulary():
    """Trap 11 under autograd: 588 MB in place of 86 for 8 x 62 tokens of a real vocabulary."""
    linear = torch.nn.Linear(8, 50_000, bias=False).requires_grad_(False)
    hidden, ids = torch.randn(2, 30, 8, requires_grad=True), torch.randint(50_000, (30,))
    held = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda kept: held.append(kept.numel()) or kept, lambda kept: kept
    ):
        OutputHead(linear, 3.0).log_probs(hidden, ids).sum().backward()
    assert sum(held) <= 2 * hidden.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_short_answer_copies_no_more_of_the_vocabulary_than_a_slice(dtype):
    """2.5 GiB in float32 at Gemma's size, for two tokens; weights that are float32 are not copied at all."""
    linear = torch.nn.Linear(256, 50_000, bias=False).requires_grad_(False).to(dtype)
    parts = [weight for _, _, weight in OutputHead(linear, None).slices(torch.randn(2, 256))]
    assert sum(map(len, parts)) == 50_000
    assert max(part.numel() for part in parts) <= (SLICE if dtype == torch.bfloat16 else 50_000 * 256)
    assert (parts[0].data_ptr() == linear.weight.data_ptr()) == (dtype == torch.float32)


def test_an_example_that_was_made_in_inference_mode_can_be_differentiated(open_lvlm):
    lvlm = open_lvlm("phantom_qwen")
    with torch.inference_mode():
        held = lvlm.encode(picture(1), QUESTION, "Yes.")
    usual = lvlm.encode(picture(1), QUESTION, "Yes.")
    found, expected = (lvlm.pixel_gradients(each, usual.pixel_values[None])[1] for each in (held, usual))
    assert torch.equal(found, expected)


_MEMORY = """
import json, re, sys
from pathlib import Path
import numpy as np
import torch
from medfocus_bench.lvlm.registry import load_lvlm

torch.set_num_threads(1)
question, response = "Is there evidence of nodule in the image? " * 3, "Final answer: Yes. " * 12
lvlm = load_lvlm(sys.argv[1])
images = [np.random.default_rng(n).integers(0, 255, (224, 224), dtype=np.uint8) for n in range(8)]
example = lvlm.encode(images[0], question, response)
two = torch.stack([example.pixel_values] * 2)
lvlm.pixel_gradients(lvlm.encode(images[0], "Is it?", "Yes."), two[:1])

def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def peak(function):
    Path("/proc/self/clear_refs").write_text("5")
    columns = function().shape[1]
    return memory("VmHWM") - before, columns

@torch.inference_mode()
def body():
    examples = [lvlm.encode(image, question, response) for image in images]
    return lvlm._last_hidden(examples[0], torch.stack([example.pixel_values for example in examples]))

def body_gradient():
    leaf = two.clone().requires_grad_()
    last = lvlm._last_hidden(example, leaf)
    torch.autograd.grad(last.sum(), leaf)
    return last

def pixel_gradients():
    return lvlm.pixel_gradients(example, two)[1].flatten(1)

before = memory("VmRSS")
ways = (body, lambda: lvlm.log_probs(images, question, response), body_gradient, pixel_gradients)
print(json.dumps([peak(way) for way in ways]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_scores_and_gradients_need_little_more_memory_than_the_body_with_a_real_vocabulary(tmp_path):
    """Trap 11: at 8 pictures and 262,208 words the response's float32 logits alone would take 500 MB.

    Both read 8 pictures; one makes the pass through the body without any logits, the other scores the
    response. Then the gradients at the pixels of 2: of the body's output alone, and of the response's score.
    Peaks of the resident memory, above that of the loaded model, in a process of their own.
    """
    folder = save_gemma(tmp_path / "gemma", vocabulary=262_208)
    run = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(folder)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed leaves the process at once
        check=True,
        capture_output=True,
        text=True,
    )
    (body, length), (scored, tokens), (body_gradient, _), (pixel_gradients, _) = json.loads(run.stdout)
    assert length > 100
    assert 8 * tokens * 262_208 * 4 > 5e8
    assert scored < 1.3 * body
    assert pixel_gradients < 1.5 * body_gradient
