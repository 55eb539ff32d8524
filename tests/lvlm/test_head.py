"""Probabilities of the response: float32, equal to a full pass, and without the memory of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.adapter import frame_picture
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


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_head_in_slices_is_the_head(softcap, bias):
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 5000, bias=bias).requires_grad_(False)
    hidden, ids = torch.randn(3, 400, 8) * 4, torch.randint(5000, (400,))
    logits = linear(hidden)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    head = OutputHead(linear, softcap)
    whole = functional.log_softmax(logits, -1)
    assert torch.allclose(head.log_probs(hidden, ids), whole[:, range(400), ids], atol=1e-5)
    assert torch.allclose(head.logits(hidden, ids[:7]), logits[..., ids[:7]], atol=1e-5)
    yes, no = torch.tensor([3, 4]), torch.tensor([5])
    odds = logits[..., yes].logsumexp(-1) - logits[..., 5]
    assert torch.allclose(head.log_odds(hidden, yes, no), odds, atol=1e-5)


def test_with_bfloat16_weights_scores_differ_where_bfloat16_logits_tie(open_lvlm):
    """Trap 11."""
    lvlm = open_lvlm("phantom_qwen", dtype="bfloat16")
    reading = lvlm.read(picture(1), QUESTION, "Yes.")
    canvases = reading.canvas + 0.02 * torch.randn(12, 1, 16, 16).repeat_interleave(14, 2).repeat_interleave(
        14, 3
    )
    scores = lvlm.token_scores(reading, canvases)[:, 0]
    with torch.inference_mode():
        rows = next(lvlm._row_batches(reading, canvases))[:, 0]
        assert rows.dtype == torch.bfloat16
        rounded = lvlm.model.lm_head(rows)[:, reading.ids[reading.answer.start]]
    assert scores.dtype == torch.float32
    assert len(scores.unique()) == len(rows.unique(dim=0)) == len(scores)
    assert len(rounded.unique()) < len(scores)


_MEMORY = """
import json, re, sys
from pathlib import Path
import numpy as np
import torch
from medfocus_bench.lvlm.registry import load_lvlm

torch.set_num_threads(1)
question, response = "Is there evidence of nodule in the image? " * 3, "Final answer: Yes. " * 12
lvlm = load_lvlm(sys.argv[1])
images = [np.random.default_rng(n).integers(0, 255, (224, 224), dtype=np.uint8) for n in range(16)]
lvlm.log_probs(images[:1], "Is it?", "Yes.")

def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def peak(function):
    Path("/proc/self/clear_refs").write_text("5")
    columns = function().shape[1]
    return memory("VmHWM") - before, columns

@torch.inference_mode()
def body():
    readings = [lvlm.read(image, question, response) for image in images]
    return lvlm._last_hidden(readings[0], torch.stack([reading.canvas for reading in readings]))

before = memory("VmRSS")
print(json.dumps([peak(body), peak(lambda: lvlm.log_probs(images, question, response))]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
def test_scores_need_little_more_memory_than_the_body_with_a_real_vocabulary(tmp_path):
    """Trap 11: at 16 pictures and 262,208 words the response's float32 logits alone would take over 1 GB.

    Both read 16 pictures; one makes the pass through the body without any logits, the other scores the
    response. Peaks of the resident memory, above that of the loaded model, in a process of their own.
    """
    folder = save_gemma(tmp_path / "gemma", vocabulary=262_208)
    run = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(folder)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed leaves the process at once
        check=True,
        capture_output=True,
        text=True,
    )
    (body, length), (scored, tokens) = json.loads(run.stdout)
    assert length > 100
    assert 16 * tokens * 262_208 * 4 > 1e9
    assert scored < 1.3 * body
