"""A small board with everything on it: one set of submissions, one built site, one browser a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.evaluation.dependence import Dependence, LVLMDependence
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.nulls import write_null
from medfocus_bench.geometry import Frame
from medfocus_bench.leaderboard import board as values
from medfocus_bench.leaderboard.log import make_event
from medfocus_bench.leaderboard.result import Result, read_results, result_text
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import BuiltSite, build_site
from medfocus_bench.submission.schema import MethodMetadata, Submitter
from medfocus_bench.submission.writer import SubmissionWriter

from .flow import shared_repository

REPOSITORY = Path(__file__).parents[2]
QUESTIONS = 14
LVLMS = ("phantom_qwen", "phantom_gemma_twin")
NULLS = ("whole-image", "both-lungs", "random-map", "mean-map")
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=hacked=1>"
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
Explain = Callable[[Sample], dict[str, Any]]


def oracle(sample: Sample) -> np.ndarray:
    """How much of each pixel of the model frame is evidence."""
    return Frame(sample.width, sample.height).coverage(sample.boxes).astype(np.float32)


def blurred(sample: Sample) -> np.ndarray:
    """The region out of focus, by a quarter of its side."""
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return ndimage.gaussian_filter(oracle(sample), np.sqrt(sides.prod(axis=1).sum()) / 4)


def shifted(sample: Sample) -> np.ndarray:
    """The region moved by half of its width, towards the middle."""
    region = oracle(sample)
    columns = np.flatnonzero(region.any(axis=0))
    half = max((columns[-1] - columns[0] + 1) // 2, 1)
    return np.roll(region, half if columns.mean() < region.shape[1] / 2 else -half, axis=1)


def noisy(strength: float) -> Callable[[Sample], np.ndarray]:
    def explain(sample: Sample) -> np.ndarray:
        rng = np.random.default_rng((sample.index, int(1000 * strength)))
        coarse = ndimage.zoom(oracle(sample), 16 / 224, order=1)
        return (coarse + strength * rng.random((16, 16))).astype(np.float16)

    return explain


@dataclass(frozen=True)
class Entry:
    """A submission of the board of the tests."""

    family: str
    explain: Callable[[Sample], np.ndarray]
    title: str | None = None
    kind: str = "saliency"
    tokens: bool = False
    modes: tuple[str, ...] = ("direct", "reasoning")
    verified: bool = True
    forward: int = 1
    description: str = "A submission of the tests."
    submitter: str = "Ada Lovelace"


ENTRIES = {
    "oracle": Entry("concept", lambda sample: sample.boxes, "Oracle", kind="boxes", tokens=True, forward=16),
    "blurred": Entry("gradient", blurred, "Blurred oracle", forward=2),
    "shifted": Entry("attention", shifted, "Shifted oracle"),
    "noisy-a": Entry("perturbation", noisy(1.00), "Noisy A", forward=65),
    "noisy-b": Entry("perturbation", noisy(1.02), "Noisy B", forward=65),
    "direct-only": Entry("prompting", noisy(2.0), "Direct only", modes=("direct",), submitter="Grace"),
    "boasting": Entry("other", blurred, "=HYPERLINK(1)", verified=False),
    "hostile": Entry("other", noisy(3.0), HOSTILE, description=f"</script>{HOSTILE}", submitter=HOSTILE),
}


def small_track() -> Benchmark:
    """A few questions of the phantom track: an LVLM and a twin, both modes."""
    track = load_benchmark("phantom")
    kept = [s for s in track.samples if s.split != "dev" and s.index < QUESTIONS and s.lvlm in LVLMS]
    return replace(track, samples=tuple(kept))


def write_entry(folder: Path, entry: Entry, benchmark: Benchmark) -> Path:
    part = benchmark.select(benchmark.configs, entry.modes)
    method = MethodMetadata(
        name=folder.name,
        display_name=entry.title,
        family=entry.family,
        version="1.0",
        description=entry.description,
        paper="https://example.org/paper?a=1&b=2",
        needs=["forward"],
        hyperparameters={"layer": 7, "heads": [1, 2], "note": "plain & <simple>"},
    )
    with SubmissionWriter(folder, method, part, submitters=[Submitter(name=entry.submitter)]) as writer:
        for sample in part.samples:
            given: dict[str, Any] = {entry.kind: entry.explain(sample)}
            if entry.tokens:
                given |= {"tokens": [("Yes", 2.0), (".", 0.1)], "concepts": {"cardiac silhouette": 1.0}}
            cost = Cost(entry.forward, 0, 0.01 * entry.forward)
            writer.add(Attribution(sample.sample_id, cost=cost, **given))
    return folder


@dataclass(frozen=True)
class Board:
    """The inputs of a site."""

    benchmark: Benchmark
    submissions: Path
    results: Path
    log: Path

    def result(self, name: str) -> Result:
        return Result.model_validate_json((self.results / f"{name}.json").read_bytes())


def depending(result: Result, dependence: float = 0.9, reason: str | None = None) -> Result:
    """The result of a method that depends on the model so much; `reason` takes its rank."""
    part = {"trained": 0.5, "random": 0.5 * (1 - dependence), "model_dependence": dependence}
    found = Dependence(
        questions=8,
        attributed=8,
        patients=8,
        **{name: Score(mean=value, low=value, high=value) for name, value in part.items()},
        rank_correlation=None,
        lvlms={lvlm: LVLMDependence(**part) for lvlm in LVLMS},
        nulls={},
        ranked=reason is None,
        reason=reason,
    )
    return result.model_copy(update={"report": result.report.model_copy(update={"dependence": found})})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Benchmark]:
    """A folder with a git repository on its branch main and a submission beside it, and its benchmark."""
    return shared_repository(tmp_path_factory.getbasetemp())


@pytest.fixture
def benchmark(original: tuple[Path, Benchmark]) -> Benchmark:
    return original[1]


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("board")
    track = small_track()
    submissions, results = root / "submissions", root / "results"
    results.mkdir()
    for name, entry in ENTRIES.items():
        write_entry(submissions / name, entry, track)
    for name in NULLS:
        write_null(name, track, submissions / f"null-{name}")
    for folder in sorted(submissions.iterdir()):
        verified = folder.name not in ENTRIES or ENTRIES[folder.name].verified
        result = depending(score_result(folder, track, resamples=50, verified=verified))
        (results / f"{folder.name}.json").write_text(result_text(result))
    log = root / "log.jsonl"
    events = [
        make_event("added", "oracle", "First entry.", day="2026-11-01"),
        make_event("rescored", "oracle", HOSTILE, day="2026-11-20", before=0.9, after=1.0),
        make_event("removed", "gone", "Withdrawn.", day="2026-11-21"),
    ]
    log.write_text("".join(event.model_dump_json() + "\n" for event in events))
    return Board(track, submissions, results, log)


@pytest.fixture(scope="session")
def site(board: Board, tmp_path_factory: pytest.TempPathFactory) -> BuiltSite:
    return build_site(
        board.results,
        tmp_path_factory.mktemp("site") / "site",
        log=board.log,
        submissions=board.submissions,
        benchmark=board.benchmark,
    )


@pytest.fixture(scope="session")
def made(board: Board) -> values.Board:
    """All that the page shows of the results, as values."""
    return values.make_board(read_results(board.results))


def pages(site: BuiltSite) -> dict[str, str]:
    """The text of every page by its path."""
    root = site.index.parent
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.html")}


def many_results(seed: Result, nulls: list[Result], number: int, folder: Path) -> None:
    """Writes `number` results like `seed` with scores of their own, and the null controls."""
    folder.mkdir(parents=True)
    for null in nulls:
        (folder / f"{null.name}.json").write_text(null.model_dump_json())
    base = json.loads(seed.model_dump_json())
    families = ("attention", "gradient", "prompting", "perturbation", "concept", "other")
    for index in range(number):
        rng = np.random.default_rng(index)
        value = json.loads(json.dumps(base))
        value["name"] = value["report"]["method"]["name"] = f"method-{index:03d}"
        value["report"]["method"]["display_name"] = f"Method {index:03d}"
        value["report"]["method"]["family"] = families[index % 6]
        shift = float(rng.uniform(-0.4, 0.2))
        for cell in value["headline"]["cells"]:
            noise = rng.normal(shift, 0.1, len(cell["score"]))
            cell["score"] = [round(s + n, 6) for s, n in zip(cell["score"], noise.tolist(), strict=True)]
        for view in value["views"]:
            for score in view["scores"].values():
                for key in ("mean", "low", "high"):
                    score[key] = round(score[key] + shift, 6)
        (folder / f"{value['name']}.json").write_text(json.dumps(value, separators=(",", ":")))


# --- the browser --------------------------------------------------------------------------------------------


PATIENCE = 300_000
"""Milliseconds after which a page hangs; on a busy machine the 5 seconds of the library are not enough."""


def chromium_path() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skipped without one."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
    )
    path = chromium_path()
    if path is None:
        pytest.skip(
            "no Chromium is installed (apt-get install chromium): the page is NOT tested in a browser"
        )
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            timeout=PATIENCE,
        )
        yield running
        running.close()


class Visit:
    """A page of the site, with everything that went wrong on it."""

    def __init__(self, context: Any, folder: Path) -> None:
        self.folder = folder
        self.page = context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.problems.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._seen)

    def _seen(self, request: Any) -> None:
        if not request.url.startswith(("file://", "blob:file://")):
            self.problems.append(f"request: {request.url}")

    def open(self, name: str = "index.html", hash_: str = "") -> Any:
        """Opens a page and waits for its table, where it has one."""
        self.page.goto("about:blank")
        self.page.goto((self.folder / name).as_uri() + hash_)
        if name == "index.html":
            self.page.wait_for_selector("html[data-ready]")
        return self.page


@pytest.fixture
def visit(browser: Any, site: BuiltSite) -> Iterator[Callable[..., Visit]]:
    """Opens pages in a fresh profile of the browser; settings as `new_context` takes them."""
    contexts: list[Any] = []
    visits: list[Visit] = []

    def start(folder: Path | None = None, **settings: Any) -> Visit:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        visits.append(Visit(context, folder or site.index.parent))
        return visits[-1]

    yield start
    for context in contexts:
        context.close()
    assert [problem for opened in visits for problem in opened.problems] == []
