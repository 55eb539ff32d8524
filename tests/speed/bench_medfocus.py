"""MedFocus through the adapter against a loop over the edited pictures, and what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medfocus_bench.attribution.vision_models import load_segmenter
from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus.anatomy import ConceptLocaliser
from medfocus_bench.medfocus.interventions import ConceptRegion, concept_regions, measure
from medfocus_bench.medfocus.method import MedFocus
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.render import Patient, render
from tests.attribution.vision_checkpoints import write_sam
from tests.lvlm.checkpoints import save_qwen
from tests.speed.bench_occlusion import QUESTION, RESPONSE, OneByOne, operations
from tests.speed.figures import Figure, side_by_side
from tests.speed.machine import Rates


def run(rates: Rates) -> Iterator[Figure]:
    torch.set_num_threads(1)
    image = render(Patient.sample(3)).image
    regions = concept_regions(ConceptLocaliser().regions(image), COMPOSITES)
    with tempfile.TemporaryDirectory() as folder:
        tiny = save_qwen(Path(folder) / "tiny")
        yield from _compare(rates, "tiny Qwen (2 blocks, width 64)", tiny, image, regions, bound=2.0)
        yield from _cost(image, len(regions), write_sam(Path(folder) / "sam"))
    shipped = PHANTOM_LVLMS["phantom_qwen"]
    yield from _compare(rates, "phantom_qwen (4 blocks)", shipped, image, regions, bound=1.2)


def _compare(
    rates: Rates,
    what: str,
    checkpoint: Path,
    image: np.ndarray,
    regions: tuple[ConceptRegion, ...],
    bound: float,
) -> Iterator[Figure]:
    lvlm = load_lvlm(checkpoint)
    loop = Unbatched(checkpoint)

    def batched() -> np.ndarray:
        return measure(lvlm, lvlm.encode(image, QUESTION, RESPONSE), regions).effects.total

    difference = np.abs(batched() - loop.deltas(image, regions)).max()
    yield Figure(f"deltas of {what}", float(difference), "apart", "", "<= 1e-5", bool(difference <= 1e-5))
    mine, theirs, ratio = side_by_side(batched, lambda: loop.deltas(image, regions), repeats=9)
    passes = len(regions) + 1
    detail = f"{mine * 1e3:.0f} ms against {theirs * 1e3:.0f} ms for {passes} passes"
    limit = rates.of_operations(mine, operations(batched), f"matrix products of {passes} passes")
    yield Figure(f"interventions of {what}", ratio, "x", detail, f">= {bound:g} x", ratio >= bound, limit)


def _cost(image: np.ndarray, regions: int, sam: Path) -> Iterator[Figure]:
    """Forward passes of the LVLM and encodings of the image for refinement, counted."""
    lvlm = load_lvlm("phantom_qwen")
    model: Any = load_segmenter(str(sam)).model
    encodings = 0
    encode = model.vision_encoder.forward

    def counted(*args: Any, **more: Any) -> Any:
        nonlocal encodings
        encodings += 1
        return encode(*args, **more)

    model.vision_encoder.forward = counted
    with lvlm.measured() as meter:
        MedFocus(segmenter=str(sam)).explain(lvlm, lvlm.encode(image, QUESTION, RESPONSE))
    passes = meter.forward_passes
    yield Figure("forward passes of MedFocus", passes, "passes", "", f"{regions} + 1", passes == regions + 1)
    yield Figure("encodings of the image for refinement", encodings, "encodings", "", "1", encodings == 1)


class Unbatched(OneByOne):
    """The plain way: blacken the boxes, process, one pass with all logits, one drop a token."""

    def deltas(self, image: np.ndarray, regions: tuple[ConceptRegion, ...]) -> np.ndarray:
        whole = self._log_probs(image)
        found = []
        for region in regions:
            edited = image.copy()
            for x1, y1, x2, y2 in region.boxes.astype(int):
                edited[y1:y2, x1:x2] = 0
            found.append(np.maximum(0.0, whole - self._log_probs(edited)).sum())
        return np.array(found)

    @torch.inference_mode()
    def _log_probs(self, image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image).convert("RGB")
        inputs = self.processor(text=[self.text], images=[picture], return_tensors="pt")
        scores = self.model(**inputs).logits[0].float().log_softmax(-1)
        ids = inputs["input_ids"][0, -self.count :]
        return scores[-self.count - 1 : -1].gather(1, ids[:, None])[:, 0].double().numpy()
