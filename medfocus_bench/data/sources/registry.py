"""The sources by name."""

from __future__ import annotations

from typing import Final

from medfocus_bench.data.sources.imagenome import ImaGenome
from medfocus_bench.data.sources.nih import NIH
from medfocus_bench.data.sources.padchest_gr import PadChestGR
from medfocus_bench.data.sources.protocol import Source
from medfocus_bench.data.sources.vindr_cxr import VinDrCXR
from medfocus_bench.errors import InputError

SOURCES: Final[dict[str, Source]] = {
    source.name: source for source in (ImaGenome(), VinDrCXR(), PadChestGR(), NIH())
}
"""All of them; `nih` is an extension beyond the paper."""

PUBLISHED: Final = ("imagenome", "vindr_cxr", "padchest_gr")
"""The sources of the published benchmark."""


def open_source(name: str) -> Source:
    """The source of that name. Raises InputError that lists the names."""
    if name not in SOURCES:
        raise InputError(f"no source {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]
