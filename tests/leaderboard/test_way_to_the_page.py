"""Files that the pages have a user write in a clone of the repository are not shown by git."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from .flow import git

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_whatever_a_page_has_a_user_write_in_a_clone_is_ignored(tmp_path):
    """The places after --out and -o, in every command of every page."""
    git(tmp_path, "init", "-q")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "as it is")
    written = {
        place
        for page in PAGES
        for place in re.findall(r"medfocus-bench[^\n`]* (?:--out|-o) ([\w./-]+)", page.read_text())
        if not place.startswith("submissions/") and not place.isupper()
    }
    assert {"run", "mine/grad-cam", "tuned.json"} <= written
    for place in sorted(written):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if "." in path.name else path.mkdir(exist_ok=True)
        (path / "file").touch() if path.is_dir() else None
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == ""
