"""Families of LVLMs: one module each, under the entry point group `medfocus_bench.lvlms`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.processors import load_any_processor

BoxConvention = Literal["pixels", "thousandths_xy", "thousandths_yx"]
"""How a family writes boxes: pixels of the picture it was given, or thousandths of its sides in (x, y, x, y)
or in (y, x, y, x) order."""

Assumption = Literal["image_tokens", "one_entry", "dense", "conversation"]
"""An assumption of a method about a model.

`image_tokens`: the picture is tokens of the decoder's own sequence; `one_entry`: all that the decoder knows
of it enters with the embeddings of those tokens, or by `Family.injected`, where a trace finds it;
`dense`: every block computes all of its MLP, none chooses experts; `conversation`: after its answer it can be
asked again.
"""


class Family(Protocol):
    """The shapes and names of one family of transformers models; a family is a subclass.

    `model_type` is that of its config. `type_ids`: the input that tells image tokens from text, None where
    the model takes none; `response_type`: its value at the tokens of the response. `image_options` are given
    to the processor with every picture: here goes whatever keeps it from cutting one picture into several.
    `padded`: pictures reach the processor as squares in native framing, too, padded at their own resolution;
    for processors that would cut their sides off. `pixels` (min, max) limits what the processor makes of a
    picture where a checkpoint's own limits are wider; None where it makes one size of every picture.
    `injected`: the argument of the decoder's forward that lists what is added to the outputs of its first
    blocks at the image tokens, (image tokens, width) each; None where all enters with the embeddings.
    `markup`: special tokens that the model writes within a response. `lacks`: what methods may assume of a
    model (`Assumption`) and this one breaks, each with a sentence that says why.
    """

    model_type: str
    type_ids: str | None = None
    response_type: int = 0
    boxes: BoxConvention = "pixels"
    image_options: ClassVar[dict[str, Any]] = {}
    padded: bool = False
    pixels: tuple[int, int] | None = None
    injected: str | None = None
    markup: tuple[str, ...] = ()
    lacks: ClassVar[Mapping[Assumption, str]] = {}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        """The processor of the checkpoint in a folder or of a Hub id, with `image_processor` and `tokenizer`.

        By default of the class that the checkpoint's files name; a family that knows its own takes
        `load_processor`, so that no name in a file and nothing else that is installed changes what the model
        is shown. `origin`: the keywords of `from_pretrained` that say which files are read.
        """
        return load_any_processor(source, origin)

    def prepare(self, model: Any) -> None:
        """Changes to a model that was just loaded; they must leave what it computes as it is."""
        return

    def decoder(self, model: Any) -> Any:
        """The text decoder: a module with `layers` and `norm`."""
        return model.base_model.language_model

    def image_token(self, model: Any) -> int:
        """The id that stands for an image token in the prompt."""
        return int(model.config.image_token_id)

    def image_positions(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        """Where in the prompt's `ids` (length) the tokens of `grid` stand, in its order: (tokens,)."""
        return torch.nonzero(ids == self.image_token(model))[:, 0]

    def prompt(self, processor: Any, messages: Sequence[dict[str, Any]]) -> str:
        """The text of a conversation, in the form of chat templates, up to where the model writes.

        Thinking is off where the template has a switch for it. Raises InputError where the family cannot hold
        such a conversation.
        """
        if not processor.chat_template:
            raise InputError(f"the processor for {self.model_type} has no chat template: add the model's own")
        off = {"enable_thinking": False} if "enable_thinking" in processor.chat_template else {}
        text: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **off)
        return text

    def other_inputs(self, model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Further inputs of a teacher-forced pass, given those that there are.

        Such as `position_ids`, where the model would derive them again for every picture.
        """
        return {}

    @abstractmethod
    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        """Rows and columns of the image tokens of one picture, from the processor's output."""
        ...

    def pixel_values(self, model: Any, inputs: Any) -> torch.Tensor:
        """The pixels of one picture in raster order, (3, height, width), from the processor's output."""
        pixel_values: torch.Tensor = inputs["pixel_values"][0]
        return pixel_values

    def image_inputs(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's image inputs for (n, 3, height, width); differentiable, inverts `pixel_values`."""
        return {"pixel_values": pixel_values}


def family_of(model: Any) -> Family:
    """The family of a loaded model, see `load_family`."""
    return load_family(model.config.model_type)


def load_family(model_type: str) -> Family:
    """The family of models whose config has that `model_type`.

    Raises InputError, with the families there are, where none fits.
    """
    found = {entry.name: entry for entry in entry_points(group="medfocus_bench.lvlms")}
    if model_type not in found:
        known = ", ".join(sorted(found))
        raise InputError(f"no family of LVLMs fits models of type {model_type!r}, only {known}")
    family: Family = found[model_type].load()()
    return family
