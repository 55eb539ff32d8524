"""The page in a real browser, from the file system, as a visitor has it."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import pairwise

import pytest
from playwright.sync_api import expect

from medfocus_bench.leaderboard.board import make_board
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.leaderboard.site import build_site
from tests.leaderboard.conftest import HOSTILE, NULLS, many_results

PAGES = (
    "index.html",
    "methods/oracle.html",
    "methods/null-mean-map.html",
    "lvlms/phantom_qwen.html",
    "paper.html",
    "how-to-read.html",
    "how-to-submit.html",
    "log.html",
)


@pytest.fixture(scope="module")
def made(board):
    return make_board(read_results(board.results))


def titles(page):
    """The methods in the order of the rows."""
    return page.eval_on_selector_all(".tabulator-row .c-title a", "links => links.map(l => l.textContent)")


def column(page, field):
    return page.eval_on_selector_all(
        f".tabulator-row .c-{field}", "cells => cells.map(c => c.textContent.trim())"
    )


def expected(view):
    return [row.result.title for row in view.rows]


def methods(page):
    """The rows that are no null controls."""
    return page.eval_on_selector_all(
        ".tabulator-row:not(.null) .c-title a", "links => links.map(l => l.textContent)"
    )


def downloaded(page, form):
    """The name and the text of a file."""
    page.click("#downloads summary")
    with page.expect_download() as info:
        page.click(f'#downloads button[data-form="{form}"]')
    return info.value.suggested_filename, info.value.path().read_text(encoding="utf-8")


def download(page, form):
    return downloaded(page, form)[1]


def luminance(colour):
    """The relative luminance of `rgb(r, g, b)`, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_every_page_loads_without_an_error_or_an_outside_request(visit, site):
    opened = visit()
    for path in sorted(site.index.parent.rglob("*.html")):
        name = path.relative_to(site.index.parent).as_posix()
        page = opened.open(name)
        assert page.title().endswith("\N{EN DASH} MedFocus-Bench")
        assert opened.problems == [], name


def test_a_script_in_a_name_never_runs(visit):
    opened = visit()
    for name in ("index.html", "methods/hostile.html", "log.html"):
        page = opened.open(name)
        assert page.evaluate("window.hacked") is None
    page = opened.open()
    assert HOSTILE in titles(page)
    page.select_option("#f-family", "other")
    page.fill("#f-q", "script")
    assert HOSTILE in titles(page)
    assert page.evaluate("window.hacked") is None


def test_the_table_is_the_board(visit, made):
    page = visit().open()
    view = made.default
    assert titles(page) == expected(view)
    shown = [text.split(" ")[0] for text in column(page, "evidence_ap")]
    assert shown == [f"{row.headline.mean + 0.0:.3f}".replace("-0.000", "0.000") for row in view.rows]
    ranks = [text.removesuffix(" shared").removesuffix("=") for text in column(page, "rank")]
    assert ranks == [str(row.rank) if row.rank else "\N{EN DASH}" for row in view.rows]


@pytest.mark.parametrize(
    "filters",
    [
        {"mode": "direct"},
        {"lvlm": "phantom_qwen"},
        {"evidence": "spurious", "mode": "reasoning"},
        {"source": "phantom"},
    ],
)
def test_a_filter_of_samples_ranks_anew(visit, made, filters):
    page = visit().open()
    for key, value in filters.items():
        page.select_option(f"#f-{key}", value)
    view = made.view(**filters)
    expect(page.locator(".tabulator-row")).to_have_count(len(view.rows))
    assert titles(page) == expected(view)
    assert f"{view.samples} samples of {view.patients} patients" in page.inner_text("#status")
    ranks = [text.removesuffix(" shared").removesuffix("=") for text in column(page, "rank")]
    assert ranks == [str(row.rank) if row.rank else "\N{EN DASH}" for row in view.rows]


def test_filters_that_fit_no_sample_say_so(visit):
    page = visit().open()
    page.select_option("#f-lvlm", "phantom_qwen")
    page.select_option("#f-evidence", "spurious")
    expect(page.locator("#status")).to_contain_text("No samples fit")
    assert titles(page) == []


