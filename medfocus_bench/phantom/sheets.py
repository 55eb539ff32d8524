"""Contact sheets of phantoms and of the track, with the evidence outlined."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from medfocus_bench.drawing.sheets import contact_sheet
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.track import box_of

_TILE = 224
_CAPTION = 30
_EVIDENCE = {"lesion": (64, 200, 255), "spurious": (255, 160, 40)}


def finding_sheet(columns: int = 4) -> Image.Image:
    """A normal patient and one with each finding, the finding's box drawn."""
    tiles = []
    for number, names in enumerate([(), *((finding,) for finding in FINDINGS)]):
        phantom = render(Patient.sample((5, number), findings=names, marks=()))
        boxes = [box_of(mask, 3)[0].tolist() for mask in phantom.findings.values()]
        tiles.append(
            _tile(Image.fromarray(phantom.image), boxes, "lesion", [names[0] if names else "normal"])
        )
    return contact_sheet(tiles, columns, gap=4)


def track_sheet(folder: Path, columns: int = 4) -> Image.Image:
    """The first grounded row of every model in every split of a built track."""
    tiles = []
    for split in ("direct", "reasoning", "dev"):
        rows: Sequence[dict[str, Any]] = pq.read_table(folder / f"{split}.parquet").slice(0, 200).to_pylist()
        for lvlm in dict.fromkeys(row["lvlm"] for row in rows):
            row = next(r for r in rows if r["lvlm"] == lvlm and r["group"] == "grounded")
            picture = Image.open(BytesIO(row["image"]["bytes"]))
            captions = [f"{split}, {lvlm}: {row['finding']}", row["response"]]
            tiles.append(_tile(picture, row["boxes"], row["evidence"], captions))
    return contact_sheet(tiles, columns, gap=4)


def _tile(
    picture: Image.Image, boxes: Sequence[Sequence[float]], evidence: str, captions: Sequence[str]
) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE + _CAPTION), (20, 20, 24))
    tile.paste(picture.convert("RGB"), (0, 0))
    pen = ImageDraw.Draw(tile)
    for x1, y1, x2, y2 in boxes:
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=_EVIDENCE[evidence])
    for line, caption in enumerate(captions):
        text = caption if len(caption) <= 38 else "..." + caption[-35:]
        pen.text((4, _TILE + 2 + 14 * line), text, fill=(230, 230, 230))
    return tile
