"""The progress protocol: anything that shows how far a loop is while it passes the items through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Yields the items it is given, and shows how many of `total` have passed.

    `label` names the work, for example an LVLM and a split.
    """

    def __call__(self, items: Iterable[Item], label: str, total: int, /) -> Iterable[Item]: ...


def no_progress(items: Iterable[Item], label: str, total: int, /) -> Iterable[Item]:
    """Pass the items through and show nothing."""
    return items
