"""Models of the Hugging Face Hub by key: those of the paper, and others that labs use.

None of them was run where this package is written, which has no access to their weights; `HubModel.ran` says
so model by model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model of the Hub that transformers loads without code of its own.

    `family` is its model type, `billions` how many 1e9 parameters it has. `revision` pins a commit; None asks
    for the newest, and a caller may give one. `gated`: its terms are to be accepted on
    the Hub first. `ran`: whether it was ever run by those who wrote this package. `note`: anything else that
    one should know before use.
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


_GEMMA, _HEALTH = "Gemma terms", "Health AI Developer Foundations terms"


def _qwen(repository: str, family: str, billions: float, licence: str, note: str = "") -> HubModel:
    return HubModel(
        repository=repository,
        family=family,
        billions=billions,
        licence=licence,
        note=note,
    )


def _gemma(repository: str, billions: float, licence: str) -> HubModel:
    return HubModel(repository=repository, family="gemma3", billions=billions, licence=licence, gated=True)


PAPER_LVLMS: Final = {
    "qwen2_5_vl_3b": _qwen("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", 3.8, "Qwen research licence"),
    "qwen2_5_vl_7b": _qwen("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 8.3, "Apache-2.0"),
    "gemma3_4b": _gemma("google/gemma-3-4b-it", 4.3, _GEMMA),
    "gemma3_12b": _gemma("google/gemma-3-12b-it", 12.2, _GEMMA),
    "medgemma_4b": _gemma("google/medgemma-4b-it", 4.3, _HEALTH),
    "medgemma_1_5_4b": _gemma("google/medgemma-1.5-4b-it", 4.3, _HEALTH),
}
"""The six models of the paper."""

LAB_LVLMS: Final = {
    "medgemma_27b": _gemma("google/medgemma-27b-it", 28.8, _HEALTH),
    "lingshu_7b": _qwen("lingshu-medical-mllm/Lingshu-7B", "qwen2_5_vl", 8.3, "MIT"),
    "huatuogpt_vision_7b": _qwen(
        "FreedomIntelligence/HuatuoGPT-Vision-7B-Qwen2.5VL", "qwen2_5_vl", 8.3, "see its card"
    ),
    "qwen2_5_vl_32b": _qwen("Qwen/Qwen2.5-VL-32B-Instruct", "qwen2_5_vl", 33.5, "Apache-2.0"),
    "qwen2_5_vl_72b": _qwen("Qwen/Qwen2.5-VL-72B-Instruct", "qwen2_5_vl", 73.4, "Qwen licence"),
    "llama_3_2_vision_11b": HubModel(
        repository="meta-llama/Llama-3.2-11B-Vision-Instruct",
        family="mllama",
        billions=10.7,
        licence="Llama 3.2 community licence",
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
}
"""Hub ids that somebody may ask for in vain, and why."""
