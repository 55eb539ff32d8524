"""References for the methods that look inside: transformers alone, and the planted evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoModelForImageTextToText

from medfocus_bench.evaluation.evidence import evidence_of
from medfocus_bench.evaluation.lowpass import lowpassed
from medfocus_bench.evaluation.ranking import ranking_scores
from medfocus_bench.geometry import explains
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.phantom import PHANTOM_LVLMS
from tests.attribution.conftest import phantom

ABOVE_CHANCE = 0.05
"""Evidence AP. Random maps get 0.016 on the dev samples, with a deviation of 0.013 on twelve of them."""


@dataclass(frozen=True)
class PlainPass:
    """Logits (length, vocabulary) and each block's attentions (1, heads, length, length); with a graph."""

    logits: torch.Tensor
    attentions: tuple[torch.Tensor, ...]
    ids: list[int]
    prompt_length: int

    def log_prob(self):
        """The sum over the response of log p(token | all that stands before it)."""
        rows = self.logits.log_softmax(-1)
        return sum(rows[place - 1, self.ids[place]] for place in range(self.prompt_length, len(self.ids)))


@lru_cache
def plain_model(key):
    """A shipped checkpoint with eager attention, and weights that ask for gradients."""
    return AutoModelForImageTextToText.from_pretrained(PHANTOM_LVLMS[key], attn_implementation="eager").eval()


def plain_pass(lvlm, example):
    """The prompt and the response in one pass; to the input types the response is text."""
    inputs = dict(
        lvlm.processor(
            text=[lvlm.prompt(example.question)],
            images=[[frame_picture(example.image, lvlm.size)]],
            return_tensors="pt",
        )
    )
    length = inputs["input_ids"].shape[1]
    response = torch.tensor([lvlm.processor.tokenizer(example.response, add_special_tokens=False).input_ids])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], response], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    types = "mm_token_type_ids" if "qwen" in lvlm.key else "token_type_ids"
    inputs[types] = torch.cat([inputs[types], torch.zeros_like(response)], 1)
    output = plain_model(lvlm.key)(**inputs, output_attentions=True)
    return PlainPass(output.logits[0], output.attentions, inputs["input_ids"][0].tolist(), length)


def at_image(lvlm, passed, values):
    """One value a position, cut down to the grid of image tokens."""
    token = plain_model(lvlm.key).config.image_token_id
    found = [n for n, number in enumerate(passed.ids) if number == token]
    return values[found].detach().numpy().reshape(8, 8)


@lru_cache
def planted(lvlm, count):
    """Dev samples of an LVLM, direct mode, spread over all of them, with where their evidence lies."""
    ours = [s for s in phantom().samples if (s.split, s.mode, s.lvlm) == ("dev", "direct", lvlm.key)]
    chosen = [ours[n] for n in sorted({n * len(ours) // count for n in range(count)})]
    return [
        (
            lvlm.encode(sample.image, sample.question, "Yes."),
            evidence_of(sample),
        )
        for sample in chosen
    ]


def evidence_ap(lvlm, method, samples):
    """The mean evidence AP; a map that explains nothing counts as zero."""
    total = 0.0
    for example, evidence in samples:
        values = lowpassed(method.explain(lvlm, example), evidence.frame)
        if explains(values):
            total += ranking_scores(values, evidence.pixels, evidence.counted).evidence_ap
    return total / len(samples)


def held_out_ap(lvlm, kind, count=24):
    """Evidence AP on every second sample, at the candidate that is best on the others.

    Fewer samples than these do not choose between sixteen heads.
    """
    samples = planted(lvlm, count)
    options = list(kind().candidates(lvlm))
    best = max(options, key=lambda option: evidence_ap(lvlm, kind(**option), samples[::2]))
    return evidence_ap(lvlm, kind(**best), samples[1::2])
