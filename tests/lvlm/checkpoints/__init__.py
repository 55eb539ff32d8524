"""Tiny checkpoints with random weights: real transformers classes, processors and tokenizers, from config."""

from __future__ import annotations

from tests.lvlm.checkpoints.gemma import save_gemma, save_paligemma
from tests.lvlm.checkpoints.idefics3 import save_idefics3, save_smolvlm
from tests.lvlm.checkpoints.internvl import save_internvl
from tests.lvlm.checkpoints.llava import llama_tokenizer, save_llava, save_llava_next, save_llava_onevision
from tests.lvlm.checkpoints.mllama import save_mllama
from tests.lvlm.checkpoints.qwen import (
    save_overflowing,
    save_qwen,
    save_qwen2_vl,
    save_qwen3_vl,
    save_qwen3_vl_moe,
)

__all__ = [
    "llama_tokenizer",
    "save_gemma",
    "save_idefics3",
    "save_internvl",
    "save_llava",
    "save_llava_next",
    "save_llava_onevision",
    "save_mllama",
    "save_overflowing",
    "save_paligemma",
    "save_qwen",
    "save_qwen2_vl",
    "save_qwen3_vl",
    "save_qwen3_vl_moe",
    "save_smolvlm",
]
