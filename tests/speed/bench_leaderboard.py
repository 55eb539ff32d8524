"""The leaderboard's page with many submissions: build time, size, and the first interaction in Chromium."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.engine.local import LocalWorkers
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.leaderboard.result import Result
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import build_site
from medfocus_bench.submission.writer import SubmissionWriter
from tests.leaderboard.conftest import ENTRIES, chromium_path, many_results, write_entry
from tests.speed.figures import Figure
from tests.speed.machine import Rates

NUMBERS = (125, 250, 500)
NULLS = ("whole-image", "both-lungs", "mean-map")


def run(rates: Rates) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        seed, nulls = _scored(root)
        sizes = []
        for number in NUMBERS:
            results = root / f"results-{number}"
            many_results(seed, nulls, number, results)
            start = perf_counter()
            site = build_site(results, root / f"site-{number}")
            took = perf_counter() - start
            sizes.append(site.index.stat().st_size)
            detail = f"{site.pages} pages, {site.size / 1e6:.1f} MB"
            limit = rates.of_bytes(took, site.size, "pages, written once")
            yield Figure(f"build with {number} submissions", took, "s", detail, "< 60 s", took < 60, limit)
        yield _with_galleries(root)
        first, second = (sizes[1] - sizes[0]) / 125, (sizes[2] - sizes[1]) / 250
        detail = f"{first:.0f} and {second:.0f} bytes for each further submission"
        yield Figure("index.html", sizes[2] / 1e6, "MB", detail, "linear", second < 1.05 * first)
        yield from _visit(root / f"site-{NUMBERS[-1]}" / "index.html")


def _with_galleries(root: Path) -> Figure:
    """`leaderboard build` on two cores, with a folder of raw attributions for every row."""
    submissions = root / "submissions"
    submissions.mkdir()
    for number in range(NUMBERS[-1]):
        (submissions / f"method-{number:03d}").symlink_to(root / "seed", target_is_directory=True)
    start = perf_counter()
    with LocalWorkers(2) as engine:
        site = build_site(
            root / f"results-{NUMBERS[-1]}",
            root / "with-galleries",
            submissions=submissions,
            benchmark=load_benchmark("phantom"),
            engine=engine,
        )
    took = perf_counter() - start
    detail = f"{site.pictures} pictures, 2 workers"
    return Figure(f"build with {NUMBERS[-1]} galleries", took, "s", detail, "< 60 s", took < 60)


def _scored(root: Path) -> tuple[Result, list[Result]]:
    """A result over both modes of the whole phantom track, and null controls."""
    track = load_benchmark("phantom")
    part = track.select(track.configs, ["direct", "reasoning"])
    seed = score_result(
        write_entry(root / "seed", ENTRIES["noisy-a"], part), part, resamples=200, verified=True
    )
    nulls = []
    for name in NULLS:
        control = NULL_CONTROLS[name]
        with SubmissionWriter(root / f"null-{name}", control.method(), part, submitters=["x"]) as writer:
            for _, attribution in control.make(part.samples, 0):
                writer.add(attribution)
        nulls.append(score_result(root / f"null-{name}", part, resamples=200, verified=True))
    return seed, nulls


def _visit(index: Path) -> Iterator[Figure]:
    path = chromium_path()
    if path is None:
        yield Figure("first interaction", 0, "s", "not measured: no Chromium here")
        return
    from playwright.sync_api import expect, sync_playwright

    samples = load_benchmark("phantom").samples
    of_qwen = sum(sample.lvlm == "phantom_qwen" and sample.split != "dev" for sample in samples)
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        for _ in range(3):
            page = browser.new_page()
            start = perf_counter()
            page.goto(index.as_uri())
            page.wait_for_selector("html[data-ready]")
            ready = perf_counter() - start
            start = perf_counter()
            page.fill("#f-q", f"method {NUMBERS[-1] - 1}")
            expect(page.locator(".tabulator-row")).to_have_count(1 + len(NULLS))
            search = perf_counter() - start
            page.fill("#f-q", "")
            start = perf_counter()
            page.select_option("#f-lvlm", "phantom_qwen")
            expect(page.locator("#status")).to_contain_text(f"{of_qwen} samples")
            ranked = perf_counter() - start
            both = ready + search
            detail = f"table {ready:.2f} s, search {search:.2f} s, filter with new ranks {ranked:.2f} s"
            yield Figure("first interaction", both, "s", detail, "table and search < 2 s", both < 2)
            page.close()
        browser.close()
