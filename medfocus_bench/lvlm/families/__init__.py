"""What differs between families of LVLMs: a module each, an entry point in `medfocus_bench.lvlms`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

import torch

from medfocus_bench.errors import InputError

BoxConvention = Literal["pixels", "thousandths_xy", "thousandths_yx"]
"""How a family writes boxes: pixels of the picture it was given, or thousandths of its sides in (x, y, x, y)
or in (y, x, y, x) order."""


class Family(Protocol):
    """The shapes and names of one family of transformers models.

    `model_type` is that of its config; `type_ids` the input that tells image tokens from text (None where
    the model takes none); `image_options` are given to the processor with every picture.
    """

    model_type: str
    type_ids: str | None
    boxes: BoxConvention
    image_options: dict[str, Any]

    def decoder(self, model: Any) -> Any:
        """The text decoder: a module with `layers` and `norm`."""
        ...

    def image_token(self, model: Any) -> int:
        """The id that stands for an image token in the prompt."""
        ...

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        """Rows and columns of the image tokens of one picture, from the processor's output."""
        ...

    def canvas(self, model: Any, inputs: Any) -> torch.Tensor:
        """The pixels of one picture in raster order, (3, height, width), from the processor's output."""
        ...

    def image_inputs(self, model: Any, canvases: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's image inputs for canvases (n, 3, height, width); differentiable, inverts `canvas`."""
        ...


def family_of(model: Any) -> Family:
    """The family of a loaded model, by its config's `model_type`.

    Raises InputError, with the families there are, where none fits.
    """
    found = {entry.name: entry for entry in entry_points(group="medfocus_bench.lvlms")}
    wanted = model.config.model_type
    if wanted not in found:
        raise InputError(f"no family of LVLMs for models of type {wanted!r}, only {', '.join(sorted(found))}")
    family: Family = found[wanted].load()()
    return family
