"""The progress protocol: anything that shows how far a loop is while it passes the items through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


Say = Callable[[str], None]
"""Tells whoever waits a sentence."""


def say_nothing(sentence: str) -> None:
    """Keep a sentence."""


def once(say: Say) -> Say:
    """Tell each sentence but once."""
    told: set[str] = set()

    def tell(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            say(sentence)

    return tell


class Progress(Protocol):
    """Yields the items it is given, and shows how many of `total` have passed.

    `label` names the work, for example an LVLM and a split.
    """

    def __call__(self, items: Iterable[Item], label: str, total: int, /) -> Iterable[Item]: ...


def no_progress(items: Iterable[Item], label: str, total: int, /) -> Iterable[Item]:
    """Pass the items through and show nothing."""
    return items
