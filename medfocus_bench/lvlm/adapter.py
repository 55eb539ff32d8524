"""LVLMs of the transformers library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from medfocus_bench.answers import log_odds
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame
from medfocus_bench.lvlm.processors import register_processors
from medfocus_bench.lvlm.protocol import Response

_YES_NO_FORMS = ("{}", " {}", "\n{}")


class HuggingFaceLVLM:
    """A Qwen2.5-VL, Gemma 3 or similar checkpoint through transformers.

    `source` is a local folder or a Hub id; remote code is never run. Pictures are resized and padded to the
    model frame of side `size` first. Raises InputError where the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        key: str,
        source: str | Path,
        *,
        size: int = 224,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
    ) -> None:
        register_processors()
        self.key, self.size = key, size
        try:
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, revision=revision)
            self.processor: Any = AutoProcessor.from_pretrained(source, revision=revision)
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: cannot be loaded as an LVLM: {str(error).splitlines()[0]}") from None
        self.model: Any = model.eval().to(device)
        self.processor.tokenizer.padding_side = "left"
        self._yes, self._no = self._verdict_ids("yes"), self._verdict_ids("no")

    @torch.inference_mode()
    def respond(
        self, images: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], *, max_new_tokens: int = 64
    ) -> list[Response]:
        """One greedy response to each (image, question), batched with left padding."""
        prompts = [self._prompt(question) for question in questions]
        pictures = [[frame_picture(image, self.size)] for image in images]
        inputs = self.processor(text=prompts, images=pictures, padding=True, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        result = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        written = result.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(result.logits, 1).float().cpu().numpy()
        return [self._response(ids, rows) for ids, rows in zip(written.tolist(), logits, strict=True)]

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        prompt: str = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        bos = self.processor.tokenizer.bos_token
        # The processor adds the start token again: a doubled one changes answers.
        return prompt.removeprefix(bos) if bos and self._adds_bos() else prompt

    def _adds_bos(self) -> bool:
        tokenizer = self.processor.tokenizer
        ids = tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == tokenizer.bos_token_id

    def _response(self, ids: list[int], logits: npt.NDArray[np.float32]) -> Response:
        special = set(self.processor.tokenizer.all_special_ids)
        stop = next((n for n, token in enumerate(ids) if token in special), len(ids))
        own = ids[:stop]
        text: str = self.processor.tokenizer.decode(own, clean_up_tokenization_spaces=False)
        verdicts = [n for n, token in enumerate(own) if token in self._yes or token in self._no]
        odds = log_odds(logits[verdicts[-1]], sorted(self._yes), sorted(self._no)) if verdicts else None
        return Response(text, tuple(own), odds)

    def _verdict_ids(self, word: str) -> frozenset[int]:
        """The tokens that spell a verdict in one piece, in any case and after a space or not."""
        tokenizer = self.processor.tokenizer
        found = set()
        for spelling in (word, word.capitalize(), word.upper()):
            for form in _YES_NO_FORMS:
                ids = tokenizer(form.format(spelling), add_special_tokens=False)["input_ids"]
                if tokenizer.decode(ids[-1:]).strip().lower() == word:
                    found.add(ids[-1])
        if not found:
            raise InputError(f"{self.key}: its tokenizer has no token for {word!r}")
        return frozenset(found)


def frame_picture(image: npt.NDArray[np.uint8], size: int) -> Image.Image:
    """A picture in the model frame: aspect kept, bicubic, zero padding split evenly; RGB."""
    height, width = image.shape[:2]
    frame = Frame(width, height, size)
    picture = Image.fromarray(image).convert("RGB")
    if (width, height) == (size, size):
        return picture
    square = Image.new("RGB", (size, size))
    square.paste(picture.resize(frame.content_size, Image.Resampling.BICUBIC), frame.content[:2])
    return square