def test_a_family_chooses_rows_and_leaves_the_floor(visit, made):
    page = visit().open()
    before = dict(zip(titles(page), column(page, "rank"), strict=True))
    page.select_option("#f-family", "perturbation")
    expect(page.locator(".tabulator-row:not(.null)")).to_have_count(2)
    assert len(titles(page)) == 2 + len(NULLS)
    after = dict(zip(titles(page), column(page, "rank"), strict=True))
    assert after.items() <= before.items()


def test_search_finds_methods_and_submitters(visit):
    page = visit().open()
    page.fill("#f-q", "noisy-b")
    assert methods(page) == ["Noisy B"]
    page.select_option("#f-mode", "direct")
    page.fill("#f-q", "grace")
    assert methods(page) == ["Direct only"]


def test_null_controls_stay_whatever_is_searched(visit):
    page = visit().open()
    nulls = [title for title in titles(page) if title not in methods(page)]
    assert len(nulls) == len(NULLS)
    for text in ("oracle", "nothing has this name"):
        page.fill("#f-q", text)
        assert [title for title in titles(page) if title not in methods(page)] == nulls
    assert page.inner_text("#status").startswith(f"0 methods and {len(NULLS)} null controls")


def test_what_covers_a_part_of_the_samples_is_named_with_a_link_to_it(visit, made):
    page = visit().open()
    note = page.locator("#outside")
    expect(note).to_contain_text("1 submission without all of these samples is not listed")
    expect(note).to_contain_text("mode direct (Direct only)")
    page.fill("#f-q", "direct")
    assert methods(page) == []
    note.locator("a").click()
    expect(note).to_be_hidden()
    assert methods(page) == ["Direct only"]
    assert page.input_value("#f-mode") == "direct"
    assert page.input_value("#f-q") == "direct"


def test_a_click_on_a_heading_sorts(visit, made):
    page = visit().open()
    head = page.locator(".tabulator-col.c-iou")
    head.click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(value) for value in column(page, "iou")]
    assert values == sorted(values, reverse=True)
    head.click()
    values = [float(value) for value in column(page, "iou")]
    assert values == sorted(values)
    assert "sort=iou%3Aasc" in page.url


def test_the_keyboard_reaches_and_works_everything(visit):
    page = visit().open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "f-lvlm":
            break
    assert page.evaluate("document.activeElement.id") == "f-lvlm"
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile("#.*lvlm="))
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#columns') !== null"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#columns').open")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('#columns').open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('tabulator-field')") == "auroc":
            break
    page.keyboard.press("Enter")
    assert page.get_attribute(".tabulator-col.c-auroc", "aria-sort") == "descending"
    page.keyboard.press("Space")
    assert page.get_attribute(".tabulator-col.c-auroc", "aria-sort") == "ascending"


def test_a_permalink_brings_the_state_back(visit):
    page = visit().open()
    page.select_option("#f-mode", "reasoning")
    page.select_option("#f-evidence", "lesion")
    page.fill("#f-q", "oracle")
    page.click("#columns summary")
    page.check('#columns input[value="recall"]')
    page.keyboard.press("Escape")
    page.locator(".tabulator-col.c-iou").click()
    state = (titles(page), column(page, "recall"), page.inner_text("#status"))
    address = page.url
    other = visit().page
    other.goto(address)
    other.wait_for_selector("html[data-ready]")
    assert (titles(other), column(other, "recall"), other.inner_text("#status")) == state
    assert other.input_value("#f-mode") == "reasoning"
    assert other.input_value("#f-q") == "oracle"
    assert other.get_attribute(".tabulator-col.c-iou", "aria-sort") == "descending"


def test_an_address_that_names_what_is_not_here_is_no_error(visit, made):
    page = visit().open(hash_="#lvlm=%3Cscript%3E&sort=nonsense:up&cols=a,b&family=x&mode=direct")
    page.wait_for_selector("#controls:not([hidden])")
    assert page.input_value("#f-lvlm") == ""
    assert titles(page)
    page.click("#reset")
    expect(page.locator(".tabulator-row")).to_have_count(len(made.default.rows))
    assert titles(page) == expected(made.default)


