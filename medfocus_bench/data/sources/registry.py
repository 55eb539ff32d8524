"""The sources by name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Final

from medfocus_bench.data.sources.protocol import Source
from medfocus_bench.errors import InputError

GROUP: Final = "medfocus_bench.sources"
"""The entry point group by which a package adds sources: classes that follow the protocol `Source`."""


@cache
def installed_sources() -> dict[str, Source]:
    """All sources by name: those of the published benchmark first, then by the number of their questions."""
    sources: list[Source] = [entry.load()() for entry in entry_points(group=GROUP)]
    ordered = sorted(sources, key=lambda source: (source.release is None, sum(source.expected.values())))
    return {source.name: source for source in ordered}


def published_sources() -> tuple[str, ...]:
    """The sources of the published benchmark."""
    return tuple(name for name, source in installed_sources().items() if source.release is not None)


def open_source(name: str) -> Source:
    """The source of that name. Raises InputError that lists the names."""
    sources = installed_sources()
    if name not in sources:
        raise InputError(f"no source {name!r}; there are {', '.join(sources)}")
    return sources[name]
