"""The common part of the Qwen-VL families: patches, grid, positions and processor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn import functional
from transformers import Qwen2VLImageProcessorPil

from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.processors import load_processor


class QwenVL(Family):
    """Patches come flattened, a merge block (two by two) after the other, each frame doubled in time.

    The merged tokens are in raster order on a grid that is rectangular where the picture is: 4 to 1,280 of
    them, as many as the makers' own examples allow. `kind` is the class of the processor, without its video
    part.
    """

    kind: ClassVar[Any]
    type_ids = "mm_token_type_ids"
    pixels = (4 * 28 * 28, 1280 * 28 * 28)
    markup = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(self.kind, Qwen2VLImageProcessorPil, source, origin)

    def prepare(self, model: Any) -> None:
        # A convolution whose stride is its kernel is a matrix product, and several times faster as one.
        embed = model.model.visual.patch_embed
        embed.forward = partial(_projected, embed.proj)

    def other_inputs(self, model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Left to the model, it works them out again for every picture, slowly.
        first = {name: inputs[name][:1] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
        return {"position_ids": model.model.get_rope_index(**first)[0]}

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        merge = model.config.vision_config.spatial_merge_size
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        return rows // merge, columns // merge

    def pixel_values(self, model: Any, inputs: Any) -> torch.Tensor:
        config = model.config.vision_config
        patch, merge, times = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        rows, columns = self.grid(model, inputs)
        blocks = inputs["pixel_values"].reshape(rows, columns, merge, merge, 3, times, patch, patch)
        raster = blocks[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
        pixel_values: torch.Tensor = raster.reshape(3, rows * merge * patch, columns * merge * patch)
        return pixel_values

    def image_inputs(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        config = model.config.vision_config
        patch, merge, times = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        count, _, height, width = pixel_values.shape
        rows, columns = height // (merge * patch), width // (merge * patch)
        blocks = pixel_values.reshape(count, 3, rows, merge, patch, columns, merge, patch)
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(-1, 3, 1, patch, patch)
        values = patches.expand(-1, -1, times, -1, -1)
        thw = torch.tensor([[1, rows * merge, columns * merge]] * count, device=pixel_values.device)
        return {"pixel_values": values, "image_grid_thw": thw}


def _projected(convolution: Any, patches: torch.Tensor) -> torch.Tensor:
    """Flattened patches (n, values) as the convolution embeds them: (n, width)."""
    weight = convolution.weight.sum(2).flatten(1)
    first = patches.reshape(len(patches), *convolution.weight.shape[1:])[:, :, 0].flatten(1)
    return functional.linear(first.to(weight.dtype), weight, convolution.bias)
