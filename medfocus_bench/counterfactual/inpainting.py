"""The free editor: classical inpainting, without weights, network or torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from medfocus_bench.counterfactual.cache import content_key
from medfocus_bench.counterfactual.continuation import around, continue_smoothly, low_pass
from medfocus_bench.counterfactual.editors import EDITS, Edit, EditorError
from medfocus_bench.data.images import decode_uint8
from medfocus_bench.data.questions import Question
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, UInt8Image

Grey = npt.NDArray[np.float32]
_SHAM_BLUR: Final = 1 / 300
_BACKGROUND_BLUR: Final = 1 / 40
_NORMAL_BLUR: Final = 1 / 20
_SEAM: Final = 1 / 25
"""As shares of the picture's longer side: what is blurred away, and the band in which two pictures blend."""

_GRAIN: Final = 1.2
"""Standard deviation in pixels of the blur that tells grain from what is drawn."""

_MAX_NORMALS: Final = 1000
_MAX_FILE: Final = 64 << 20
_MAX_PIXELS: Final = 36_000_000
_SUFFIXES: Final = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Inpainting:
    """An editor that continues, blurs and mixes the surroundings; it does not know what findings look like.

    foreground: the region as the smooth continuation of what surrounds it. sham: the region lightly blurred.
    background: all else blurred (1/40 of the longer side), the region first continued away so that none of
    it bleeds out. background_normal: blurred twice as much, and averaged with its mirror image. All with new
    grain of the strength that is there. `normals`: a folder of normal radiographs (PNG, JPEG; two or more);
    both backgrounds are then taken from one of them each, fitted in grey level and blended at the seam.
    """

    name = "inpainting"
    version = "1"

    normals: Path | None = None

    @cached_property
    def digest(self) -> str:
        """A hash of the settings and of the pictures in `normals`. Raises EditorError for bad ones."""
        return content_key(
            name=self.name, version=self.version, normals=[_checked(path) for path in self._normal_files]
        )

    def redraw(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> UInt8Image:
        """Grey pictures (height, width) or colour ones (height, width, 3), each channel by itself."""
        image = question.image.astype(np.float32)
        rng = np.random.default_rng((seed, question.index, EDITS.index(edit)))
        draw = self._drawer(question, edit, region, seed)
        if image.ndim == 2:
            drawn = draw(image)
        else:
            drawn = np.stack([draw(image[:, :, channel]) for channel in range(image.shape[2])], axis=2)
        return _with_grain(drawn, image, region, of_surroundings=edit == "foreground", rng=rng)

    def _drawer(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> Callable[[Grey], Grey]:
        side = max(region.shape)
        if edit == "foreground":
            return lambda grey: continue_smoothly(grey, region)
        if edit == "sham":
            return lambda grey: low_pass(grey, _SHAM_BLUR * side)
        if self.normals is not None:
            number = (2 * (question.index + seed) + (edit == "background_normal")) % len(self._normal_files)
            other = _fitted(self._normal(number), region.shape)
            return lambda grey: _blended(other, continue_smoothly(grey, ~region), region)
        if edit == "background":
            return lambda grey: low_pass(continue_smoothly(grey, ~region), _BACKGROUND_BLUR * side)
        return lambda grey: low_pass(_symmetric(continue_smoothly(grey, ~region)), _NORMAL_BLUR * side)

    @cached_property
    def _normal_files(self) -> list[Path]:
        if self.normals is None:
            return []
        if not self.normals.is_dir():
            raise EditorError(f"inpainting: normals: the folder {self.normals} is missing")
        found = sorted(path for path in self.normals.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not 2 <= len(found) <= _MAX_NORMALS:
            raise EditorError(
                f"{self.normals}: holds {len(found)} PNG or JPEG files; normals need 2 to {_MAX_NORMALS}"
            )
        return found

    def _normal(self, number: int) -> UInt8Image:
        path = self._normal_files[number]
        try:
            return decode_uint8(path.read_bytes(), place=str(path))
        except (InputError, OSError) as error:
            raise EditorError(f"{path}: cannot be read: {error}") from None


def _checked(path: Path) -> list[object]:
    """The identity of a normal picture. Raises EditorError for one that is too large."""
    if path.stat().st_size > _MAX_FILE:
        raise EditorError(f"{path}: is larger than {_MAX_FILE >> 20} MiB")
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise EditorError(f"{path}: is not a PNG or JPEG picture") from None
    if width * height > _MAX_PIXELS:
        raise EditorError(f"{path}: has {width} x {height} pixels; the most is {_MAX_PIXELS:,}")
    return [path.name, np.frombuffer(path.read_bytes(), np.uint8)]


def _fitted(picture: UInt8Image, shape: tuple[int, ...]) -> Grey:
    """A picture at another size: it covers all of it, aspect kept, centred, the rest cut off."""
    height, width = shape
    scale = max(width / picture.shape[1], height / picture.shape[0])
    part = (width / scale, height / scale)
    left, top = (picture.shape[1] - part[0]) / 2, (picture.shape[0] - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box)
    return np.asarray(resized, dtype=np.float32)


def _blended(other: Grey, own: Grey, region: BoolArray) -> Grey:
    """Another picture in the grey levels of this one, passing into it at the edge of the region."""
    spread = float(other[region].std())
    matched = (other - other[region].mean()) * (own[region].std() / max(spread, 1.0)) + own[region].mean()
    band = max(3, round(_SEAM * max(region.shape)))
    near = ndimage.uniform_filter((~region).astype(np.float32), band, mode="nearest")
    share = np.clip(1 - 2 * near, 0, 1)
    return np.asarray(share * matched + (1 - share) * own, dtype=np.float32)


def _symmetric(grey: Grey) -> Grey:
    return np.asarray((grey + grey[:, ::-1]) / 2, dtype=np.float32)


def _with_grain(
    drawn: Grey, image: Grey, region: BoolArray, *, of_surroundings: bool, rng: np.random.Generator
) -> UInt8Image:
    """A drawn picture with grain in its region, as strong as it had itself, or as its surroundings have.

    Measured as the median absolute deviation of what a blur of about a pixel takes away, so that edges do
    not count.
    """
    rows, columns = around(region, lambda extent: 32 if of_surroundings else 0)
    seen, hidden = image[rows, columns], region[rows, columns]
    fine = seen - ndimage.gaussian_filter(seen, (_GRAIN, _GRAIN, *[0] * (seen.ndim - 2)))
    measured = fine[~hidden] if of_surroundings and not hidden.all() else fine[hidden]
    strength = 1.4826 * float(np.median(np.abs(measured)))
    noise = ndimage.gaussian_filter(rng.standard_normal(hidden.shape, dtype=np.float32), 0.6)
    noise *= strength / max(float(noise.std()), 1e-6)
    grained = drawn.copy()
    grained[rows, columns] += noise if drawn.ndim == 2 else noise[:, :, None]
    return np.asarray(np.clip(np.rint(grained), 0, 255), dtype=np.uint8)
