"""The picture of a row: embedded in it, or a file below the root of the user's own copies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.columns import Sample
from medfocus_bench.data.images import PictureError, decode_uint8, picture_at, read_picture
from medfocus_bench.errors import BenchmarkError

PICTURE_COLUMNS: Final = ("image", "image_ref")
"""The columns that `stored_picture` looks at."""

_MAX_MANIFEST_BYTES = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class StoredPicture:
    """A picture that is not decoded yet: its encoded `data`, or the `path` of its file."""

    sample: Sample
    data: bytes | None
    path: Path | None

    def decode(self) -> npt.NDArray[np.uint8]:
        """As an LVLM is given it: (height, width), levels of 0 to 255.

        Raises PictureError that names the sample or the file, also for a picture of another size than the
        sample's.
        """
        sample = self.sample
        if self.data is not None:
            image = decode_uint8(self.data, place=sample.sample_id)
        else:
            assert self.path is not None
            image = read_picture(self.path)
        if image.shape != (sample.height, sample.width):
            raise PictureError(
                f"{self.path or sample.sample_id}: is {image.shape[1]} x {image.shape[0]} pixels, but "
                f"{sample.sample_id} is of {sample.width} x {sample.height}; it is another picture"
            )
        return image


def stored_picture(sample: Sample, row: Mapping[str, Any], root: Path | None) -> StoredPicture | None:
    """The picture of a row with the columns of `PICTURE_COLUMNS`; None if it has none that can be reached."""
    data = (row["image"] or {}).get("bytes")
    if data is not None:
        return StoredPicture(sample, data, None)
    if row["image_ref"] is not None and root is not None:
        return StoredPicture(sample, None, picture_at(root, row["image_ref"]))
    return None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a manifest says of an attached benchmark: where its pictures lie, and that it may not leave."""

    root: Path | None = None
    licensed: bool = False

    def entries(self) -> dict[str, Any]:
        """As entries of a manifest."""
        root = {} if self.root is None else {"root": str(self.root.resolve())}
        return root | ({"licensed": True} if self.licensed else {})


def manifest_entries(manifest: Path) -> dict[str, Any]:
    """The entries of a manifest; none where it is not there, or is no JSON object (its readers say so)."""
    if not manifest.is_file():
        return {}
    try:
        with manifest.open("rb") as file:
            value = json.loads(file.read(_MAX_MANIFEST_BYTES))
    except (ValueError, OSError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


NOT_ATTACHED: Final = Attachment()


def attachment_of(manifest: Path) -> Attachment:
    """What a manifest says, if there is one. Raises BenchmarkError for anything but a path and a flag."""
    value = manifest_entries(manifest)
    root, licensed = value.get("root"), value.get("licensed", False)
    if not (root is None or isinstance(root, str)) or not isinstance(licensed, bool):
        raise BenchmarkError(f"{manifest}: root is the path of a folder, licensed is true or false")
    return Attachment(None if root is None else manifest.parent / root, licensed)
