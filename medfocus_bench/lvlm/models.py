"""Models of the Hugging Face Hub by key: those of the paper, and others that labs use.

None of them was run where this package is written, which has no access to their weights; `HubModel.ran` says
so model by model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of the Hub that transformers loads without code of its own.

    `family` is its model type, `billions` how many 1e9 parameters it has. `revision` pins a commit; None asks
    for the newest, and a caller may give one. `gated`: its terms are to be accepted on the Hub first. `ran`:
    whether it was ever run by those who wrote this package. `note`: anything else that one should know
    before use.
    """

    repository: str
    family: str
    billions: float
    licence: str
    revision: str | None = None
    gated: bool = False
    ran: bool = False
    note: str = ""

    @property
    def gigabytes(self) -> float:
        """1e9 bytes of its weights in bfloat16 or float16; float32 takes twice as many."""
        return 2 * self.billions


_APACHE, _SEE_CARD = "Apache-2.0", "see its card"
_GEMMA, _HEALTH, _LLAMA_2 = "Gemma terms", "Health AI Developer Foundations terms", "Llama 2 licence"

PAPER_LVLMS: Final = {
    "qwen2_5_vl_3b": HubModel("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3.8, "Qwen research licence"),
    "qwen2_5_vl_7b": HubModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 8.3, _APACHE),
    "gemma3_4b": HubModel("google/gemma-3-4b-it", "gemma3", 4.3, _GEMMA, gated=True),
    "gemma3_12b": HubModel("google/gemma-3-12b-it", "gemma3", 12.2, _GEMMA, gated=True),
    "medgemma_4b": HubModel("google/medgemma-4b-it", "gemma3", 4.3, _HEALTH, gated=True),
    "medgemma_1_5_4b": HubModel("google/medgemma-1.5-4b-it", "gemma3", 4.3, _HEALTH, gated=True),
}
"""The six models of the paper."""

LAB_LVLMS: Final = {
    "medgemma_27b": HubModel("google/medgemma-27b-it", "gemma3", 28.8, _HEALTH, gated=True),
    "lingshu_7b": HubModel("lingshu-medical-mllm/Lingshu-7B", "qwen2_5_vl", 8.3, "MIT"),
    "huatuogpt_vision_7b": HubModel(
        "FreedomIntelligence/HuatuoGPT-Vision-7B-Qwen2.5VL", "qwen2_5_vl", 8.3, _SEE_CARD
    ),
    "llava_med_7b": HubModel(
        "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
        "llava",
        7.6,
        _SEE_CARD,
        note="LLaVA-Med 1.5, converted by others than its authors",
    ),
    "qwen2_vl_2b": HubModel("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", 2.2, _APACHE),
    "qwen2_vl_7b": HubModel("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl", 8.3, _APACHE),
    "qwen2_5_vl_32b": HubModel("Qwen/Qwen2.5-VL-32B-Instruct", "qwen2_5_vl", 33.5, _APACHE),
    "qwen2_5_vl_72b": HubModel("Qwen/Qwen2.5-VL-72B-Instruct", "qwen2_5_vl", 73.4, "Qwen licence"),
    "qwen3_vl_4b": HubModel("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", 4.4, _APACHE),
    "qwen3_vl_8b": HubModel("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", 8.8, _APACHE),
    "llava_1_5_7b": HubModel("llava-hf/llava-1.5-7b-hf", "llava", 7.1, _LLAMA_2),
    "llava_1_5_13b": HubModel("llava-hf/llava-1.5-13b-hf", "llava", 13.4, _LLAMA_2),
    "llava_next_7b": HubModel("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", 7.6, _APACHE),
    "llava_onevision_7b": HubModel(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision", 8.0, _APACHE
    ),
    "internvl3_2b": HubModel("OpenGVLab/InternVL3-2B-hf", "internvl", 2.1, "Qwen licence"),
    "internvl3_8b": HubModel("OpenGVLab/InternVL3-8B-hf", "internvl", 7.9, _SEE_CARD),
    "smolvlm2_2b": HubModel("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", 2.2, _APACHE),
    "llama_3_2_vision_11b": HubModel(
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "mllama",
        10.7,
        "Llama 3.2 licence",
        gated=True,
        note="by its terms not for those who reside in the European Union",
    ),
}
"""Others that labs use."""

HUB_LVLMS: Final = PAPER_LVLMS | LAB_LVLMS

_OWN_CODE = (
    "it comes with code of its own, which is never run here, and transformers has no classes that load it"
)

UNLOADABLE: Final = {
    "microsoft/maira-2": _OWN_CODE,
    "StanfordAIMI/CheXagent-2-3b": _OWN_CODE,
    "StanfordAIMI/CheXagent-8b": _OWN_CODE,
    "FreedomIntelligence/HuatuoGPT-Vision-7B": f"{_OWN_CODE}; huatuogpt_vision_7b is its successor",
    "microsoft/llava-med-v1.5-mistral-7b": f"{_OWN_CODE}; llava_med_7b is a conversion of it",
    "OpenGVLab/InternVL3-2B": f"{_OWN_CODE}; internvl3_2b is the same model in classes of transformers",
    "OpenGVLab/InternVL3-8B": f"{_OWN_CODE}; internvl3_8b is the same model in classes of transformers",
}
"""Hub ids that somebody may ask for in vain, and why."""
