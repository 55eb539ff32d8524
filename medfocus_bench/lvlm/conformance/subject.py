"""An LVLM under examination, the pictures it is shown, and the plain way with transformers as the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from transformers import GenerationConfig

from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM, frame_picture
from medfocus_bench.lvlm.chat_format import message
from medfocus_bench.lvlm.grid import Preprocessing

QUESTION: Final = "Is there evidence of mass in the image? Think step by step and answer with yes or no."
RESPONSE: Final = "No, there is no mass."
SQUARE, WIDE, TALL = (224, 224), (168, 280), (280, 168)
SHAPES: Final[dict[Preprocessing, tuple[int, int]]] = {"square": SQUARE, "native": WIDE}
"""Height and width of the picture that is shown in each framing."""

_SLACK: Final = {torch.float32: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.03}


class Subject:
    """An LVLM in both framings, which share the one model."""

    def __init__(self, lvlm: HuggingFaceLVLM) -> None:
        self.lvlm = lvlm

    @cached_property
    def framings(self) -> dict[Preprocessing, HuggingFaceLVLM]:
        found: dict[Preprocessing, HuggingFaceLVLM] = {}
        for framing in SHAPES:
            found[framing] = copy(self.lvlm)
            found[framing].framing = framing
        return found

    @property
    def slack(self) -> float:
        """The part of their spread by which the order of sums may change logits, in the weights' dtype."""
        return _SLACK[self.lvlm.model.dtype]

    def named(self, token: int) -> str:
        """A token for a message: its text and its id."""
        return f"{self.lvlm.processor.tokenizer.convert_ids_to_tokens(int(token))!r} (id {int(token)})"


def smooth_picture(height: int, width: int, seed: int = 0) -> UInt8Image:
    """A colour picture (height, width, 3) without any symmetry, dark, and smooth enough to be resized.

    Three waves in each channel, of other directions in each, on a slope.
    """
    rng = np.random.default_rng((seed, 3))
    y, x = np.mgrid[:height, :width] / max(height, width)
    channels = []
    for _ in range(3):
        waves = [np.cos(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(-4, 4, (3, 3))]
        slope = rng.uniform(0.5, 1) * x + rng.uniform(-1, -0.5) * y
        values = sum(waves) + 3 * slope
        channels.append((values - values.min()) / (values.max() - values.min()))
    return np.round(np.stack(channels, -1) * 100 + 10).astype(np.uint8)


def grain(height: int, width: int, seed: int = 0) -> UInt8Image:
    """A colour picture (height, width, 3) of independent values over the whole range."""
    return np.random.default_rng((seed, 5)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_given(lvlm: HuggingFaceLVLM, image: UInt8Image) -> Image.Image:
    """The picture as the processor is given it."""
    view = lvlm.view(image.shape[1], image.shape[0])
    if view.framing == "native":
        return Image.fromarray(image).convert("RGB")
    return frame_picture(image, view.frame.size)


def plain_inputs(lvlm: HuggingFaceLVLM, image: UInt8Image, question: str = QUESTION) -> Any:
    """The inputs that the processor makes of a picture and a question.

    As transformers tokenises a chat: the start token is added only where the template did not write it.
    """
    processor, family = lvlm.processor, lvlm.family
    text = family.prompt(processor, [message("user", question, picture=True)])
    start = processor.tokenizer.bos_token
    written = {"add_special_tokens": False} if start and text.startswith(start) else {}
    picture = as_given(lvlm, image)
    found = processor(text=[text], images=[[picture]], return_tensors="pt", **written, **family.image_options)
    return found.to(lvlm.device)


@contextmanager
def as_loaded(model: Any) -> Iterator[None]:
    """A model with the forward passes of its own classes, and with a generation config that says nothing.

    `Family.prepare` may replace forward passes of parts; those that accelerate wraps stay.
    """
    parts = [part for part in model.modules() if "forward" in vars(part) and not hasattr(part, "_hf_hook")]
    replaced = [(part, vars(part).pop("forward")) for part in parts]
    config = model.generation_config
    model.generation_config = GenerationConfig(pad_token_id=config.pad_token_id or 0)
    try:
        yield
    finally:
        model.generation_config = config
        for part, forward in replaced:
            part.forward = forward


@torch.inference_mode()
def plain_logits(lvlm: HuggingFaceLVLM, inputs: Any, forced: Sequence[int]) -> torch.Tensor:
    """The logits that `generate` of transformers has where it writes the tokens `forced`.

    (tokens, vocabulary), float32, on the CPU. The library itself extends the inputs from step to step.
    """
    start = inputs["input_ids"].shape[1]

    def next_token(batch: int, ids: torch.Tensor) -> list[int]:
        return [forced[len(ids) - start]]

    with as_loaded(lvlm.model):
        made = lvlm.model.generate(
            **inputs,
            max_new_tokens=len(forced),
            prefix_allowed_tokens_fn=next_token,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return torch.cat(made.logits).float().cpu()
