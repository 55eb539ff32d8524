"""The static site: templates filled with the board, assets copied beside them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medfocus_bench._version import __version__
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.engine.protocol import Engine
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION
from medfocus_bench.evaluation.sections import SECTIONS
from medfocus_bench.leaderboard.board import Board, make_board
from medfocus_bench.leaderboard.convergence import convergence
from medfocus_bench.leaderboard.convergence_tables import convergence_tables
from medfocus_bench.leaderboard.gallery import GalleryPicture, make_galleries
from medfocus_bench.leaderboard.log import LogEntry, read_log
from medfocus_bench.leaderboard.page_data import board_payload, json_block
from medfocus_bench.leaderboard.pages import lvlm_page, method_page
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.leaderboard.review.checks import titles_beside
from medfocus_bench.paper import published
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import atomic_folder
from medfocus_bench.submission.reader import Submission
from medfocus_bench.submission.schema import URL_PATTERN

REPOSITORY: Final = "https://github.com/medfocus/medfocus-bench"

MARKER: Final = ".medfocus-bench-site"
"""A file that marks a folder as a built site, which the next build may replace."""

_HERE: Final = Path(__file__).parent
_HTTP = re.compile(URL_PATTERN, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BuiltSite:
    """A built site. `size` is in bytes, without the gallery."""

    index: Path
    results: int
    pages: int
    pictures: int
    size: int


def build_site(
    results: Path,
    out: Path,
    *,
    log: Path | None = None,
    submissions: Path | None = None,
    benchmark: Benchmark | None = None,
    opened: Mapping[str, Submission] | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> BuiltSite:
    """Build the site of the results in a folder into `out`, which it replaces if it is a site.

    With `submissions` and `benchmark`, methods get a gallery, drawn by `engine`; those in `opened` are not
    read again. `log` is the file of events. Raises InputError for a result or an event that is
    unsound, and for an `out` that holds something else.
    """
    board = make_board(read_results(results))
    events = read_log(log) if log is not None else []
    _check_vacant(out)
    galleries: Mapping[str, Sequence[GalleryPicture]] = {}
    with atomic_folder(out) as work:
        (work / MARKER).write_text(f"medfocus-bench {__version__}\n", encoding="utf-8")
        if submissions is not None and benchmark is not None:
            # Only of results whose samples the benchmark has.
            shown = board.results if benchmark.fingerprint == board.benchmark.fingerprint else ()
            galleries = make_galleries(
                shown, submissions, benchmark, work, opened=opened, engine=engine, progress=progress
            )
        shutil.copytree(_HERE / "assets", work / "assets")
        pages = _pages(board, galleries, events, _pending(board, submissions))
        for name, text in pages.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    gallery = out / "gallery"
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file() and gallery not in p.parents)
    pictures = sum(len(found) for found in galleries.values())
    return BuiltSite(out / "index.html", len(board.results), len(pages), pictures, size)


def http_link(url: str | None) -> str | None:
    """A link that may be followed from a page: http or https, nothing else."""
    return url if url is not None and _HTTP.fullmatch(url) else None


def page_name(text: str) -> str:
    """A file name for a text; texts that differ never share one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:60]
    return plain if plain and plain == text else f"{plain or 'page'}-{sha256(text.encode()).hexdigest()[:8]}"


def _check_vacant(out: Path) -> None:
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not a built site; give another folder, or remove it first")


def _pending(board: Board, submissions: Path | None) -> list[str]:
    """The submissions that were merged and whose results are yet to come."""
    if submissions is None:
        return []
    return sorted(titles_beside(submissions).keys() - {result.name for result in board.results})


def _pages(
    board: Board,
    galleries: Mapping[str, Sequence[GalleryPicture]],
    events: Sequence[LogEntry],
    pending: Sequence[str],
) -> dict[str, str]:
    environment = _environment()
    lvlms = sorted({part[1] for part in board.parts})
    lvlm_pages = [(lvlm, f"lvlms/{page_name(lvlm)}.html") for lvlm in lvlms]
    common = {
        "board": board,
        "lvlms": lvlm_pages,
        "metrics": metrics(),
        "sections": SECTIONS,
        "repository": REPOSITORY,
        "evaluator": EVALUATOR_VERSION,
    }

    def render(template: str, root: str = "", **more: Any) -> str:
        return environment.get_template(template).render(root=root, **common, **more)

    names = {result.name for result in board.results}
    pages = {
        "index.html": render(
            "index.html",
            view=board.default,
            pending=pending,
            payload=json_block(board_payload(board)),
            here="index",
        ),
        "how-to-read.html": render("read.html", here="read"),
        "how-to-submit.html": render("submit.html", here="submit"),
        "paper.html": render(
            "paper.html", paper=published, scores=metrics("paper"), here="paper", **_convergence(board)
        ),
        "log.html": render("log.html", events=events[::-1], names=names, here="log"),
    }
    for lvlm, path in lvlm_pages:
        pages[path] = render("lvlm.html", "../", page=lvlm_page(board, lvlm), here="lvlm")
    for result in board.results:
        page = method_page(board, result, galleries.get(result.name, ()))
        pages[f"methods/{result.name}.html"] = render("method.html", "../", page=page, here="method")
    return pages


def _convergence(board: Board) -> dict[str, Any]:
    """The rankings of board and paper beside each other, where they share enough methods."""
    try:
        table = convergence(board.results)
    except InputError:
        return {"convergence": None, "tables": ()}
    return {"convergence": table, "tables": convergence_tables(table)}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": _score,
        "bare": _bare,
        "place": _place,
        "http_link": http_link,
        "amount": _amount,
    }
    return environment


def _score(value: float) -> str:
    return f"{value:z.3f}"


def _bare(value: float) -> str:
    """A score without the zero before its point: many of them stand close together."""
    return re.sub(r"^(-?)0\.", r"\1.", _score(value))


def _place(value: float, width: float = 100.0) -> str:
    """A score's place on an axis from 0 to 1, cut at its ends."""
    return f"{min(max(value, 0.0), 1.0) * width:.1f}"


def _amount(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,.3g}"
