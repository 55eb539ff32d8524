"""Training data of the models: rendered patients, and what each image token shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.families import family_of
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARKS, Patient, render
from medfocus_bench.phantom.training.checkpoints import GRID, SIDE, Family

Role = Literal["lesion", "twin"]

ROLES: Final[tuple[Role, Role]] = ("lesion", "twin")

TARGETS: Final = (*FINDINGS, *MARKS)
"""Classes of the vision head."""

TRAIN_SEED: Final = 10_000_000
"""Patients of this seed are for training; those of `HELD_OUT_SEED` tell how well it went."""

HELD_OUT_SEED: Final = 20_000_000
HELD_OUT: Final = 300

_CELL = SIDE // GRID


NORMALISATION: Final[dict[Family, tuple[list[float], list[float]]]] = {
    "qwen": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "gemma": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}
"""Mean and standard deviation by which each family's processor normalises the colours."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rendered patients: images (n, 224, 224) uint8, cells (n, 64, 13) and presence (n, 13) as booleans."""

    images: UInt8Image
    cells: npt.NDArray[np.bool_]
    presence: npt.NDArray[np.bool_]


def training_patient(first_seed: int, number: int, role: Role) -> Patient:
    """Anywhere on the film in three of four cases, for a lesion model; with the tag moved, for a twin."""
    patient, rng = Patient.sample((first_seed, number)), np.random.default_rng((first_seed, number, 1))
    if role == "twin":
        return patient.with_tag_moved(rng)
    return patient.with_chest_moved(rng) if number % 4 else patient


def draw_pictures(count: int, first_seed: int, role: Role) -> Pictures:
    """`count` training patients of successive seeds with what each cell shows."""
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    cells = np.zeros((count, GRID * GRID, len(TARGETS)), dtype=np.bool_)
    for number in range(count):
        phantom = render(training_patient(first_seed, number, role))
        images[number] = phantom.image
        for column, name in enumerate(TARGETS):
            mask = phantom.findings.get(name, phantom.marks.get(name))
            if mask is not None:
                shares = mask.reshape(GRID, _CELL, GRID, _CELL).mean((1, 3))
                cells[number, :, column] = (shares >= min(0.04, shares.max())).ravel()
    return Pictures(images, cells, np.asarray(cells.any(1)))


def image_tokens(model: Any, family: Family, images: torch.Tensor) -> torch.Tensor:
    """The image tokens that the language model reads of grey images (n, 224, 224) in [0, 1], in raster order.

    The pixels are those of the family's processor, without its overhead: (n, 64, width).
    """
    mean, std = (torch.tensor(level)[None, :, None, None] for level in NORMALISATION[family])
    inputs = family_of(model).image_inputs(model, (images[:, None] - mean) / std)
    features = model.model.get_image_features(**inputs).pooler_output
    return torch.cat(list(features)).reshape(len(images), GRID * GRID, -1)
