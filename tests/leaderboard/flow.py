"""A repository with a few submissions and their results, and pull requests to it, on toy data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.leaderboard.log import LOG_NAME, add_event, make_event, scores_on_board
from medfocus_bench.leaderboard.rebuild import Rules, entries, rebuild
from medfocus_bench.submission.document import DOCUMENT_NAME

from ..toy import write_toy

OWNER = "ada-l"
"""The account that the submissions of the repository belong to."""

STRANGER = "stranger"
"""The account that the submission belongs to that is not there yet."""


@cache
def shared_repository(base: Path) -> tuple[Path, Benchmark]:
    """A folder with a repository that tests copy or read, and its benchmark; written once a session."""
    folder = base / "leaderboard-flow"
    benchmark = write_repository(folder)
    repository = folder / "repository"
    (repository / "README.md").write_text("A repository.\n")
    (repository / "submissions" / "README.md").write_text("Submissions.\n")
    git(repository, "init", "--quiet", "--initial-branch", "main")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "all")
    return folder, benchmark


def write_repository(folder: Path) -> Benchmark:
    """`folder/repository` with the submissions oracle, shifted and noisy, all results, and their log.

    `folder/new/blurred` is a submission that is not there yet.
    """
    benchmark = write_toy(folder / "toy", patients=12, control=True)
    repository = folder / "repository"
    for name in ("oracle", "shifted", "noisy"):
        target = repository / "submissions" / name
        shutil.copytree(folder / "toy" / "submissions" / name, target)
        belongs_to(target, OWNER)
    shutil.copytree(folder / "toy" / "submissions" / "blurred", folder / "new" / "blurred")
    belongs_to(folder / "new" / "blurred", STRANGER)
    outcomes = list(
        rebuild(entries(repository / "submissions"), benchmark, Rules(repository / "leaderboard" / "results"))
    )
    assert all(outcome.status == "written" for outcome in outcomes)
    results = repository / "leaderboard" / "results"
    for name, score in scores_on_board(results).items():
        event = make_event("added", name, "First.", day="2026-11-01")
        add_event(results.parent / LOG_NAME, event, {name: score})
    return benchmark


def belongs_to(submission: Path, account: str | None) -> None:
    """Gives the first submitter of a submission this account."""
    url = f"https://github.com/{account}" if account else None
    edit(submission, lambda document: document["submitters"][0].update(url=url))


def edit(submission: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the document of a submission in place."""
    path = submission / DOCUMENT_NAME
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def git(folder: Path, *words: str) -> str:
    """Runs git in a folder, with an identity and without the user's settings."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | none, check=True, capture_output=True, text=True
    )
    return done.stdout
