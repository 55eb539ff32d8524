"""Models that look at the picture beside the LVLM: one that segments boxes, one that finds named regions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from medfocus_bench.data.hub.client import hub_if_it_answers
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image, as_boxes, clip_boxes, tight_box
from medfocus_bench.lvlm.processors import load_processor
from medfocus_bench.storage import check_fetched

MEDSAM: Final = "flaviagiammarino/medsam-vit-base"
OWLV2: Final = "google/owlv2-base-patch16-ensemble"

PHANTOM_VISION: Final = {"phantom_sam": "sam", "phantom_owlv2": "owlv2"}
"""The shipped tiny models, of phantoms alone, with the folder of their weights."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MAX_CONFIG_BYTES: Final = 2**20
_AT_A_TIME: Final = 8
"""Boxes whose masks are upsampled together: on the way each is a float image of the native size."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """One box a phrase, however poor: `boxes` (n, 4), native pixels, and `scores` (n,) in [0, 1]."""

    boxes: FloatArray
    scores: FloatArray


def load_segmenter(source: str = MEDSAM, revision: str | None = None, device: str = "cpu") -> BoxSAM:
    """The SAM or MedSAM of a local folder, a Hub id or `phantom_sam` (shipped), loaded once.

    Raises InputError, with what to fetch, where it cannot be loaded.
    """
    return BoxSAM(*_model(_SEGMENTER, source, revision, device))


def load_detector(source: str = OWLV2, revision: str | None = None, device: str = "cpu") -> OWLv2:
    """The OWLv2 of a local folder, a Hub id or `phantom_owlv2` (shipped), loaded once.

    Raises InputError, with what to fetch, where it cannot be loaded.
    """
    return OWLv2(*_model(_DETECTOR, source, revision, device))


class BoxSAM:
    """SAM (Kirillov et al. 2023) or MedSAM (Ma et al. 2024) prompted with boxes.

    A box gets the single-mask output: MedSAM was trained with that alone, and the other three masks are of
    the parts of an object. The image is encoded once for all boxes.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @torch.inference_mode()
    def segment(self, image: UInt8Image, boxes: npt.ArrayLike) -> BoolArray:
        """A mask (n, height, width) for each of the native `boxes` (n, 4) of an image, grey or RGB."""
        height, width = image.shape[:2]
        prompts = clip_boxes(boxes, width, height)
        masks = np.zeros((len(prompts), height, width), dtype=np.bool_)
        if not len(prompts):
            return masks
        inputs = self.processor(images=_rgb(image), input_boxes=[prompts.tolist()], return_tensors="pt")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        inputs["input_boxes"] = inputs["input_boxes"].float()  # MPS has no double precision
        inputs = inputs.to(self.model.device)
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"])
        for start in range(0, len(prompts), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            found = self.model(
                image_embeddings=embeddings,
                input_boxes=inputs["input_boxes"][:, part],
                multimask_output=False,
            ).pred_masks
            (native,) = self.processor.post_process_masks(found.float().cpu(), *sizes)
            masks[part] = native[:, 0].numpy()
        return masks


class OWLv2:
    """OWLv2 (Minderer et al. 2023): each patch proposes a box, and is compared with every phrase.

    The best box of a phrase may lie over a patch that fits another phrase better.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @torch.inference_mode()
    def detect(self, image: UInt8Image, phrases: Sequence[str]) -> Detections:
        """The best box for each of the phrases in an image, grey or RGB."""
        if not phrases:
            return Detections(np.empty((0, 4)), np.empty(0))
        height, width = image.shape[:2]
        inputs = self.processor(
            text=[list(phrases)],
            images=_rgb(image),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.model.device)
        found = self.model(**inputs)
        centres, sides = found.pred_boxes[0].cpu().double().split(2, dim=-1)
        # The processor pads to a square, at the right and at the bottom.
        square = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1) * max(height, width)
        boxes = clip_boxes(square.numpy(), width, height)
        scores = found.logits[0].float().sigmoid().cpu().double().numpy()
        shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1, keepdims=True)
        scores = np.where(shown & np.isfinite(scores), scores, 0.0)
        best = scores.argmax(axis=0)
        return Detections(boxes[best], scores[best, np.arange(len(phrases))])


def mask_boxes(masks: npt.ArrayLike) -> FloatArray:
    """The tight box of each mask (n, height, width): (n, 4), without area where a mask is empty."""
    return as_boxes([tight_box(mask) for mask in np.asarray(masks, dtype=np.bool_)])


@dataclass(frozen=True, slots=True)
class _Kind:
    """The classes of a role, its default checkpoint and the shipped one."""

    role: str
    title: str
    model: Any
    processor: Any
    pictures: Any
    default: str
    shipped: str


_SEGMENTER: Final = _Kind(
    "segmenter", "MedSAM", SamModel, SamProcessor, SamImageProcessorPil, MEDSAM, "phantom_sam"
)
_DETECTOR: Final = _Kind(
    "detector",
    "OWLv2",
    Owlv2ForObjectDetection,
    Owlv2Processor,
    Owlv2ImageProcessorPil,
    OWLV2,
    "phantom_owlv2",
)


@lru_cache(maxsize=4)
def _once(kind: _Kind, source: str, revision: str | None, device: str) -> tuple[Any, Any] | InputError:
    """A model and its processor, or the error: a hub that cannot be reached is not tried again."""
    try:
        return _loaded(kind, source, revision, device)
    except InputError as error:
        return error


def _model(kind: _Kind, source: str, revision: str | None, device: str) -> tuple[Any, Any]:
    found = _once(kind, _place(source), revision, device)
    if isinstance(found, InputError):
        raise InputError(str(found))
    return found


def _place(source: str) -> str:
    """The checkpoint folder of a shipped model; any other source as it is."""
    folder = PHANTOM_VISION.get(source)
    return source if folder is None else str(Path(str(files("medfocus_bench.phantom"))) / "weights" / folder)


def _loaded(kind: _Kind, source: str, revision: str | None, device: str) -> tuple[Any, Any]:
    """A model, all of whose weights the checkpoint holds, and its processor."""
    # Left unsaid, the library would ask on the terminal whether to run a repository's code.
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    wanted = kind.model.config_class.model_type
    try:
        with hub_if_it_answers(source):
            found = AutoConfig.from_pretrained(source, **origin).model_type
            if found == wanted:
                model, info = kind.model.from_pretrained(
                    source, dtype=torch.float32, output_loading_info=True, **origin
                )
                processor = load_processor(kind.processor, kind.pictures, source, origin)
    except Exception as error:  # whatever the library stumbles over, the checkpoint is at fault
        check_fetched(Path(source))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        wanting = kind.default if Path(source).exists() else source
        raise InputError(
            f"{source}: cannot be loaded as the {kind.role} ({reason}); where there is a network, fetch it "
            f"with `hf download {wanting} --local-dir FOLDER`, then give FOLDER as the {kind.role}; for "
            f"phantoms there is {kind.shipped}"
        ) from None
    # A folder of another model would be read all the same, its weights drawn at random.
    if found != wanted:
        raise InputError(
            f"{source}: holds a model of type {found!r}; the {kind.role} needs one of {wanted!r}, "
            f"such as {kind.default}"
        )
    if info["missing_keys"]:
        first = min(info["missing_keys"])
        raise InputError(f"{source}: lacks weights of the {kind.role}, such as {first}; fetch it again")
    return model.eval().requires_grad_(False).to(device), processor


def check_vision_model(role: Literal["segmenter", "detector"], source: str | None) -> None:
    """Raise InputError where the source of a model is neither a Hub id nor a folder with such a model."""
    kind = {"segmenter": _SEGMENTER, "detector": _DETECTOR}[role]
    if source in (None, kind.shipped):
        return
    folder = Path(str(source))
    if not folder.exists():
        if not _HUB_ID.fullmatch(str(source)):
            raise InputError(
                f"--{role} {source}: is not there; give a folder with {kind.title}, a Hub id, or, for "
                f"phantoms, {kind.shipped}"
            )
        return
    try:
        with (folder / "config.json").open("rb") as file:
            value = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        raise InputError(
            f"--{role} {source}: has no config.json that can be read; give the folder of a whole {kind.title}"
        ) from None
    found = value.get("model_type") if isinstance(value, dict) else None
    wanted = kind.model.config_class.model_type
    if found != wanted:
        raise InputError(
            f"--{role} {source}: holds a model of type {found!r}, not {wanted!r}; give {kind.title}"
        )


def _rgb(image: UInt8Image) -> Image.Image:
    return Image.fromarray(image).convert("RGB")