@pytest.mark.parametrize("hash_", ["#lvlm=qwen2_5_vl_3b", "#family=gone", "#source=x&evidence=y&mode=z"])
def test_an_old_address_shows_the_rows_that_there_are(visit, made, hash_):
    page = visit().open(hash_=hash_)
    assert titles(page) == expected(made.default)
    value = hash_.partition("=")[2].partition("&")[0]
    assert f"Not on this board, and left out: {value}" in page.inner_text("#status")
    page.select_option("#f-mode", "reasoning")
    expect(page.locator("#status")).not_to_contain_text("left out")


def test_columns_come_and_go(visit):
    page = visit().open()
    assert not page.is_visible(".tabulator-col.c-recall")
    page.click("#columns summary")
    page.check('#columns input[value="recall"]')
    assert page.is_visible(".tabulator-col.c-recall")
    page.uncheck('#columns input[value="iou"]')
    assert not page.is_visible(".tabulator-col.c-iou")


def test_csv_holds_what_is_shown_and_no_formula(visit, made):
    page = visit().open()
    rows = list(csv.DictReader(io.StringIO(download(page, "csv"))))
    assert [row["method"].lstrip("'") for row in rows] == expected(made.default)
    assert "'=HYPERLINK(1)" in [row["method"] for row in rows]
    first = made.default.rows[0]
    assert float(rows[0]["evidence_ap"]) == pytest.approx(first.headline.mean, abs=5e-4)
    assert float(rows[0]["evidence_ap_low"]) == pytest.approx(first.headline.low, abs=1.1e-3)
    assert "recall" not in rows[0]


def test_json_holds_what_is_shown(visit):
    page = visit().open()
    page.fill("#f-q", "noisy-a")
    value = json.loads(download(page, "json"))
    assert [row["method"] for row in value["rows"] if row["status"] != "null control"] == ["Noisy A"]
    assert set(value["rows"][0]["evidence_ap"]) == {"mean", "low", "high"}
    assert value["filters"] == "q: noisy-a"


def test_every_file_says_what_is_verified_and_of_which_family(visit):
    page = visit().open()
    rows = list(csv.DictReader(io.StringIO(download(page, "csv"))))
    status = {row["method"].lstrip("'"): (row["status"], row["family"]) for row in rows}
    assert status["Oracle"] == ("verified", "concept")
    assert status["=HYPERLINK(1)"] == ("self-reported", "other")
    assert status["Whole image"][0] == "null control"
    assert {row["benchmark"] for row in rows} == {"medfocus/cxr-causal 1.0.0"}
    assert {row["filters"] for row in rows} == {"no filter"}
    page.select_option("#f-mode", "direct")
    found = {row["method"]: row for row in json.loads(download(page, "json"))["rows"]}
    assert (found["Noisy A"]["status"], found["Noisy A"]["family"]) == ("verified", "perturbation")
    header, *lines = [line for line in download(page, "tex").splitlines() if line.endswith("\\\\")]
    assert {"Family", "Status"} <= set(header.removesuffix(" \\\\").split(" & "))
    assert sum("& null control" in line for line in lines) == len(NULLS)


def test_files_of_different_states_have_different_names(visit):
    page = visit().open()
    names = [downloaded(page, "csv")[0]]
    page.select_option("#f-lvlm", "phantom_qwen")
    names.append(downloaded(page, "csv")[0])
    page.fill("#f-q", "../noisy <b>")
    names.append(downloaded(page, "csv")[0])
    assert names == [
        "medfocus-bench-medfocus-cxr-causal-1.0.0.csv",
        "medfocus-bench-medfocus-cxr-causal-1.0.0-lvlm-phantom_qwen.csv",
        "medfocus-bench-medfocus-cxr-causal-1.0.0-lvlm-phantom_qwen-q-..-noisy-b.csv",
    ]


