"""The check that every submission passes: one function for `submit`, for the guard and for CI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.report_tables import report_summary
from medfocus_bench.leaderboard.result import Result, result_text
from medfocus_bench.leaderboard.review.checks import (
    SUBMISSIONS,
    check_place,
    check_submission,
    titles_beside,
)
from medfocus_bench.leaderboard.review.duplicates import copied_from
from medfocus_bench.leaderboard.review.rank_preview import Standing, standing, standing_tables
from medfocus_bench.leaderboard.review.unicode_safety import neutral
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import BuiltSite, build_site
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.submission.document import DOCUMENT_NAME, DocumentError, parse_document, read_document
from medfocus_bench.submission.reader import Submission
from medfocus_bench.submission.schema import Submitter
from medfocus_bench.tables import Table, render_markdown

MAX_PROBLEMS: Final = 50
"""Problems that the Markdown of a review lists."""

_ACCOUNT: Final = re.compile(r"https?://(?:www\.)?github\.com/([A-Za-z0-9-]{1,39})/?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Review:
    """The outcome for one submission: its problems, or the result and row that it would get."""

    folder: Path
    problems: tuple[str, ...] = ()
    result: Result | None = None
    row: Standing | None = None

    @property
    def summary(self) -> list[str]:
        """A few lines about what was scored; empty where there are problems."""
        return report_summary(self.result.report) if self.result else []

    @property
    def tables(self) -> list[Table]:
        """The row among its neighbours, and the ranks that change."""
        return standing_tables(self.row) if self.row else []

    def markdown(self) -> str:
        """For the summary of a CI job; no text of the submission can be more than text."""
        if self.result is None:
            return refused_markdown(self.problems)
        return f"## {neutral(self.result.name)}: sound\n\n" + render_markdown(
            self.tables, self.summary, escape=neutral
        )


def refused_markdown(problems: Sequence[str]) -> str:
    """The problems, the first `MAX_PROBLEMS` of them, for the summary of a CI job."""
    listed = [f"- {neutral(problem)}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        listed.append(f"- and {len(problems) - MAX_PROBLEMS} more")
    count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
    return f"## Refused: {count}\n\n" + "\n".join(listed) + "\n"


def review(
    folder: Path,
    benchmark: Benchmark,
    committed: Sequence[Result] = (),
    *,
    beside: Path | None = None,
    before: Path | None = None,
    author: str | None = None,
    progress: Progress = no_progress,
) -> Review:
    """Check the submission in `folder` as a pull request is checked, and score it if it is sound.

    Its document is read, parsed and hashed once, and so are its maps; nothing of it is run.

    Args:
        folder: `submissions/<name>`, read as data.
        benchmark: the benchmark that the leaderboard ranks on.
        committed: the results of the leaderboard, for names that are taken and for the row.
        beside: the folder of the other submissions. Default: the one that `folder` lies in.
        before: the document that a change replaces, whose submitters own the folder.
        author: the account that opened the pull request; None before there is one.
        progress: shows how far the scoring is.

    """
    beside = folder.parent if beside is None else beside
    titles = titles_beside(beside) | {result.name: result.title for result in committed}
    checked = check_submission(folder, benchmark, titles)
    parsed = checked.inspection.parsed if checked.inspection else None
    submitters = parsed.document.submitters if parsed and parsed.document else None
    problems = [*check_place(folder), *checked.problems]
    if before is None or author is None:
        problems += _account(folder, submitters, author)
    else:
        problems += _ownership(before, submitters, author)
    if checked.inspection and not problems:
        problems += copied_from(checked.inspection, beside, benchmark)
    submission = checked.inspection.submission if checked.inspection else None
    if problems or submission is None:
        return Review(folder, tuple(problems))
    result = score_result(submission, benchmark, verified=True, progress=progress)
    try:
        preview(result, submission, folder, benchmark)
    except InputError as error:
        return Review(folder, error.problems)
    return Review(folder, (), result, standing(result, committed))


def preview(result: Result, submission: Submission, folder: Path, benchmark: Benchmark) -> BuiltSite:
    """Build the site of this one result with the gallery of its submission, and remove it.

    Raises whatever would stop the site of all results, which no single submission may.
    """
    with TemporaryDirectory(prefix="medfocus-bench-") as work:
        results = Path(work) / "results"
        results.mkdir()
        (results / f"{result.name}.json").write_text(result_text(result), encoding="utf-8")
        return build_site(
            results,
            Path(work) / "site",
            submissions=folder.parent,
            benchmark=benchmark,
            opened={result.name: submission},
        )


def _account(folder: Path, submitters: Sequence[Submitter] | None, author: str | None) -> Iterator[str]:
    """Check that a new submission names who may change it later: its `author`, or any account.

    Nothing is said of an unsound document, whose own problems are.
    """
    accounts = _accounts(submitters or ())
    if submitters is None or (author.lower() in accounts if author else accounts):
        return
    who = author or "YOU"
    named = f"names the account {author}, which opened the pull request" if author else "names an account"
    yield (
        f"{folder / DOCUMENT_NAME}: /submitters: none {named}, so that nobody could change the folder later; "
        f'give one of them "url": "https://github.com/{who}" (for `pack`: '
        f'--submitter "NAME <https://github.com/{who}>")'
    )


def _ownership(before: Path, submitters: Sequence[Submitter] | None, author: str) -> Iterator[str]:
    """Check that the author is a submitter of the existing submission, and that those stay the same."""
    owners = _submitters(before)
    accounts = _accounts(owners or ())
    place = f"{SUBMISSIONS}/{before.parent.name}"
    if not accounts:
        yield (
            f"{place}: exists already, and none of its submitters gives a GitHub account as url, so that its "
            "owner is unknown; take another name, or ask in an issue"
        )
    elif author.lower() not in accounts:
        yield (
            f"{place}: exists already and belongs to {', '.join(sorted(accounts))}, not to {author}; take "
            "another name"
        )
    if submitters is not None and owners != list(submitters):
        yield f"{place}/{DOCUMENT_NAME}: /submitters: were changed; keep them, or ask for it in an issue"


def _accounts(submitters: Iterable[Submitter]) -> set[str]:
    """Their accounts on GitHub, in lower case, as it tells accounts apart."""
    urls = (submitter.url for submitter in submitters if submitter.url is not None)
    return {found[1].lower() for url in urls if (found := _ACCOUNT.fullmatch(url))}


def _submitters(path: Path) -> list[Submitter] | None:
    """The submitters of a committed document; None for an unsound one."""
    try:
        raw = read_document(path)
    except DocumentError:
        return None
    document = parse_document(raw, str(path)).document
    return None if document is None else list(document.submitters)
