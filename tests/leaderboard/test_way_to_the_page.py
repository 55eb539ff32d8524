"""From a stranger's script to the own row on the page, as docs/submit.md prints it, in a real repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medfocus_bench.cli.main import cli

from ..cli.running import run
from .flow import git

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The parts of the repository that the way touches, with one submission of the others, committed."""
    here = tmp_path / "clone"
    for name in ("leaderboard/results", "submissions/grad-cam"):
        shutil.copytree(ROOT / name, here / name)
    for name in (".gitignore", "leaderboard/log.jsonl"):
        shutil.copy(ROOT / name, here / name)
    git(here, "init", "-q")
    git(here, "add", "-A")
    git(here, "commit", "-qm", "as it is")
    monkeypatch.chdir(here)
    return here


def blocks(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_after_all_commands_of_the_page_git_shows_the_submission_alone(clone, capsys):
    (script,) = blocks("submit.md", "python")
    (clone / "make_submission.py").write_text(script)
    (look,) = [block for block in blocks("submit.md", "sh") if "leaderboard build" in block]
    subprocess.run([sys.executable, "make_submission.py"], cwd=clone, check=True)
    cli.main(["submit", "submissions/my-method"], standalone_mode=False)
    shown = capsys.readouterr()
    assert "my-method: sound" in shown.out
    assert "stands alone" not in shown.err
    for line in look.splitlines():
        if line.startswith("medfocus-bench"):
            cli.main(line.split()[1:], standalone_mode=False)
        else:
            subprocess.run(["bash", "-c", line], cwd=clone, check=True)
    assert "my-method" in (clone / "build" / "site" / "index.html").read_text()
    assert git(clone, "status", "--porcelain", "--untracked-files=all").splitlines() == [
        "?? submissions/my-method/maps.safetensors",
        "?? submissions/my-method/submission.json",
    ]


def test_whatever_a_page_has_a_user_write_in_a_clone_is_ignored(clone):
    """The places after --out and -o, in every command of every page."""
    written = {
        place
        for page in PAGES
        for place in re.findall(r"medfocus-bench[^\n`]* (?:--out|-o) ([\w./-]+)", page.read_text())
        if not place.startswith("submissions/") and not place.isupper()
    }
    assert {"run", "mine/grad-cam", "tuned.json"} <= written
    for place in sorted(written):
        path = clone / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if "." in path.name else path.mkdir(exist_ok=True)
        (path / "file").touch() if path.is_dir() else None
    assert git(clone, "status", "--porcelain", "--untracked-files=all") == ""


def test_outside_a_clone_the_row_is_said_to_stand_alone(clone, tmp_path, monkeypatch):
    shutil.copytree(clone / "submissions", tmp_path / "away" / "submissions")
    monkeypatch.chdir(tmp_path / "away")
    status, _, error = run("submit", "submissions/grad-cam")
    assert status == 0
    assert "No results of others are here, so that the row stands alone; run this in a clone" in error
