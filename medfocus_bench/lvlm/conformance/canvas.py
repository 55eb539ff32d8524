"""Checks of the pixel values: they are the picture, and the model is given what the processor makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import AutoImageProcessor

from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.conformance.result import CheckResult, failed, not_applicable, passed
from medfocus_bench.lvlm.conformance.subject import (
    QUESTION,
    SHAPES,
    TALL,
    WIDE,
    Subject,
    as_given,
    grain,
    plain_inputs,
    smooth_picture,
)
from medfocus_bench.lvlm.example import EncodedExample

_Pixels = npt.NDArray[np.float64]

_CLOSE: Final = 0.02
"""Mean difference of grey levels in [0, 1] that resizing by another filter makes of a smooth picture."""

_SHARP: Final = 0.15
"""The same of grain of the canvas' own size, in each part of it. Some processors enlarge it first; pixels of
another place differ by 0.33."""

_EXACT: Final = 1e-3
_TURNS: Final[dict[str, Callable[[_Pixels], _Pixels]]] = {
    "flipped left to right": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned by half": lambda pixels: pixels[::-1, ::-1],
    "transposed, rows for columns": lambda pixels: pixels.transpose(1, 0, 2),
    "turned by a quarter": np.rot90,
    "with red for blue": lambda pixels: pixels[:, :, ::-1],
}


def picture(subject: Subject) -> CheckResult:
    """Pixel values, denormalised as the example says, are the picture that the processor was given.

    A smooth one, but for the filter by which it is resized, and grain of the canvas' own size.
    """
    sizes = []
    for framing, lvlm in subject.framings.items():
        example = _encoded(lvlm, smooth_picture(*SHAPES[framing]))
        wrong = _unlike(example, as_given(lvlm, example.image), _CLOSE)
        height, width = example.pixel_values.shape[1:]
        if wrong is None:
            exact = _encoded(lvlm, grain(height, width))
            given = as_given(lvlm, exact.image)
            if exact.pixel_values.shape[1:] == (height, width) and given.size == (width, height):
                wrong = _unlike(exact, given, _SHARP)
        if wrong is not None:
            return failed(f"{wrong} ({framing} framing): see pixel_values of the family")
        sizes.append(f"{height} x {width}")
    return passed(f"the pixel values are the picture, {' and '.join(sizes)} pixels, in raster order")


def normalisation(subject: Subject) -> CheckResult:
    """Colours are normalised as the checkpoint's own files say, by the image processor that they name."""
    example = _encoded(subject.framings["native"], smooth_picture(*WIDE))
    image = grain(*example.pixel_values.shape[1:])
    example = _encoded(subject.framings["native"], image)
    origin = {"revision": subject.lvlm.revision, "trust_remote_code": False}
    try:
        own: Any = AutoImageProcessor.from_pretrained(subject.lvlm.source, backend="pil", **origin)
    except Exception as error:  # of whatever kind: it is the library's own way that is closed here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return not_applicable(f"the image processor that the files name cannot be loaded here: {reason}")
    own.size = subject.lvlm.processor.image_processor.size
    family, model = subject.lvlm.family, subject.lvlm.model
    stated, used = (
        [np.round(np.asarray(values, dtype=float).reshape(-1), 4).tolist() for values in pair]
        for pair in ((own.image_mean, own.image_std), (example.mean.cpu(), example.std.cpu()))
    )
    if stated != used:
        return failed(
            f"the checkpoint's files state a mean of {stated[0]} and a deviation of {stated[1]}, and the "
            f"example {used[0]} and {used[1]}: see processor of the family"
        )
    picture = as_given(subject.framings["native"], image)
    made = own(images=[[picture]], return_tensors="pt", **family.image_options)
    theirs = family.pixel_values(model, made).float()
    ours = example.pixel_values.cpu()
    apart = float((theirs - ours).abs().max()) if theirs.shape == ours.shape else float("inf")
    if apart > _EXACT:
        return failed(
            f"pixel values differ by up to {apart:.3g} from those of {type(own).__name__}, which the files "
            "name: see processor of the family"
        )
    return passed(f"mean {stated[0]} and deviation {stated[1]}, as the checkpoint's files state")


