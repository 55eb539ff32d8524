"""Where two results of one submission differ: the committed one and the one that was computed again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from medfocus_bench.leaderboard.result import Result

TOLERANCE: Final = 2e-6
"""Numbers that differ by less are the same: two roundings to six digits of what differs in the last bit."""

MAX_DIFFERENCES: Final = 5
"""Places that are named of one result; one changed map moves hundreds of figures."""

_COUNTED: Final = 1000
_FILTERS: Final = ("source", "lvlm", "mode", "evidence")


def differences(committed: Result, recomputed: Result) -> list[str]:
    """Each place where they differ with both values, the first `MAX_DIFFERENCES` and a count of the rest.

    The sha256 of a null control's submission does not count: its maps are made anew each time, and the last
    bit of them is the processor's.
    """
    skipped = {"/report/provenance/submission_sha256"} if recomputed.is_null else set()
    found = _walk(committed.model_dump(mode="json"), recomputed.model_dump(mode="json"), "", "")
    listed = [text for pointer, text in islice(found, _COUNTED) if pointer not in skipped]
    if len(listed) <= MAX_DIFFERENCES:
        return listed
    more = len(listed) - MAX_DIFFERENCES
    count = f"{more} or more" if len(listed) >= _COUNTED else f"{more}"
    return [*listed[:MAX_DIFFERENCES], f"and {count} other places"]


def _walk(old: Any, new: Any, pointer: str, place: str) -> Iterator[tuple[str, str]]:
    """Pairs of a plain JSON pointer and the sentence about it; `place` is the pointer with labels."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from _walk(old.get(key), new.get(key), f"{pointer}/{step}", f"{place}/{step}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield pointer, f"{place}: has {len(old)} entries, recomputed {len(new)}"
            return
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            step = f"/{number}"
            yield from _walk(before, after, pointer + step, place + step + _label(before))
    elif not _same(old, new):
        yield pointer, f"{place}: is {_shown(old)}, recomputed {_shown(new)}"


def _same(old: Any, new: Any) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    if numbers and not isinstance(old, bool) and not isinstance(new, bool):
        return bool(abs(old - new) <= TOLERANCE)
    return type(old) is type(new) and bool(old == new)


def _label(entry: Any) -> str:
    """What an entry of a list is of, for a reader: its slice or its filters."""
    if not isinstance(entry, dict):
        return ""
    if "kind" in entry and "value" in entry:
        return f" ({entry['kind']}: {entry['value']})"
    if "scores" in entry or "score" in entry:
        chosen = [str(entry[key]) for key in _FILTERS if entry.get(key)]
        return f" ({', '.join(chosen) or 'everything'})"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
