"""The protocol of annotated sources: their questions in one fixed order, without pictures.

The index of a question is its rank in the *annotation table alone*: which pictures are there, and which can
be decoded, never changes it. A question whose boxes or picture cannot be used keeps its rank and becomes a
`Skip`. Where a damaged table leaves the rank itself open (a row that cannot be told apart from a question),
`Source.annotations` raises instead: a shifted index would silently name another question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Protocol

from medfocus_bench.geometry import FloatArray

Split = Literal["test", "dev"]

DEV_START: Final = 90_000
"""The first index of a dev split: an index stands for one question of a source, whatever the split."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """A question without its picture.

    `patient_id` is an opaque cluster id (see `patient_cluster`). `image_ref` is the picture's path relative
    to the user's root, with forward slashes. `boxes` (n, 4) are native pixels, or shares of the picture's
    width and height where `relative` holds. `anatomy` holds a box (1, 4) of each concept that the source
    outlines, on the same scale. `place` names the rows it was read from.
    """

    source: str
    index: int
    patient_id: str
    finding: str
    image_ref: str
    boxes: FloatArray
    relative: bool = False
    place: str = ""
    anatomy: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skip:
    """An unusable part of a source. `index`: its rank, which it keeps; None if it has no rank."""

    place: str
    reason: str
    index: int | None = None

    def __str__(self) -> str:
        rank = "" if self.index is None else f" (question {self.index})"
        return f"{self.place}{rank}: {self.reason}"


@dataclass(frozen=True)
class Annotations:
    """The questions of one split of a source in the order of their indices, and what was skipped.

    `found` counts the ranks: the questions and those that were skipped.
    """

    source: str
    split: Split
    questions: tuple[Annotation, ...]
    skips: tuple[Skip, ...]
    found: int

    @cached_property
    def by_index(self) -> Mapping[int, Annotation]:
        return {question.index: question for question in self.questions}

    @cached_property
    def skip_of(self) -> Mapping[int, Skip]:
        """The skips that keep a rank, by it."""
        return {skip.index: skip for skip in self.skips if skip.index is not None}


@dataclass(frozen=True, slots=True)
class Release:
    """How the published dataset names a source: title, licence with its link, and the copy to join.

    `is_open`: pixels and boxes are part of the dataset; else it holds pointers only.
    """

    title: str
    licence: str
    link: str
    join: str
    is_open: bool = False


class Source(Protocol):
    """An annotated collection below a folder of the user's, the root.

    `expected` holds the published number of questions of each split. `tables` are the places, relative to
    the root, at which the annotation table is looked for, in this order; `optional` are files that add
    something, with what is lacking without them; `pictures` says where a picture lies, for messages.
    `release` is None for a source that is not part of the published dataset.
    """

    name: str
    title: str
    expected: Mapping[Split, int]
    tables: tuple[str, ...]
    optional: Mapping[str, str]
    pictures: str
    release: Release | None

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        """The questions of a split.

        Raises InputError that names the place if the table is not there, cannot be read, or is damaged in
        such a way that ranks cannot be told.
        """
        ...


@lru_cache(maxsize=4096)
def patient_cluster(source: str, patient: str) -> str:
    """The anonymous id of a patient, the same for all of their questions."""
    return "p" + sha256(f"{source}:{patient}".encode()).hexdigest()[:16]


def split_of_index(index: int) -> Split:
    """The split that an index belongs to."""
    return "test" if index < DEV_START else "dev"
