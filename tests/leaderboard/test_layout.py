"""How the page is laid out in a real browser: on a phone and a desktop, light and dark, with long texts."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from playwright.sync_api import expect

from medfocus_bench.leaderboard.site import build_site
from tests.leaderboard.conftest import NULLS, PAGES


def luminance(colour):
    """The relative luminance of `rgb(r, g, b)`, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("width", "axis"), [(390, "passes"), (1280, "seconds")])
def test_every_name_of_the_plot_is_there_and_next_to_its_own_mark(visit, width, axis):
    """Or at the end of a line that leads to it."""
    page = visit(viewport={"width": width, "height": 800}).open()
    page.select_option("#cost-axis", axis)
    expect(page.locator("#cost")).to_contain_text("seconds a sample" if axis == "seconds" else "model passes")
    expect(page.locator("#cost text.name")).to_have_count(7)
    marks, names = page.evaluate(  # in one call, between which and the next the plot may be drawn anew
        """["g", "text.name"].map(part => [...document.querySelectorAll(`#cost a > ${part}`)].map(part => {
            const {left, top, right, bottom} = part.getBoundingClientRect();
            const leads = part.parentNode.querySelector('.lead') !== null;
            return [left, top, right, bottom, leads];
        }))"""
    )

    def gap(one, other):
        return max(0, one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3])

    for own, name in enumerate(names):
        assert all(gap(name, mark) > 0 for n, mark in enumerate(marks) if n != own)
        assert name[4] or min(range(len(marks)), key=lambda n: gap(name, marks[n])) == own
    pairs = [(n, m) for n in range(len(names)) for m in range(n)]
    assert all(gap(names[n], names[m]) > 0 for n, m in pairs)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_ends_of_the_floor_and_the_prior_can_be_seen(visit, scheme):
    page = visit(color_scheme=scheme).open()
    colour = "(element, name) => getComputedStyle(element)[name]"
    drawing = page.locator(".tabulator-row .whisker").first
    track = drawing.evaluate(colour, "backgroundColor")
    floor, prior = (drawing.locator(f".w-{name}") for name in ("floor", "prior"))
    fills = [floor.evaluate(colour, "fill"), prior.evaluate(colour, "fill")]
    for band in (floor, prior):
        edge = band.evaluate(colour, "stroke")
        assert min(contrast(edge, other) for other in (track, *fills)) >= 3


def test_on_a_phone_the_pages_and_the_bars_are_in_sight(visit):
    opened = visit(viewport={"width": 390, "height": 844})
    for name in ("index.html", "lvlms/phantom_qwen.html", "methods/oracle.html"):
        page = opened.open(name)
        for link in page.locator("header nav a").all():
            box = link.bounding_box()
            assert 0 <= box["x"] <= 390 - box["width"]
        bars = page.locator("td .whisker, .tabulator-cell .whisker")
        assert bars.count() > 0
        for box in (bar.bounding_box() for bar in bars.all()):
            assert box["x"] + box["width"] <= 390 - 16, name


def test_on_a_phone_no_word_is_broken_in_a_table(visit):
    page = visit(viewport={"width": 390, "height": 844}).open("methods/oracle.html")
    lines = page.eval_on_selector_all(
        ".slices tbody th[scope=row]",
        """cells => cells.map(cell => {
            const range = document.createRange();
            const found = [];
            for (const node of cell.childNodes) for (const word of (node.data || '').matchAll(/\\S+/g)) {
                range.setStart(node, word.index);
                range.setEnd(node, word.index + word[0].length);
                found.push(range.getClientRects().length);
            }
            return found;
        })""",
    )
    assert {count for found in lines for count in found} == {1}


def test_lines_between_rows_go_on_under_a_column_that_stays_in_place(visit):
    """Borders that are shared between cells do not move with it, and those of half pixels are drawn over."""
    opened = visit(viewport={"width": 390, "height": 844})
    for name in ("methods/oracle.html", "lvlms/phantom_qwen.html"):
        page = opened.open(name)
        style = "tables => tables.map(table => getComputedStyle(table).borderCollapse)"
        assert set(page.eval_on_selector_all(".slices", style)) == {"separate"}
        tall = "rows => rows.map(row => row.getBoundingClientRect().height)"
        heights = page.eval_on_selector_all(".slices tbody tr", tall)
        assert all(height == int(height) for height in heights)


def test_at_desktop_width_no_table_is_cut(visit):
    opened = visit(viewport={"width": 1440, "height": 900})
    for name in ("methods/noisy-a.html", *(name for name in PAGES if name != "methods/oracle.html")):
        page = opened.open(name)
        cut = "areas => areas.filter(a => a.scrollWidth > a.clientWidth + 1).map(a => a.ariaLabel)"
        assert page.eval_on_selector_all(".scroll", cut) == [], name


@pytest.mark.parametrize("width", [390, 1280])
def test_long_texts_and_large_costs_widen_nothing(visit, board, tmp_path, width):
    """As no check lets them in today; a page holds what results hold."""
    (tmp_path / "results").mkdir()
    for null in NULLS:
        (tmp_path / "results" / f"null-{null}.json").write_text(
            (board.results / f"null-{null}.json").read_text()
        )
    value = json.loads((board.results / "noisy-a.json").read_text())
    changed = {"display_name": "W" * 60, "description": "d" * 2000, "version": "1" * 40}
    value["report"]["method"].update(changed)
    value["report"]["submitters"] = [{"name": "S" * 100}]
    value["report"]["cost"].update(forward_passes=1e12, seconds=1e12)
    (tmp_path / "results" / "noisy-a.json").write_text(json.dumps(value))
    (tmp_path / "results" / "oracle.json").write_text((board.results / "oracle.json").read_text())
    built = build_site(tmp_path / "results", tmp_path / "site")
    opened = visit(built.index.parent, viewport={"width": width, "height": 800})
    for name in ("index.html", "methods/noisy-a.html", "lvlms/phantom_qwen.html"):
        page = opened.open(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page = opened.open()
    expect(page.locator("#heat th .cut").first).to_be_visible()
    for area in ("#heat tbody .cut", "#pairs tbody .cut"):
        assert max(page.eval_on_selector_all(area, "names => names.map(name => name.offsetWidth)")) < 240
        assert page.locator(area, has_text="WWW").first.get_attribute("title") == "W" * 60
    page.select_option("#cost-axis", "seconds")
    expect(page.locator("#cost")).to_contain_text("seconds a sample")
    ticks = page.eval_on_selector_all(
        "#cost text.tick.middle",
        "ticks => ticks.slice(0, -1).map(t => t.getBoundingClientRect()).map(b => [b.left, b.right])",
    )
    assert all(after[0] > before[1] + 2 for before, after in pairwise(sorted(ticks)))
    assert "e" in "".join(page.locator("#cost text.tick.middle").all_text_contents()[:-1])


@pytest.mark.parametrize("width", [360, 768])
def test_no_page_is_wider_than_the_screen(visit, width):
    opened = visit(viewport={"width": width, "height": 800})
    for name in PAGES:
        page = opened.open(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
