"""Overlays and panels: what lies where, and that any text and any number of tiles fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.drawing.colours import colour_scale
from medfocus_bench.drawing.overlay import fit, overlay, plain
from medfocus_bench.drawing.panel import TILE_SIZE, Tile, panel
from medfocus_bench.geometry import Frame

GREY = np.full((120, 200), 90, dtype=np.uint8)


def lightness(colours):
    linear = (np.asarray(colours) / 255) ** 2.2
    return linear @ [0.2126, 0.7152, 0.0722]


def test_the_scale_grows_lighter_and_more_opaque_from_nothing():
    scale = colour_scale()
    assert scale.shape == (256, 4)
    assert (np.diff(lightness(scale[:, :3])) > 0).all()
    assert (np.diff(scale[:, 3]) > 0).all()
    assert scale[0, 3] == 0


def test_the_peak_of_a_map_lies_where_the_map_says_with_the_padding_cut_away():
    frame = Frame(200, 120)
    box = np.array([[150.0, 80.0, 190.0, 110.0]])
    saliency = np.zeros((224, 224), dtype=np.float32)
    x1, y1, x2, y2 = np.round(frame.to_model(box)[0]).astype(int)
    saliency[y1:y2, x1:x2] = 1
    saliency[:10] = 5  # in the padding, where it must neither show nor set the scale
    drawn = np.asarray(overlay(GREY, Attribution("a", saliency=saliency), (400, 240), 224), dtype=float)
    assert drawn.shape == (240, 400, 3)
    changed = np.abs(drawn - 90).max(2) > 20
    rows, columns = np.nonzero(changed)
    np.testing.assert_allclose(
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], box[0] * 2, atol=4
    )
    np.testing.assert_array_equal(drawn[:100, :200], 90)


def test_boxes_are_outlined_in_place_and_leave_the_inside_alone():
    drawn = np.asarray(overlay(GREY, Attribution("a", boxes=[[20, 30, 60, 90]]), (400, 240), 224))
    changed = (drawn != 90).any(2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (40, 120, 60, 180)
    assert not changed[75:165, 55:105].any()


@pytest.mark.parametrize(
    "nothing",
    [
        {"saliency": np.zeros((4, 4))},
        {"saliency": np.full((4, 4), np.nan)},
        {"saliency": np.zeros((0, 0))},
        {"saliency": np.ones((1, 1))},
        {"saliency": np.repeat([1.0, 0.0], [10, 214])[:, None].repeat(224, axis=1)},
        {"boxes": []},
    ],
)
def test_what_explains_nothing_is_not_drawn(nothing):
    """Nor a map that differs in the padding only."""
    assert overlay(GREY, Attribution("a", **nothing), (100, 60), 224) is None


def test_one_outlying_pixel_does_not_hide_the_rest():
    rng = np.random.default_rng(0)
    saliency = rng.random((224, 224)).astype(np.float32)
    saliency[100, 100] = 1e6
    drawn = np.asarray(overlay(GREY, Attribution("a", saliency=saliency), (200, 120), 224), dtype=float)
    assert (np.abs(drawn - 90).max(2) > 20).mean() > 0.3


def test_a_box_of_no_visible_size_is_drawn_all_the_same():
    drawn = overlay(GREY, Attribution("a", boxes=[[10, 10, 10.1, 10.1]]), (100, 60), 224)
    assert (np.asarray(drawn) != 90).any()


@pytest.mark.parametrize("count", [1, 2, 4, 7, 13])
def test_a_panel_holds_any_number_of_tiles_of_any_shape(count):
    sizes = [fit(w, h, TILE_SIZE) for w, h in ((200, 120), (120, 200), (5000, 10), (10, 5000))]
    tiles = [Tile(f"tile {n}", "caption", plain(GREY, sizes[n % 4])) for n in range(count)]
    sheet = panel(tiles, "key", "Is it so?", "Yes.")
    assert 600 < sheet.width < 1700
    pixels = np.asarray(sheet).reshape(-1, 3)
    colours = int((pixels == 90).all(1).sum())
    assert colours == sum(sizes[n % 4][0] * sizes[n % 4][1] for n in range(count))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "word " * 2000,
        "w" * 5000,
        "line\nline\x1b[31m\u202e\x00",
        "\u8868\u793a \u00e4\u00f6\u00fc \U0001f600",
    ],
)
def test_any_text_fits_on_the_panel(text):
    tiles = [Tile(text, text, plain(GREY, (300, 180)), text), Tile("b", "", plain(GREY, (300, 180)))]
    sheet = panel(tiles, text, text, text)
    assert sheet.height < 1000
    margin = np.asarray(sheet)[:, -20:]
    assert (margin == margin[0, 0]).all()


def test_a_message_stands_on_a_dimmed_picture():
    tile = Tile("a", "", plain(np.full((300, 300), 200, dtype=np.uint8), (300, 300)), "no explanation")
    plain_sheet = np.asarray(panel([Tile("a", "", tile.picture)], "k", "q", "r"))
    sheet = np.asarray(panel([tile], "k", "q", "r"))
    place = np.nonzero((plain_sheet == 200).all(2))
    inside = sheet[place].reshape(300, 300, 3)
    assert (inside[:50] == 40).all()
    assert inside[100:200].max() > 200


def test_a_picture_keeps_its_aspect():
    assert fit(512, 340, (300, 375)) == (300, 199)
    assert fit(250, 512, (300, 375)) == (183, 375)
    assert fit(10_000, 1, (300, 375)) == (300, 1)
    assert plain(GREY, (100, 60)).size == Image.fromarray(GREY).resize((100, 60)).size
