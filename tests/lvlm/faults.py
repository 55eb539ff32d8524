"""Faults of families and adapters, as they are made: none raises an error, all make wrong maps."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch

from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.families import Family


def with_family(lvlm: HuggingFaceLVLM, **members: Any) -> HuggingFaceLVLM:
    """The same LVLM through a family with other members, which may call the right ones of `lvlm.family`."""
    right = type(lvlm.family)
    faulty = copy(lvlm)
    family: type[Family] = type(right)("Faulty", (right,), members)
    faulty.family = family()
    faulty.chat_format = copy(lvlm.chat_format)
    faulty.chat_format.family = faulty.family
    return faulty


def patches_in_raster_order(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """Of Qwen2.5-VL, whose patches come merge block after merge block."""

    def pixel_values(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patches = inputs["pixel_values"].reshape(rows, columns, 3, 2, 14, 14)[:, :, :, 0]
        return patches.permute(2, 0, 3, 1, 4).reshape(3, rows * 14, columns * 14)

    def image_inputs(self: Any, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        count, _, height, width = pixel_values.shape
        rows, columns = height // 14, width // 14
        patches = pixel_values.reshape(count, 3, rows, 14, columns, 14).permute(0, 2, 4, 1, 3, 5)
        values = patches.reshape(-1, 3, 1, 14, 14).expand(-1, -1, 2, -1, -1)
        return {"pixel_values": values, "image_grid_thw": torch.tensor([[1, rows, columns]] * count)}

    return with_family(lvlm, pixel_values=pixel_values, image_inputs=image_inputs)


def flipped(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """Left to right, and back for the model."""
    family = lvlm.family
    return with_family(
        lvlm,
        pixel_values=lambda self, *given: family.pixel_values(*given).flip(-1),
        image_inputs=lambda self, model, pixels: family.image_inputs(model, pixels.flip(-1)),
    )


def rescaled(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """Pixel values in [0, 1] that the example takes for normalised ones."""
    family = lvlm.family
    return with_family(
        lvlm,
        pixel_values=lambda self, *given: family.pixel_values(*given) / 2 + 0.5,
        image_inputs=lambda self, model, pixels: family.image_inputs(model, pixels * 2 - 1),
    )


def with_positions(lvlm: HuggingFaceLVLM, order: Callable[[torch.Tensor], torch.Tensor]) -> HuggingFaceLVLM:
    """The image tokens of a square grid in another order: `order` of their positions (side, side)."""
    family = lvlm.family

    def image_positions(self: Any, model: Any, ids: torch.Tensor) -> torch.Tensor:
        found = family.image_positions(model, ids)
        side = round(len(found) ** 0.5)
        return order(found.reshape(side, side)).reshape(-1)

    return with_family(lvlm, image_positions=image_positions)


def swapped_quarters(positions: torch.Tensor) -> torch.Tensor:
    """The upper right quarter for the lower left one."""
    half, found = len(positions) // 2, positions.clone()
    found[:half, half:], found[half:, :half] = positions[half:, :half], positions[:half, half:]
    return found


def tile_by_tile(positions: torch.Tensor) -> torch.Tensor:
    """Tokens of two by two tiles, one tile after the other, taken for rows."""
    half = len(positions) // 2
    tiles = torch.empty_like(positions)
    parts = positions.reshape(4, half, half)
    for number, part in enumerate(parts):
        row, column = number // 2 * half, number % 2 * half
        tiles[row : row + half, column : column + half] = part
    return tiles


def turned_grid(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """Columns for rows, which shows where a grid is not square."""
    family = lvlm.family
    return with_family(
        lvlm,
        grid=lambda self, *given: family.grid(*given)[::-1],
        pixel_values=lambda self, *given: family.pixel_values(*given),
    )


def unremoved_start(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """The template's start token, and that of the processor."""
    faulty = copy(lvlm)
    faulty.chat_format = copy(lvlm.chat_format)
    plain = lvlm.family.prompt
    faulty.chat_format.prompt = lambda chat: plain(lvlm.processor, chat)  # type: ignore[method-assign]
    return faulty


def doubled_start(lvlm: HuggingFaceLVLM) -> HuggingFaceLVLM:
    """Two start tokens by the template."""
    start, plain = lvlm.processor.tokenizer.bos_token, lvlm.family.prompt
    return with_family(lvlm, prompt=lambda self, *given: start + plain(*given))
