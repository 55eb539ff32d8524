"""Methods that ask the model itself where the evidence is, in a further turn of the chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.box_parsing import parse_boxes, parse_phrases
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.attribution.vision_models import (
    MEDSAM,
    OWLV2,
    check_vision_model,
    load_detector,
    load_segmenter,
    mask_boxes,
)
from medfocus_bench.geometry import BoolArray, FloatArray, clip_boxes
from medfocus_bench.lvlm.families import BoxConvention

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target
    from medfocus_bench.lvlm.grid import InputView

_BOX_FORMATS: Final[dict[BoxConvention, str]] = {
    "pixels": "[[x1, y1, x2, y2], ...], in pixels of the image, which is {width} wide and {height} high",
    "thousandths_xy": "[[x1, y1, x2, y2], ...], in thousandths of the image's width and height (0 to 1000)",
    "thousandths_yx": "[[y1, x1, y2, x2], ...], in thousandths of the image's height and width (0 to 1000)",
}


@dataclass(frozen=True)
class Prompting(Method):
    """The model writes the boxes of its evidence.

    After the question and its own response the model is asked for the local evidence behind the response, as
    a list of boxes in the convention of its family. A reply without a readable box gives no boxes; boxes in
    the padding are left out. One generated token is one forward pass.
    """

    name = "prompting"
    title = "Prompting"
    family = "prompting"
    needs = ("text",)
    assumes = ("conversation",)
    description = "The model is asked for the boxes of the evidence behind its answer."
    paper = "https://arxiv.org/abs/2605.20158"

    max_new_tokens: int = 256

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        convention = lvlm.family.boxes
        height, width = example.pixel_values.shape[1:]
        reply = _asked(
            lvlm,
            example,
            f"Identify the local evidence in the image that supports {_subject(example, target)}. Reply only "
            "with the list of its boxes, each given by its top-left and its bottom-right corner: "
            f"{_BOX_FORMATS[convention].format(width=width, height=height)}.",
            self.max_new_tokens,
        )
        written = parse_boxes(reply, convention, width, height)
        boxes = _native(written, example.grid.view)
        return Attribution(boxes=boxes, diagnostics={"boxes_written": float(len(written))})


@dataclass(frozen=True)
class PromptingMedSAM(Method):
    """The model names the regions of its evidence; a detector finds them and MedSAM refines them.

    For each phrase that the model writes the open-vocabulary detector gives its best box; those that score
    `threshold` or more prompt the segmenter, and the tight box of each mask is reported. A phrase that is not
    found, or whose mask is empty, adds nothing. `detector` and `segmenter` are local folders or Hub ids; for
    phantoms there are `phantom_owlv2` and `phantom_sam`. The score of each reported phrase is returned among
    the concepts. Passes of the detector and the segmenter count in time, not in forward passes, which are the
    LVLM's.
    """

    name = "prompting-medsam"
    title = "Prompting + MedSAM"
    family = "prompting"
    needs = ("text",)
    assumes = ("conversation",)
    description = "The model names regions; OWLv2 detects them and MedSAM refines the boxes."
    paper = "https://arxiv.org/abs/2605.20158"

    detector: str = OWLV2
    segmenter: str = MEDSAM
    detector_revision: str | None = None
    segmenter_revision: str | None = None
    threshold: float = 0.1
    max_new_tokens: int = 128

    def check(self) -> None:
        check_vision_model("segmenter", self.segmenter)
        check_vision_model("detector", self.detector)

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        # Both at once: weights that are missing show before the model has written anything.
        detector = load_detector(self.detector, self.detector_revision, str(lvlm.device))
        segmenter = load_segmenter(self.segmenter, self.segmenter_revision, str(lvlm.device))
        reply = _asked(
            lvlm,
            example,
            "Which regions of the image hold the local evidence that supports "
            f"{_subject(example, target)}? Reply only with a list of words or short phrases that name them: "
            '["...", "..."].',
            self.max_new_tokens,
        )
        phrases = parse_phrases(reply)
        found = detector.detect(example.image, phrases)
        sure = np.flatnonzero(found.scores >= self.threshold)
        refined = mask_boxes(segmenter.segment(example.image, found.boxes[sure]))
        shown = _with_area(refined)
        return Attribution(
            boxes=refined[shown],
            concepts={phrases[number]: float(found.scores[number]) for number in sure[shown]},
            diagnostics={"phrases_written": float(len(phrases)), "phrases_found": float(len(sure))},
        )


def _asked(lvlm: HuggingFaceLVLM, example: EncodedExample, request: str, max_new_tokens: int) -> str:
    said = [example.question, example.response, request]
    return lvlm.converse(example.image, said, max_new_tokens=max_new_tokens).text


def _subject(example: EncodedExample, target: Target) -> str:
    """The words for what is explained."""
    if isinstance(target, str):
        return "your answer"
    chosen = example.offsets(target)
    return f'this part of your answer: "{"".join(example.tokens[chosen.start : chosen.stop]).strip()}"'


def _native(fractions: FloatArray, view: InputView) -> FloatArray:
    """Boxes given as fractions of the picture that the model saw, in native pixels; padding left out."""
    frame = view.frame
    if view.framing == "square":
        boxes = frame.to_native(fractions * frame.size)
    else:
        sides = [frame.width, frame.height] * 2
        boxes = clip_boxes(fractions * np.array(sides, dtype=np.float64), frame.width, frame.height)
    return boxes[_with_area(boxes)]


def _with_area(boxes: FloatArray) -> BoolArray:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
