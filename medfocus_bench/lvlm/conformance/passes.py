"""Checks of the passes: scores of a response, how it is written, batches, and the same numbers again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.lvlm.conformance.result import CheckResult, failed, not_applicable, passed
from medfocus_bench.lvlm.conformance.subject import (
    QUESTION,
    RESPONSE,
    SHAPES,
    SQUARE,
    Subject,
    plain_inputs,
    plain_logits,
    smooth_picture,
)
from medfocus_bench.lvlm.protocol import Response

_Array = npt.NDArray[np.float64]

_QUESTIONS: Final = ("Describe the image.", QUESTION)
_TOKENS: Final = 12
_SAME: Final = 1e-4
"""Relative difference that the order of sums may make between a batch and a single picture, in float32."""


def scores(subject: Subject) -> CheckResult:
    """The tokens of a response score what `generate` of transformers has for them, step by step.

    To a small part of the spread of the logits, which is small itself where the weights are random.
    """
    text = subject.lvlm.chat_format.tokenised(RESPONSE)
    worst = 0.0
    for framing, lvlm in subject.framings.items():
        image = smooth_picture(*SHAPES[framing])
        inputs = plain_inputs(lvlm, image)
        with _given(lvlm.model.base_model) as given:
            ours = lvlm.log_probs([image], QUESTION, text)[0].astype(float)
        logits = plain_logits(lvlm, inputs, text.ids).double()
        steps, spread = logits.log_softmax(-1).numpy(), float(logits.std(-1).median())
        theirs = steps[np.arange(len(text.ids)), text.ids]
        apart = abs(ours - theirs)
        worst = max(worst, float(apart.max()))
        if not apart.max() <= subject.slack * spread:
            at = int(apart.argmax())
            return failed(
                f"token {at} of {RESPONSE!r}, {subject.named(text.ids[at])}, scores {ours[at]:.4f} where "
                f"generate has {theirs[at]:.4f} ({framing} framing)"
                + _reason(ours, steps, text, subject.slack * spread, sorted(set(inputs) - given - {"labels"}))
            )
    count = f"{len(text.ids)} tokens of {RESPONSE!r}"
    return passed(f"{count} score what generate has for them, to {_figure(worst)}")


def decoding(subject: Subject) -> CheckResult:
    """Responses are greedy: each token is that of the largest logit, whatever the generation config says.

    Meanwhile the logits are made almost flat and are lifted. That changes nothing for greedy decoding;
    sampling draws from all of the vocabulary then, and a penalty outweighs every difference.
    """
    lvlm = subject.framings["square"]
    if getattr(lvlm, "decoding", "greedy") != "greedy":
        return not_applicable("the LVLM was loaded with decoding=checkpoint")
    image, count = smooth_picture(*SQUARE), 0
    for question in _QUESTIONS:
        with _flattened(lvlm.model) as steps:
            written = lvlm.respond([image], [question], max_new_tokens=_TOKENS)[0].ids
        if any(len(step) > 1 for step in steps):
            most = max(len(step) for step in steps)
            return failed(f"responses are written with {most} beams, not greedily: see the generation config")
        largest = [int(step[0]) for step in steps]
        for number, token in enumerate(largest):
            own = written[number] if number < len(written) else None
            ends = own is None and (token in lvlm.chat_format.ends or number > len(written))
            if own != token and not ends:
                wrote = "the end" if own is None else subject.named(own)
                return failed(
                    f"token {number} of the response is {wrote}, and the largest logit is that of "
                    f"{subject.named(token)}: responses are sampled or penalised; see the generation config"
                )
        count += len(largest)
    return passed(f"{count} of {count} tokens written are those of the largest logit")


def batch(subject: Subject) -> CheckResult:
    """Several pictures and prompts of other lengths, padded on the left, give what each gives alone."""
    lvlm = subject.framings["square"]
    images = [smooth_picture(*SQUARE, seed) for seed in range(len(_QUESTIONS))]
    same = _SAME if lvlm.model.dtype == torch.float32 else subject.slack
    worst = 0.0
    together = lvlm.log_probs(images, QUESTION, RESPONSE)
    alone = np.concatenate([lvlm.log_probs([image], QUESTION, RESPONSE) for image in images])
    apart = abs(together - alone) / np.maximum(1, abs(alone))
    worst = float(apart.max())
    if worst > same:
        return failed(f"scores of two pictures together differ from those alone by {_figure(worst)}")
    with _first_logits(lvlm.model) as of_all:
        lvlm.respond(images, _QUESTIONS, max_new_tokens=1)
    for number, (image, question) in enumerate(zip(images, _QUESTIONS, strict=True)):
        with _first_logits(lvlm.model) as of_one:
            lvlm.respond([image], [question], max_new_tokens=1)
        single, padded = of_one[0][0], of_all[0][number]
        slip = float((single - padded).abs().max() / max(1.0, float(single.abs().max())))
        worst = max(worst, slip)
        if slip > same:
            return failed(
                f"the logits after {question!r} differ by {_figure(slip)} of the largest where a longer "
                "prompt stands beside it: see the padding side and the attention mask"
            )
    return passed(f"two pictures and prompts give together what they give alone, to {_figure(worst)}")


def determinism(subject: Subject) -> CheckResult:
    """The same pass gives the same numbers again, all of them finite, and so do gradients at the pixels."""
    lvlm = subject.framings["square"]
    example = lvlm.encode(smooth_picture(*SQUARE), QUESTION, RESPONSE)
    first, second = (lvlm.token_scores(example, example.pixel_values[None]) for _ in range(2))
    apart = float((first - second).abs().max())
    allowed = 0.0 if lvlm.device.type == "cpu" else 1e-5
    if not apart <= allowed:
        return failed(f"two passes over one picture differ by {_figure(apart)}: something is random")
    if subject.lvlm.quantised:
        return passed("two passes over one picture give the same")
    gradients = lvlm.pixel_gradients(example, example.pixel_values[None])[1]
    if not bool(gradients.any()):
        return failed("the gradient of the response at the pixels is zero everywhere")
    return passed("two passes over one picture give the same, and gradients reach its pixels")


def _reason(ours: _Array, steps: _Array, text: Response, slack: float, left: list[str]) -> str:
    """Where to look, if that can be told."""
    count = len(ours)
    for shift, told in ((1, "late"), (-1, "early")):
        own = [n for n in range(count) if 0 <= n + shift < count]
        moved = np.array([steps[n + shift, text.ids[n]] for n in own])
        if len(own) > 1 and abs(ours[own] - moved).max() <= slack:
            return f": these are the scores of one row {told}; log p of a token is read in the row before it"
    if left:
        return (
            f"; the processor returns {', '.join(left)}, which a pass is not given: see type_ids and "
            "other_inputs of the family"
        )
    return "; a pass is given all that the processor returns: see the checks above, and prepare of the family"


def _figure(value: float) -> str:
    return f"{value:.0e}" if value else "0"


@contextmanager
def _given(model: Any) -> Iterator[set[str]]:
    """The names of the inputs that a model is given within the block."""
    names: set[str] = set()

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        names.update(name for name, value in kwargs.items() if value is not None)

    with model.register_forward_pre_hook(note, with_kwargs=True):
        yield names


@contextmanager
def _flattened(model: Any) -> Iterator[list[torch.Tensor]]:
    """Flatten and lift all logits within the block; the tokens of the largest, (pictures,), at each step."""
    steps: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        flat = output.float() * 0.01 + 10
        steps.append(flat[:, -1].argmax(-1).cpu())
        return flat

    with model.get_output_embeddings().register_forward_hook(hook):
        yield steps


@contextmanager
def _first_logits(model: Any) -> Iterator[list[torch.Tensor]]:
    """The logits of the next token, (pictures, vocabulary), at each step of generation within the block."""
    steps: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: torch.Tensor) -> None:
        steps.append(output[:, -1].float().cpu())

    with model.get_output_embeddings().register_forward_hook(hook):
        yield steps