def test_latex_is_escaped(visit):
    page = visit().open()
    text = download(page, "tex")
    assert "\\textless{}script\\textgreater{}" in text
    assert text.count("\\toprule") == 1
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len({line.count(" & ") for line in body}) == 1


def test_the_theme_follows_the_system_and_then_the_visitor(visit):
    opened = visit(color_scheme="dark")
    page = opened.open()
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.click("#theme")
    light = page.evaluate(colour)
    assert dark != light
    page = opened.open("methods/oracle.html")
    assert page.evaluate(colour) == light
    assert page.inner_text("#theme-text") == "Dark theme"


def test_the_plots_follow_the_filters(visit):
    page = visit().open()
    points = page.locator("#cost a")
    expect(points).to_have_count(7)
    assert page.locator("#heat td[class*=q]").count() > 0
    page.select_option("#f-family", "perturbation")
    expect(points).to_have_count(2)
    before = page.inner_text("#pairs")
    page.select_option("#f-mode", "reasoning")
    expect(points).to_have_count(2)
    assert "+" in before
    page.select_option("#cost-axis", "seconds")  # drawn with the next frame
    expect(page.locator("#cost")).to_contain_text("seconds a sample")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("axis", ["passes", "seconds"])
def test_every_name_of_the_plot_is_there_and_next_to_its_own_mark(visit, width, axis):
    """Or at the end of a line that leads to it."""
    page = visit(viewport={"width": width, "height": 800}).open()
    page.select_option("#cost-axis", axis)
    expect(page.locator("#cost")).to_contain_text("seconds a sample" if axis == "seconds" else "model passes")
    expect(page.locator("#cost text.name")).to_have_count(7)
    marks, names = (
        page.eval_on_selector_all(
            f"#cost a > {part}",
            """parts => parts.map(part => {
                const {left, top, right, bottom} = part.getBoundingClientRect();
                const leads = part.parentNode.querySelector('.lead') !== null;
                return [left, top, right, bottom, leads];
            })""",
        )
        for part in ("g", "text.name")
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


@pytest.mark.parametrize("name", ["methods/oracle.html", "lvlms/phantom_qwen.html"])
def test_lines_between_rows_go_on_under_a_column_that_stays_in_place(visit, name):
    """Borders that are shared between cells do not move with it, and those of half pixels are drawn over."""
    page = visit(viewport={"width": 390, "height": 844}).open(name)
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


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_page_is_wider_than_the_screen(visit, width):
    opened = visit(viewport={"width": width, "height": 800})
    for name in PAGES:
        page = opened.open(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_without_scripts_the_ranking_is_still_there(visit, site, made):
    page = visit(java_script_enabled=False).page
    page.goto(site.index.as_uri())
    assert page.locator("#board table tbody tr").count() == len(made.default.rows)
    assert page.is_visible("noscript p")


@pytest.mark.parametrize(("scheme", "names"), [("light", (*PAGES[:2], *PAGES[3:])), ("dark", PAGES[:2])])
def test_axe_finds_no_violation(visit, scheme, names):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened = visit(color_scheme=scheme)
    # Both schemes are of the same elements: only colours can be wrong in one alone.
    options = {"preload": False} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
    for name in names:
        page = opened.open(name)
        if name == "index.html":
            page.click("#columns summary")
        found = axe.run(page, options=options).response["violations"]
        assert [(v["id"], v["impact"], v["nodes"][0]["html"][:200]) for v in found] == [], name


def test_hundreds_of_rows_are_quick(visit, board, tmp_path):
    """A smoke test with generous bounds; `tests/speed/bench_leaderboard.py` measures."""
    nulls = [board.result(f"null-{name}") for name in NULLS]
    many_results(board.result("noisy-a"), nulls, 150, tmp_path / "results")
    built = build_site(tmp_path / "results", tmp_path / "site")
    page = visit(built.index.parent).open()
    assert page.evaluate("performance.now()") < 10_000
    page.fill("#f-q", "method 149")
    assert methods(page) == ["Method 149"]
