"""The page in a real browser, from the file system, as a visitor has it."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from playwright.sync_api import expect

from medfocus_bench.leaderboard.site import build_site
from medfocus_bench.phantom.track import VERSION
from tests.leaderboard.conftest import HOSTILE, NULLS, PAGES, many_results


def titles(page):
    """The methods in the order of the rows."""
    return page.eval_on_selector_all(".tabulator-row .c-title a", "links => links.map(l => l.textContent)")


def column(page, field):
    return page.eval_on_selector_all(
        f".tabulator-row .c-{field}", "cells => cells.map(c => c.textContent.trim())"
    )


def ranks(page):
    """The ranks in the order of the rows, without the mark of a shared one."""
    return [text.removesuffix(" shared").removesuffix("=") for text in column(page, "rank")]


def expected(view):
    return [row.result.title for row in view.rows]


def expected_ranks(view):
    return [str(row.rank) if row.rank else "\N{EN DASH}" for row in view.rows]


def methods(page):
    """The rows without null controls."""
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
    assert ranks(page) == expected_ranks(view)


def test_a_filter_of_samples_ranks_anew(visit, made):
    page = visit().open()
    chosen = {}
    for key, value in (("source", "phantom"), ("mode", "direct"), ("lvlm", "phantom_qwen")):
        page.select_option(f"#f-{key}", value)
        chosen[key] = value
        view = made.view(**chosen)
        expect(page.locator(".tabulator-row")).to_have_count(len(view.rows))
        assert titles(page) == expected(view)
        assert f"{view.samples} samples of {view.patients} patients" in page.inner_text("#status")
        assert ranks(page) == expected_ranks(view)
    page.select_option("#f-evidence", "spurious")  # of which this LVLM has no sample
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


def test_search_finds_methods_and_submitters_and_null_controls_stay(visit):
    page = visit().open()
    nulls = [title for title in titles(page) if title not in methods(page)]
    assert len(nulls) == len(NULLS)
    for text, found in (("noisy-b", ["Noisy B"]), ("nothing has this name", [])):
        page.fill("#f-q", text)
        assert methods(page) == found
        assert [title for title in titles(page) if title not in found] == nulls
    assert page.inner_text("#status").startswith(f"0 methods and {len(NULLS)} null controls")
    page.select_option("#f-mode", "direct")
    page.fill("#f-q", "grace")
    assert methods(page) == ["Direct only"]


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
    assert not page.is_visible(".tabulator-col.c-recall")
    page.check('#columns input[value="recall"]')
    assert page.is_visible(".tabulator-col.c-recall")
    page.uncheck('#columns input[value="auroc"]')
    assert not page.is_visible(".tabulator-col.c-auroc")
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


@pytest.mark.parametrize(("hash_", "value"), [("#family=gone", "gone"), ("#source=x&evidence=y&mode=z", "x")])
def test_an_old_address_shows_the_rows_that_there_are(visit, made, hash_, value):
    page = visit().open(hash_=hash_)
    assert titles(page) == expected(made.default)
    assert f"Not on this board, and left out: {value}" in page.inner_text("#status")
    page.select_option("#f-mode", "reasoning")
    expect(page.locator("#status")).not_to_contain_text("left out")


def test_csv_holds_what_is_shown_and_no_formula(visit, made):
    page = visit().open()
    rows = list(csv.DictReader(io.StringIO(download(page, "csv"))))
    assert [row["method"].lstrip("'") for row in rows] == expected(made.default)
    assert "'=HYPERLINK(1)" in [row["method"] for row in rows]
    first = made.default.rows[0]
    assert float(rows[0]["evidence_ap"]) == pytest.approx(first.headline.mean, abs=5e-4)
    assert float(rows[0]["evidence_ap_low"]) == pytest.approx(first.headline.low, abs=1.1e-3)
    assert "recall" not in rows[0]


def test_every_file_says_what_is_verified_and_of_which_family(visit):
    page = visit().open()
    rows = list(csv.DictReader(io.StringIO(download(page, "csv"))))
    status = {row["method"].lstrip("'"): (row["status"], row["family"]) for row in rows}
    assert status["Oracle"] == ("verified", "concept")
    assert status["=HYPERLINK(1)"] == ("self-reported", "other")
    assert status["Whole image"][0] == "null control"
    assert {row["benchmark"] for row in rows} == {f"medfocus/cxr-causal {VERSION}"}
    assert {row["filters"] for row in rows} == {"no filter"}
    page.select_option("#f-mode", "direct")
    page.fill("#f-q", "noisy-a")
    value = json.loads(download(page, "json"))
    assert value["filters"] == "mode: direct, q: noisy-a"
    (row,) = [row for row in value["rows"] if row["status"] != "null control"]
    assert (row["method"], row["status"], row["family"]) == ("Noisy A", "verified", "perturbation")
    assert set(row["evidence_ap"]) == {"mean", "low", "high"}
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
        f"medfocus-bench-medfocus-cxr-causal-{VERSION}.csv",
        f"medfocus-bench-medfocus-cxr-causal-{VERSION}-lvlm-phantom_qwen.csv",
        f"medfocus-bench-medfocus-cxr-causal-{VERSION}-lvlm-phantom_qwen-q-..-noisy-b.csv",
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
    options = {"preload": False, "resultTypes": ["violations"]} | (
        {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
    )
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
