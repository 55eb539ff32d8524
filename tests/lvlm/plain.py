"""The plain way with transformers, as an oracle: whole inputs by the processor, all logits, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from medfocus_bench.lvlm.families import family_of

OPTIONS = {
    "gemma3": {"do_pan_and_scan": False},
    "idefics3": {"do_image_splitting": False},
    "smolvlm": {"do_image_splitting": False},
    "internvl": {"crop_to_patches": False},
}
BASE_VIEW = ("llava_next", "llava_onevision")
"""Their models, too, have to be told that there are no tiles."""


class Plain:
    """A checkpoint and its processor as they are loaded without this package's adapter."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
        family = family_of(self.model)
        self.processor: Any = family.processor(folder, {})
        if family.model_type in BASE_VIEW:
            family.prepare(self.model)
        self.options = OPTIONS.get(self.model.config.model_type, {})

    def inputs(self, picture: Image.Image, question: str, response: str = "") -> Any:
        """The inputs for a question about a picture, and a response to it."""
        if self.model.config.model_type == "paligemma":
            return self._prefix_and_suffix(picture, f"<image>{question}", response)
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        text = self.processor.apply_chat_template([turn], add_generation_prompt=True) + response
        start = {"add_special_tokens": False}  # the template wrote it
        return self.processor(text=[text], images=[[picture]], return_tensors="pt", **start, **self.options)

    def _prefix_and_suffix(self, picture: Image.Image, prefix: str, suffix: str) -> dict[str, torch.Tensor]:
        found = self.processor(images=picture, text=prefix, suffix=suffix or None, return_tensors="pt")
        # The processor closes a suffix with the end of text.
        own = slice(None, -1 if suffix else None)
        del found["labels"]
        return {name: value if name == "pixel_values" else value[:, own] for name, value in found.items()}

    @torch.inference_mode()
    def logits(self, **inputs: Any) -> torch.Tensor:
        """All logits, float32: (length, vocabulary)."""
        logits: torch.Tensor = self.model(**inputs).logits[0].float()
        return logits

    def log_probs(self, picture: Image.Image, question: str, response: str, count: int) -> torch.Tensor:
        """Of the last `count` tokens, which are the response's: (count)."""
        inputs = self.inputs(picture, question, response)
        scores = self.logits(**inputs).log_softmax(-1)
        ids = inputs["input_ids"][0, -count:]
        return scores[-count - 1 : -1].gather(1, ids[:, None])[:, 0]
