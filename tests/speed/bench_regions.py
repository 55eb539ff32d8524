"""Map -> boxes of the paper against the cost structure of the published code: a flood fill in pure Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from medfocus_bench.evaluation.regions import map_to_boxes
from tests.speed.figures import Figure, side_by_side
from tests.speed.machine import Rates


def flood_fill_boxes(saliency: np.ndarray) -> list[tuple[tuple[int, int, int, int], float, int]]:
    """Reference: the same steps, with a queue of pixels instead of a labelling."""
    low, high = saliency.min(), saliency.max()
    normalised = (saliency - low) / (high - low + np.float32(1e-8))
    selected = normalised >= np.quantile(normalised[normalised > 0], 0.9)
    height, width = selected.shape
    seen = np.zeros_like(selected)
    regions = []
    for row in range(height):
        for column in range(width):
            if not selected[row, column] or seen[row, column]:
                continue
            seen[row, column] = True
            queue, members = deque([(row, column)]), []
            while queue:
                y, x = queue.popleft()
                members.append((y, x))
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        b, a = y + dy, x + dx
                        if 0 <= b < height and 0 <= a < width and selected[b, a] and not seen[b, a]:
                            seen[b, a] = True
                            queue.append((b, a))
            if len(members) >= 16:
                ys, xs = zip(*members, strict=True)
                score = float(np.mean([normalised[y, x] for y, x in members]))
                regions.append(((min(xs), min(ys), max(xs), max(ys)), score, len(members)))
    return sorted(regions, key=lambda region: -region[1])[:10]


def run(rates: Rates) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    for side in (224, 1024):
        maps = [
            ndimage.gaussian_filter(rng.standard_normal((side, side)), side / 28).astype(np.float32)
            for _ in range(4)
        ]
        for saliency in maps:
            ours = [region.box for region in map_to_boxes(saliency)]
            assert ours == [box for box, _, _ in flood_fill_boxes(saliency)]
        mine, theirs, ratio = side_by_side(
            lambda maps=maps: [map_to_boxes(saliency) for saliency in maps],
            lambda maps=maps: [flood_fill_boxes(saliency) for saliency in maps],
            repeats=3,
        )
        detail = f"{mine / 4 * 1e3:.2f} ms against {theirs / 4 * 1e3:.0f} ms a map"
        limit = rates.of_bytes(mine / 4, 4 * side**2, "float32 map, read once")
        yield Figure(f"map -> boxes at {side} x {side}", ratio, "x", detail, ">= 15 x", ratio >= 15, limit)