def inverse(subject: Subject) -> CheckResult:
    """`image_inputs` makes of the pixel values what the processor makes, and hands gradients through."""
    names: set[str] = set()
    for framing, lvlm in subject.framings.items():
        theirs = plain_inputs(lvlm, smooth_picture(*SHAPES[framing]))
        given = lvlm.family.pixel_values(lvlm.model, theirs).float()
        leaf = given.clone().requires_grad_()
        ours = lvlm.family.image_inputs(lvlm.model, leaf[None])
        for name, values in ours.items():
            if name not in theirs:
                return failed(f"image_inputs makes {name}, which the processor does not return")
            wanted = theirs[name]
            if values.numel() != wanted.numel():
                shapes = f"{tuple(values.shape)} where the processor's is {tuple(wanted.shape)}"
                return failed(f"{name} of image_inputs has the shape {shapes} ({framing} framing)")
            apart = float((values.detach().reshape(wanted.shape).float() - wanted.float()).abs().max())
            if apart > 1e-5:
                return failed(
                    f"{name} of image_inputs differs from the processor's by up to {apart:.3g} ({framing} "
                    "framing): it is not the inverse of pixel_values"
                )
        names |= set(ours)
        floats = [values.sum() for values in ours.values() if values.requires_grad]
        gradient = torch.autograd.grad(sum(floats[1:], floats[0]), leaf)[0] if floats else leaf * 0
        if not gradient.all():
            lost = 1 - float((gradient != 0).float().mean())
            return failed(f"no gradient of image_inputs reaches {lost:.0%} of the pixel values")
    return passed(f"{', '.join(sorted(names))} are the processor's own, with a gradient at every pixel")


def padding(subject: Subject) -> CheckResult:
    """In square framing a picture's content lies where the frame says, and the rest is black."""
    lvlm, boxes = subject.framings["square"], []
    for height, width in (WIDE, TALL):
        dark, bright = _dark_and_bright(lvlm, height, width)
        rows, columns = dark.pixel_values.shape[1:]
        box = _changed(dark, bright)
        stated = dark.grid.view.content(rows, columns)
        slip = 3 * max(1.0, dark.frame.size / rows, rows / dark.frame.size) + 1
        if box is None or max(abs(a - b) for a, b in zip(box, stated, strict=True)) > slip:
            return failed(
                f"a picture of {width} x {height} fills {box} of the {columns} x {rows} canvas, and the "
                f"frame says {stated}: padding would pass for evidence"
            )
        outside = np.ones((rows, columns), bool)
        x1, y1, x2, y2 = stated
        reach = int(slip)
        outside[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach] = False
        level = _shown(dark)[outside]
        if level.size and abs(level).max() > 1 / 255:
            return failed(f"the padding is not black: it has grey levels of up to {abs(level).max():.2f}")
        boxes.append(f"{stated[2] - stated[0]} x {stated[3] - stated[1]}")
    native = subject.framings["native"].encode(smooth_picture(*WIDE), QUESTION, "Yes.")
    if native.grid.view.framing == "native":
        spread = native.grid.saliency(np.ones(len(native.grid)))
        x1, y1, x2, y2 = native.frame.content
        if spread.sum() != spread[y1:y2, x1:x2].sum():
            return failed("a map of native framing gives relevance to the padding of the model frame")
    return passed(f"a wide and a tall picture fill {' and '.join(boxes)} pixels; all else is black")


