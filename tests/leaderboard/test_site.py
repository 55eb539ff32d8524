"""The built pages, read as text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.engine.choose import open_engine
from medfocus_bench.engine.local import LocalWorkers
from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.board import make_board
from medfocus_bench.leaderboard.gallery import EACH, KINDS, _marks
from medfocus_bench.leaderboard.page_data import board_payload, json_block
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.leaderboard.site import build_site, page_name
from medfocus_bench.paper.published import MAIN_DIRECT, NAMES, SECONDS, SOURCES
from tests.cli.running import run
from tests.leaderboard.conftest import ENTRIES, HOSTILE, NULLS, REPOSITORY, many_results, pages


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def built(board, out, **more):
    """The site of the board with galleries and log, unless told otherwise."""
    given = {"log": board.log, "submissions": board.submissions, "benchmark": board.benchmark}
    return build_site(board.results, out, **given | more)


def test_every_method_and_every_lvlm_has_its_page(site):
    names = set(pages(site))
    assert {f"methods/{name}.html" for name in ENTRIES} <= names
    assert {f"methods/null-{name}.html" for name in NULLS} <= names
    assert {
        "lvlms/phantom_qwen.html",
        "how-to-read.html",
        "how-to-submit.html",
        "paper.html",
        "log.html",
    } <= names
    assert site.pages == len(names)


def test_every_link_within_the_site_leads_somewhere(site):
    for name, text in pages(site).items():
        for target in re.findall(r'(?:href|src)="([^"#]+)', text):
            if not target.startswith(("http://", "https://")):
                assert ((site.index.parent / name).parent / target).exists(), (name, target)


def test_every_page_forbids_foreign_scripts_and_requests(site):
    for text in pages(site).values():
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)
        assert not re.findall(
            r"<[^>]+ (?:style|on[a-z]+)=", re.sub(r"<script type=.*?</script>", "", text, flags=re.DOTALL)
        )


def test_a_script_in_a_name_is_text_on_every_page(site):
    for text in pages(site).values():
        assert HOSTILE not in text
        assert "<img src=x" not in text
    assert "&lt;script&gt;window.hacked=1" in pages(site)["methods/hostile.html"]


def test_the_data_block_ends_where_it_should(site):
    (block,) = re.findall(
        r'<script type="application/json" id="board-data">(.*?)</script>',
        pages(site)["index.html"],
        re.DOTALL,
    )
    titles = [entry["title"] for entry in json.loads(block)["entries"]]
    assert HOSTILE in titles
    assert json_block("</script><!--&") == '"\\u003c/script\\u003e\\u003c!--\\u0026"'


def test_file_names_are_plain_and_their_own():
    assert page_name("phantom_qwen") == "phantom_qwen"
    names = {page_name(text) for text in ("../../etc", "a/b", "a b", "a?b", "", "ä")}
    assert len(names) == 6
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) and not name.startswith(".") for name in names)


def test_the_page_of_a_method_holds_every_slice_with_its_interval(board, site):
    text = pages(site)["methods/noisy-a.html"]
    report = board.result("noisy-a").report
    for part in report.slices:
        if part.kind in {"finding", "evidence", "mode", "lvlm"}:
            assert f">{part.value.replace('_', '_<wbr>')}</th>" in text
            score = part.scores["evidence_ap"]
            assert f"{score.mean:.3f}" in text
    assert "https://example.org/paper?a=1&amp;b=2" in text
    assert "plain &amp; &lt;simple&gt;" in text


def test_the_papers_numbers_are_marked_and_apart(site):
    text = pages(site)["paper.html"]
    assert "Reported by the paper, not recomputed here" in text
    for method, name in NAMES.items():
        cells = [f"{value:.2f}" for source in SOURCES for value in MAIN_DIRECT[method][source]]
        row = "".join(f'<td class="n">{cell}</td>' for cell in [*cells, f"{SECONDS[method]:.2f}"])
        assert f'<tr><th scope="row">{name}</th>{row}</tr>' in text
    assert "54.24" in text
    assert "54.24" not in pages(site)["index.html"]


def test_the_log_is_shown_newest_first(site):
    text = pages(site)["log.html"]
    assert text.index("Withdrawn.") < text.index("First entry.")
    assert 'href="methods/oracle.html"' in text
    assert 'href="methods/gone.html"' not in text


def test_the_gallery_has_its_pictures_and_no_more(board, site):
    folder = site.index.parent / "gallery" / "oracle"
    assert {path.name for path in folder.iterdir()} == {
        f"{kind}-{n + 1}.webp" for kind in KINDS for n in range(EACH)
    }
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.size == (486, 240)
        assert path.stat().st_size < 40_000
    text = pages(site)["methods/oracle.html"]
    assert '<span class="t5">Yes</span><span class="t0">.</span>' in text
    assert "Concept: cardiac silhouette" in text


def test_best_and_worst_are_by_the_headline(board, site):
    text = pages(site)["methods/noisy-a.html"]
    shown = [float(value) for value in re.findall(r"<p><b>(-?[\d.]+)</b>", text)]
    scores = [score for cell in board.result("noisy-a").headline.cells for score in cell.score]
    assert shown[0] == pytest.approx(max(scores), abs=5e-4)
    assert shown[EACH] == pytest.approx(min(scores), abs=5e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_of_a_changed_submission_are_refused(board, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("medfocus_bench.leaderboard.gallery._LOT", 3)
    shutil.copytree(board.submissions, tmp_path / "submissions")
    document = tmp_path / "submissions" / "oracle" / "submission.json"
    document.write_text(document.read_text().replace('"score": 2.0', '"score": 3.0'))
    with (
        open_engine(workers=workers) as engine,
        pytest.raises(InputError, match="not what was scored as oracle"),
    ):
        built(board, tmp_path / "site", submissions=tmp_path / "submissions", engine=engine)
    assert not (tmp_path / "site").exists()


def test_galleries_drawn_in_processes_are_those_drawn_in_one(board, site, tmp_path, monkeypatch):
    monkeypatch.setattr("medfocus_bench.leaderboard.gallery._LOT", 3)
    told = []

    def progress(items, label, total):
        for item in items:
            told.append(total)
            yield item

    with LocalWorkers(2) as engine:
        built(board, tmp_path / "site", engine=engine, progress=progress)
    assert contents(tmp_path / "site") == contents(site.index.parent)
    assert told == [4] * 4  # twelve results in lots of three


@pytest.mark.parametrize("largest", [5e-324, 1e308])
def test_a_token_counts_relative_to_the_largest_however_large_or_small(largest):
    tokens = (("Yes", largest), ("half", largest / 2), ("no", -largest))
    attribution = Attribution("a", boxes=np.zeros((0, 4)), tokens=tokens)
    levels = [mark.level for mark in _marks(attribution)]
    assert levels[0] == 5
    assert levels[2] == 0


def test_no_picture_of_a_licensed_source_is_drawn(board, tmp_path, monkeypatch):
    monkeypatch.setattr("medfocus_bench.leaderboard.gallery.OPEN_SOURCES", ())
    assert built(board, tmp_path / "site").pictures == 0
    assert not (tmp_path / "site" / "gallery").exists()


def test_pictures_of_another_benchmark_are_not_drawn(board, tmp_path):
    other = replace(board.benchmark, fingerprint="0" * 64)
    assert built(board, tmp_path / "site", benchmark=other).pictures == 0


def test_a_build_is_the_same_every_time(board, site, tmp_path):
    again = built(board, tmp_path / "site")
    assert contents(again.index.parent) == contents(site.index.parent)


def test_a_build_replaces_a_site_and_nothing_else(board, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a built site"):
        build_site(board.results, out)
    assert (out / "thesis.txt").read_text() == "mine"
    (out / "thesis.txt").unlink()
    build_site(board.results, out)
    (out / "stale.html").write_text("old")
    build_site(board.results, out)
    assert not (out / "stale.html").exists()


def test_the_page_of_the_reference_submissions_is_small_without_pictures(tmp_path):
    """The bound is for the 15 methods and the 7 null controls; what strangers add takes its own room."""
    page = build_site(REPOSITORY / "leaderboard" / "results", tmp_path / "site")
    further = page.results - 22
    assert further >= 0
    assert page.size < 1_500_000 + 30_000 * further


def test_the_page_grows_linearly_with_the_results(board, tmp_path):
    sizes = []
    nulls = [board.result(f"null-{name}") for name in NULLS]
    for number in (40, 60, 80):  # the matrix of pairs is full from 40 rows on
        many_results(board.result("noisy-a"), nulls, number, tmp_path / str(number))
        payload = board_payload(make_board(read_results(tmp_path / str(number))))
        sizes.append(len(json_block(payload)))
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.05)


def test_the_vendored_library_has_its_licence(site):
    vendor = site.index.parent / "assets" / "vendor"
    assert "MIT" in (vendor / "tabulator-LICENSE.txt").read_text()
    assert "Tabulator v6.5.2" in (vendor / "tabulator.min.js").read_text()[:100]


def test_the_command_builds_and_says_where(board, tmp_path):
    status, out, err = run(
        "leaderboard", "build", "--results", board.results, "--no-gallery", "--out", tmp_path / "site"
    )
    assert (status, err) == (0, "")
    assert f"open {(tmp_path / 'site' / 'index.html').resolve()}" in out
    assert "Withdrawn." in (tmp_path / "site" / "log.html").read_text()


def test_the_command_names_a_result_at_fault(board, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text("{}")
    status, _, err = run(
        "leaderboard", "build", "--results", tmp_path / "results", "--out", tmp_path / "site"
    )
    assert status == 2
    assert err.startswith(f"medfocus-bench: {tmp_path / 'results' / 'x.json'}: /name: ")


@pytest.mark.parametrize("option", ["--log", "--submissions"])
def test_what_is_named_and_not_there_is_refused(board, tmp_path, option):
    status, _, error = run(
        *("leaderboard", "build", "--results", board.results, "--no-gallery"),
        *(option, tmp_path / "none", "--out", tmp_path / "site"),
    )
    assert (status, error.count("\n")) == (2, 1)
    assert f"{tmp_path / 'none'}: is not a" in error
    assert not (tmp_path / "site").exists()


def test_building_the_page_never_imports_torch():
    program = "import sys; import medfocus_bench.leaderboard.site; print('torch' in sys.modules)"
    run_alone = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run_alone.stdout.strip() == "False"
