"""Llama 3.2 Vision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import MllamaImageProcessorPil, MllamaProcessor

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.families import Assumption, Family
from medfocus_bench.lvlm.processors import load_processor

_NO_TOKENS = (
    "Llama 3.2 Vision does not read a picture as tokens of its decoder, but looks at it by cross-attention: "
    "it has no image positions to read; choose methods that need none, such as occlusion, rise, "
    "integrated-gradients or medfocus"
)


class OneTileImageProcessorPil(MllamaImageProcessorPil):  # type: ignore[misc]
    """Puts a picture into the first of the tiles that the model has room for; the others stay empty."""

    def resize(self, image: Any, size: Any, max_image_tiles: int, resample: Any = None) -> Any:
        return super().resize(image, size, 1, resample)


class Mllama(Family):
    """The picture is one token of the prompt, which blocks of cross-attention look at from there on.

    The grid is that of the vision tower's patches. A picture is one tile (560 x 560 pixels in published
    weights), where the stock processor cuts a large one into up to four. Its tower sees the empty ones.
    """

    model_type = "mllama"
    padded = True
    lacks: ClassVar[Mapping[Assumption, str]] = {"image_tokens": _NO_TOKENS, "one_entry": _NO_TOKENS}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        processor = load_processor(MllamaProcessor, OneTileImageProcessorPil, source, origin)
        # It would write the start token before a prompt, to which the tokenizer adds it as well.
        processor.bos_token = ""
        return processor

    def prepare(self, model: Any) -> None:
        layers = self.decoder(model).layers
        blocks = [layers[number] for number in model.config.text_config.cross_attention_layers]
        if not any(block.cross_attn_attn_gate.any() for block in blocks):
            raise InputError(f"{model.name_or_path}: the gates of its cross-attention are zero: train it")

    def image_positions(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        return ids.new_empty(0)

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        side = inputs["pixel_values"].shape[-1] // model.config.vision_config.patch_size
        return side, side

    def pixel_values(self, model: Any, inputs: Any) -> torch.Tensor:
        pixel_values: torch.Tensor = inputs["pixel_values"][0, 0, 0]
        return pixel_values

    def image_inputs(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self._first_tile(model, pixel_values.device).expand(len(pixel_values), 1, -1)
        return {
            "pixel_values": pixel_values[:, None, None] * first[..., None, None, None],
            "aspect_ratio_ids": first.new_ones(len(pixel_values), 1),
            "aspect_ratio_mask": first,
        }

    def other_inputs(self, model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # The prompt's picture token and all that follow it see the tile that is filled.
        seen = (inputs["input_ids"] == self.image_token(model)).long().cumsum(-1)
        return {"cross_attention_mask": seen[..., None, None] * self._first_tile(model, seen.device)}

    def _first_tile(self, model: Any, device: torch.device) -> torch.Tensor:
        """One for the tile that the picture fills, zero for the others: (tiles,)."""
        return (torch.arange(model.config.vision_config.max_num_tiles, device=device) == 0).long()