def edges(subject: Subject) -> CheckResult:
    """In native framing every corner and edge of a picture is in its pixel values, where it belongs."""
    lvlm, seen = subject.framings["native"], 0
    for height, width in (WIDE, TALL):
        image = smooth_picture(height, width)
        before = _encoded(lvlm, image)
        rows, columns = before.pixel_values.shape[1:]
        for y, x in ((0, 0), (0, 0.5), (0, 1), (0.5, 0), (0.5, 1), (1, 0), (1, 0.5), (1, 1)):
            side = min(height, width) // 12
            top, left = round(y * (height - side)), round(x * (width - side))
            changed = image.copy()
            changed[top : top + side, left : left + side] = 255
            box = _changed(before, _encoded(lvlm, changed))
            ((x1, y1, x2, y2),) = before.grid.view.place(
                [[left, top, left + side, top + side]], rows, columns
            )
            where = f"{_place(y, x)} of a picture of {width} x {height}"
            if box is None:
                return failed(f"the {where} is cut off: nothing changes there; see padded of the family")
            middle = ((box[0] + box[2]) / 2 - (x1 + x2) / 2, (box[1] + box[3]) / 2 - (y1 + y2) / 2)
            if max(abs(middle[0]) / columns, abs(middle[1]) / rows) > 0.05:
                return failed(f"the {where} is not where the grid's view has it, but at {box} of the canvas")
            seen += 1
    return passed(f"{seen} corners and edges of a wide and a tall picture are seen in place")


def _place(y: float, x: float) -> str:
    """Of a corner or edge, in words."""
    row, column = {0: "top", 0.5: "", 1: "bottom"}[y], {0: "left", 0.5: "", 1: "right"}[x]
    return f"{row} {column}".strip() + ("" if row and column else " edge")


def _encoded(lvlm: HuggingFaceLVLM, image: UInt8Image) -> EncodedExample:
    return lvlm.encode(image, QUESTION, "Yes.")


def _shown(example: EncodedExample) -> _Pixels:
    """The pixel values as grey levels: (height, width, 3)."""
    shown = (example.pixel_values * example.std + example.mean).permute(1, 2, 0)
    return shown.cpu().numpy().astype(float)


def _dark_and_bright(lvlm: HuggingFaceLVLM, height: int, width: int) -> tuple[EncodedExample, EncodedExample]:
    image = smooth_picture(height, width)
    return _encoded(lvlm, image), _encoded(lvlm, 255 - image)


def _changed(before: EncodedExample, after: EncodedExample) -> tuple[int, int, int, int] | None:
    """The box [x1, y1, x2, y2] around the pixel values that differ by more than a tenth of the most."""
    apart = (before.pixel_values - after.pixel_values).abs().amax(0)
    if not bool((apart > _EXACT).any()):
        return None
    rows, columns = torch.nonzero(apart > 0.1 * apart.max(), as_tuple=True)
    x1, y1, x2, y2 = (int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max()))
    return x1, y1, x2 + 1, y2 + 1


def _unlike(example: EncodedExample, given: Image.Image, close: float) -> str | None:
    """How the pixel values differ from the picture that was given; None where they do not."""
    shown = _shown(example)
    height, width = shown.shape[:2]
    if not np.isfinite(shown).all():
        return "the pixel values are not finite"
    wanted = np.asarray(given.resize((width, height), Image.Resampling.BICUBIC)).astype(float) / 255
    apart = float(abs(shown - wanted).mean())
    parts = [part for rows in np.array_split(abs(shown - wanted), 8) for part in np.array_split(rows, 8, 1)]
    worst = float(max(part.mean() for part in parts))
    if apart <= close:
        differs = f"a part of the pixel values differs from the picture, by {worst:.2f} of the grey levels"
        return differs if worst > _SHARP else None
    for turn, turned in _TURNS.items():
        pixels = turned(wanted)
        if pixels.shape == shown.shape and abs(shown - pixels).mean() <= close:
            return f"the pixel values are the picture {turn}"
    straight = np.polyfit(wanted.reshape(-1), shown.reshape(-1), 1)
    if abs(np.polyval(straight, wanted) - shown).mean() <= close:
        return (
            f"the pixel values are the picture times {straight[0]:.3g} plus {straight[1]:.3g}: they are not "
            "normalised by the mean and the deviation that the example states"
        )
    if abs(np.sort(shown, axis=None) - np.sort(wanted, axis=None)).mean() <= close:
        return "the pixel values are those of the picture in another order: patches are not in raster order"
    return f"the pixel values differ from the picture by {apart:.2f} of the grey levels on average"
