"""Annotated collections of radiographs: questions, pictures and the experts' boxes."""

from medfocus_bench.data.sources.protocol import Annotation, Annotations, Skip, Source, Split
from medfocus_bench.data.sources.reading import iter_questions, locate, read_question
from medfocus_bench.data.sources.registry import installed_sources, open_source

__all__ = [
    "Annotation",
    "Annotations",
    "Skip",
    "Source",
    "Split",
    "installed_sources",
    "iter_questions",
    "locate",
    "open_source",
    "read_question",
]
