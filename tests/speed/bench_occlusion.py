"""Occlusion through the adapter against a loop over the edited pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from medfocus_bench.attribution.perturbation import Occlusion
from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.families import family_of
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm.checkpoints import save_qwen
from tests.speed.figures import Figure, side_by_side
from tests.speed.machine import Rates

QUESTION, RESPONSE, CELLS = prompt("nodule", "direct"), "Yes.", 8


def run(rates: Rates) -> Iterator[Figure]:
    torch.set_num_threads(1)
    image = render(Patient.sample(3)).image
    # On one thread a batch saves only what a call costs besides arithmetic: less, the larger the model.
    with tempfile.TemporaryDirectory() as folder:
        yield _compare(rates, "tiny Qwen (2 blocks, width 64)", save_qwen(Path(folder) / "tiny"), image, 3.0)
    yield _compare(rates, "phantom_qwen (4 blocks, width 128)", PHANTOM_LVLMS["phantom_qwen"], image, 1.5)


def _compare(rates: Rates, what: str, checkpoint: Path, image: np.ndarray, bound: float) -> Figure:
    lvlm = load_lvlm(checkpoint)
    example = lvlm.encode(image, QUESTION, RESPONSE)
    loop = OneByOne(checkpoint)

    def batched() -> np.ndarray:
        return Occlusion(cells=CELLS).explain(lvlm, example).saliency

    assert np.abs(batched() - loop.map(image)).max() < 1e-4
    mine, theirs, ratio = side_by_side(batched, lambda: loop.map(image), repeats=7)
    detail = f"{mine * 1e3:.0f} ms against {theirs * 1e3:.0f} ms for 65 passes"
    limit = rates.of_operations(mine, operations(batched), "matrix products of 65 passes")
    return Figure(f"occlusion of {what}", ratio, "x", detail, f">= {bound:g} x", ratio >= bound, limit)


def operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of the matrix products, convolutions and attention within."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class OneByOne:
    """The plain way with transformers: blacken, process, one pass with all logits, log-softmax."""

    def __init__(self, checkpoint: Path) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
        self.processor: Any = family_of(self.model).processor(checkpoint, {})
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
        self.text = self.processor.apply_chat_template([turn], add_generation_prompt=True) + RESPONSE
        self.count = len(self.processor.tokenizer(RESPONSE)["input_ids"])

    def map(self, image: np.ndarray) -> np.ndarray:
        whole = self._log_prob(image)
        size = image.shape[0] // CELLS
        drops = np.zeros((CELLS, CELLS), dtype=np.float32)
        for row in range(CELLS):
            for column in range(CELLS):
                edited = image.copy()
                edited[row * size : (row + 1) * size, column * size : (column + 1) * size] = 0
                drops[row, column] = max(0.0, whole - self._log_prob(edited))
        return drops

    @torch.inference_mode()
    def _log_prob(self, image: np.ndarray) -> float:
        picture = Image.fromarray(image).convert("RGB")
        inputs = self.processor(text=[self.text], images=[picture], return_tensors="pt")
        scores = self.model(**inputs).logits[0].float().log_softmax(-1)
        ids = inputs["input_ids"][0, -self.count :]
        return float(scores[-self.count - 1 : -1].gather(1, ids[:, None]).sum())
