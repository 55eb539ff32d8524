"""Qwen2.5-VL."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from medfocus_bench.lvlm.families import BoxConvention


class Qwen2_5_VL:  # noqa: N801
    """Patches come flattened, a merge block (two by two) after the other, each frame doubled in time.

    The merged tokens are in raster order on a grid that is rectangular where the picture is.
    """

    model_type = "qwen2_5_vl"
    type_ids = "mm_token_type_ids"
    boxes: BoxConvention = "pixels"
    image_options: ClassVar[dict[str, Any]] = {}

    def decoder(self, model: Any) -> Any:
        return model.model.language_model

    def image_token(self, model: Any) -> int:
        return int(model.config.image_token_id)

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        merge = model.config.vision_config.spatial_merge_size
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        return rows // merge, columns // merge

    def canvas(self, model: Any, inputs: Any) -> torch.Tensor:
        config = model.config.vision_config
        patch, merge, times = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        rows, columns = self.grid(model, inputs)
        blocks = inputs["pixel_values"].reshape(rows, columns, merge, merge, 3, times, patch, patch)
        raster = blocks[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
        canvas: torch.Tensor = raster.reshape(3, rows * merge * patch, columns * merge * patch)
        return canvas

    def image_inputs(self, model: Any, canvases: torch.Tensor) -> dict[str, torch.Tensor]:
        config = model.config.vision_config
        patch, merge, times = config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        count, _, height, width = canvases.shape
        rows, columns = height // (merge * patch), width // (merge * patch)
        blocks = canvases.reshape(count, 3, rows, merge, patch, columns, merge, patch)
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
        blocks = blocks.expand(-1, -1, -1, -1, -1, -1, times, -1, -1)
        thw = torch.tensor([[1, rows * merge, columns * merge]] * count, device=canvases.device)
        values = blocks.reshape(count * rows * columns * merge**2, 3 * times * patch**2)
        return {"pixel_values": values, "image_grid_thw": thw}
