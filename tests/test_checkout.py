"""A checkout holds the same bytes on every machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .leaderboard.flow import git

ROOT = Path(__file__).parents[1]
TEXTS = (".py", ".json", ".jsonl", ".md", ".yml", ".toml", ".txt", ".js", ".css", ".html", ".svg", ".jinja")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """A repository of a few files of this one, of every kind that is compared or hashed byte by byte."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout with git")
    folder = tmp_path_factory.mktemp("checkout") / "upstream"
    tracked = git(ROOT, "ls-files", "-z").split("\0")
    first_of_kind = {Path(name).suffix: name for name in reversed(tracked) if (ROOT / name).is_file()}
    chosen = {
        *first_of_kind.values(),
        *(name for name in tracked if name.startswith(("leaderboard/", "submissions/lrp/"))),
        ".gitattributes",
    }
    for name in sorted(chosen):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all")
    return folder


@pytest.mark.parametrize("autocrlf", ["true", "input", "false"])
def test_a_clone_has_the_same_bytes_whatever_git_makes_of_line_ends(upstream, tmp_path, autocrlf):
    git(tmp_path, "clone", "--quiet", "-c", f"core.autocrlf={autocrlf}", "-c", "core.eol=crlf",
        str(upstream), "clone")  # fmt: skip
    names = git(upstream, "ls-files", "-z").split("\0")[:-1]
    assert {".json", ".jsonl", ".md", ".py", ".parquet", ".safetensors", ".png"} <= {
        Path(name).suffix for name in names
    }
    apart = [n for n in names if (tmp_path / "clone" / n).read_bytes() != (ROOT / n).read_bytes()]
    assert apart == []
    assert git(tmp_path / "clone", "status", "--porcelain") == ""


def test_without_the_attributes_the_bytes_would_differ(upstream, tmp_path):
    git(tmp_path, "clone", "--quiet", str(upstream), "bare-of-them")
    (tmp_path / "bare-of-them" / ".gitattributes").unlink()
    git(tmp_path / "bare-of-them", "commit", "--quiet", "-am", "no attributes")
    git(tmp_path, "clone", "--quiet", "-c", "core.autocrlf=true", "bare-of-them", "clone")
    log = tmp_path / "clone" / "leaderboard" / "log.jsonl"
    assert b"\r\n" in log.read_bytes()
    assert b"\r\n" not in (ROOT / "leaderboard" / "log.jsonl").read_bytes()


def test_no_text_of_the_repository_has_other_line_ends():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout with git")
    lines = [line for line in git(ROOT, "ls-files", "--eol", "-z").split("\0") if line]
    strange = [line for line in lines if line.split("\t")[1].endswith(TEXTS) and "i/lf" not in line]
    assert [line for line in strange if "i/none" not in line] == []
