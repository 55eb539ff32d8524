"""Two rules of plain English, for docstrings, comments, messages and pages.

A sentence that begins with "What" and asks nothing hides its subject; nobody says "is no folder" for
"is not a folder".
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medfocus_bench"

WHAT = re.compile(r"\bWhat\b(?![^.!\"]*\?)[^.]{0,60}")
IS_NO = re.compile(
    r"(?<![Tt]here )\b(?:is|are|was|were)\s+(?:no\s+(?!longer|more|way|other)[a-z]+|none)\b.{0,40}"
)

ROOMS = [
    *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")),
    "medfocus_bench",
    "tests",
    "docs",
]


def files_of(room: str) -> list[Path]:
    if room == "docs":
        return sorted(
            [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "data_cards").glob("*.md")]
        )
    if room == "tests":
        return sorted(set((ROOT / "tests").rglob("*.py")) - {Path(__file__)})
    return sorted(PACKAGE.glob("*.py") if room == "medfocus_bench" else (PACKAGE / room).rglob("*.py"))


def prose(path: Path) -> str:
    """A page without its code, the docstrings and comments of a test, and any other module as it is."""
    text = path.read_text()
    if path.suffix == ".md":
        return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    if ROOT / "tests" in path.parents:  # their strings quote the answers of models
        return "\n".join(re.findall(r'"""(?:.|\n)*?"""|# .*', text))
    return text


def faults(room: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {' '.join(match[0].split())}"
        for path in files_of(room)
        for rule in (WHAT, IS_NO)
        for match in rule.finditer(prose(path))
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_no_sentence_begins_with_what_and_nothing_is_no_thing(room):
    assert faults(room) == []


def test_the_rules_find_their_faults_and_no_others():
    def is_fault(text):
        return bool(WHAT.search(text) or IS_NO.search(text))

    assert all(map(is_fault, ("What it is.", "x is no folder", "they are none")))
    assert not any(map(is_fault, ("What is it? It is no longer there.", "There is no folder.")))
