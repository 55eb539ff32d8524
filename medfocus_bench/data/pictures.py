"""The picture of a row: embedded in it, or a file below the root of the user's own copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.columns import Sample
from medfocus_bench.data.images import PictureError, decode_uint8, picture_at, read_picture
from medfocus_bench.geometry import UInt8Image

PICTURE_COLUMNS: Final = ("image", "image_ref")
"""The columns that `stored_picture` looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredPicture:
    """A picture that is not decoded yet: its encoded `data`, or the `path` of its file."""

    sample: Sample
    data: bytes | None
    path: Path | None

    def decode(self) -> UInt8Image:
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
