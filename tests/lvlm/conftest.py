"""LVLMs to test the adapter on: the shipped ones, and tiny ones of the other families with random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.phantom import PHANTOM_LVLMS
from tests.lvlm import checkpoints

EVERY_FAMILY = (
    "phantom_qwen",
    "phantom_gemma",
    "tiny_paligemma",
    "tiny_idefics3",
    "tiny_qwen2_vl",
    "tiny_qwen3_vl",
    "tiny_smolvlm",
    "tiny_llava",
    "tiny_llava_next",
    "tiny_llava_onevision",
    "tiny_internvl",
    "tiny_mllama",
)
IN_SEQUENCE = tuple(name for name in EVERY_FAMILY if name != "tiny_mllama")
"""Those whose pictures are tokens of the decoder's sequence."""

OpenLVLM = Callable[..., HuggingFaceLVLM]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint by name: a shipped one, or a tiny one built when it is first asked for."""

    @lru_cache
    def folder(name: str) -> Path:
        if name in PHANTOM_LVLMS:
            return PHANTOM_LVLMS[name]
        save: Callable[[Path], Path] = getattr(checkpoints, name.replace("tiny_", "save_"))
        return save(tmp_path_factory.mktemp(name))

    return folder


@pytest.fixture(scope="session")
def open_lvlm(checkpoint: Callable[[str], Path]) -> OpenLVLM:
    """Opens an LVLM by name with the options of `HuggingFaceLVLM`, once for the same options."""

    @lru_cache
    def opened(name: str, **options: Any) -> HuggingFaceLVLM:
        return HuggingFaceLVLM(name, checkpoint(name), **options)

    return opened


@pytest.fixture(params=EVERY_FAMILY)
def any_lvlm(request: pytest.FixtureRequest, open_lvlm: OpenLVLM) -> HuggingFaceLVLM:
    return open_lvlm(request.param)


@pytest.fixture(params=IN_SEQUENCE)
def token_lvlm(request: pytest.FixtureRequest, open_lvlm: OpenLVLM) -> HuggingFaceLVLM:
    """One of each family whose pictures are tokens of the decoder's sequence."""
    return open_lvlm(request.param)


def picture(seed: int, height: int = 224, width: int = 224) -> np.ndarray:
    """Dark grain, uint8."""
    return np.random.default_rng(seed).integers(0, 60, (height, width), dtype=np.uint8)
