"""SmolVLM2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Idefics3Processor, SmolVLMImageProcessorPil

from medfocus_bench.lvlm.families.idefics3 import Idefics3
from medfocus_bench.lvlm.processors import load_processor


class SmolVLM(Idefics3):
    """An Idefics3 that also reads videos; a picture is shown to both alike.

    So the processor is that of Idefics3: SmolVLM's own loads with torchvision and num2words alone, and for
    videos.
    """

    model_type = "smolvlm"

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(Idefics3Processor, SmolVLMImageProcessorPil, source, origin)
