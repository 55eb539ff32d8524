"""The frame arithmetic of the paper's released code, kept bit for bit for the `paper` protocol only.

Its padding is fractional, inclusive ends are not widened, boxes are cut to `size - 1`: see `Frame` for the
arithmetic that everything else uses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rescale_boxes(
    boxes: npt.ArrayLike, orig_size: tuple[int, int], map_size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Boxes of a padded map in the pixels of the original image, as whole numbers.

    `orig_size` and `map_size` are (width, height). Coordinates are rounded half to even and cut to the
    last pixel; boxes without extent are dropped.
    """
    (width, height), (map_width, map_height) = orig_size, map_size
    scale = max(width / map_width, height / map_height)
    pad = np.array([(map_width - width / scale) / 2, (map_height - height / scale) / 2] * 2)
    last = np.array([width - 1, height - 1] * 2)
    native = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - pad) * scale
    rounded = np.clip(np.rint(native), 0, last).astype(np.int64)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in rounded.tolist() if x2 > x1 and y2 > y1]
