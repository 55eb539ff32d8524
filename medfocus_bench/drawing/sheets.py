"""Contact sheets: many tiles in rows, each a picture above its caption."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

Colour = tuple[int, int, int]


def contact_sheet(
    tiles: Sequence[Image.Image],
    columns: int,
    *,
    gap: int,
    margin: int = 0,
    background: Colour = (0, 0, 0),
) -> Image.Image:
    """Tiles of one size in rows of `columns`, each with a gap behind and below it, after a margin."""
    width, height = (side + gap for side in tiles[0].size)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + margin, rows * height + margin), background)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (margin + column * width, margin + row * height))
    return sheet
