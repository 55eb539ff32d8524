"""The samples that a run wants, by LVLM and split: written beside its records for `status` to read."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from medfocus_bench.errors import InputError, sentence
from medfocus_bench.runs.records import read_failures
from medfocus_bench.runs.settings import MAX_DOCUMENT_BYTES, write_document
from medfocus_bench.storage import read_regular
from medfocus_bench.submission.schema import Finite, Strict

WANTED_NAME: Final = "wanted.json"
FORMAT: Final[Literal["medfocus-bench wanted 1"]] = "medfocus-bench wanted 1"

Count = Annotated[int, Field(ge=0)]


class WantedPart(Strict):
    """The samples that the last call for one LVLM and split wants; `called`: when, in seconds since 1970.

    `others` and `other_failures`: records and failures in the folder of samples that it does not want. `had`
    and `began`: how many it had when its turn last came, and when that was. `turn`: whether it came or comes
    in the last call; None where that does not ask for it.
    """

    lvlm: str
    split: str
    samples: Count
    called: Finite
    others: Count = 0
    other_failures: Count = 0
    had: Count = 0
    began: Finite | None = None
    turn: Literal["comes", "came"] | None = "comes"

    @property
    def key(self) -> tuple[str, str]:
        return self.lvlm, self.split


class Wanted(Strict):
    """The content of `wanted.json`, in the folder of a method."""

    format: Literal["medfocus-bench wanted 1"] = FORMAT
    parts: list[WantedPart]


def read_wanted(folder: Path) -> Wanted | None:
    """The file in the folder of a method; None in runs of earlier versions. Raises InputError."""
    path = folder / WANTED_NAME
    try:
        return Wanted.model_validate_json(read_regular(path, MAX_DOCUMENT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(
            f"{path}: does not say what a run wants: {sentence(error)}; delete it, `attribute` writes it anew"
        ) from None


def note_wanted(folder: Path, samples: Mapping[tuple[str, str], int]) -> None:
    """Write down how many samples a call wants, by LVLM and split; others stay as they are.

    Where nothing can be written, as in a complete run that is only read, nothing is.
    """
    if folder.exists() and not os.access(folder, os.W_OK):
        return
    now = time.time()
    parts = {part.key: part.model_copy(update={"turn": None}) for part in _readable(folder)}
    for (lvlm, split), count in samples.items():
        before = parts.get((lvlm, split))
        if before is not None and before.samples == count:
            parts[lvlm, split] = before.model_copy(update={"called": now, "turn": "comes"})
        else:
            parts[lvlm, split] = WantedPart(lvlm=lvlm, split=split, samples=count, called=now)
    write_document(folder / WANTED_NAME, Wanted(parts=list(parts.values())))


def note_begun(folder: Path, lvlm: str, split: str, wanted: Collection[str], held: Collection[str]) -> None:
    """Write down that the turn of a part has come: the samples that it wants, and those with a record."""
    failed = [f for f in read_failures(folder) if (f.lvlm, f.split) == (lvlm, split)]
    had, now = len(set(wanted) & set(held)), time.time()
    parts = {part.key: part for part in _readable(folder)}
    before = parts.get((lvlm, split))
    parts[lvlm, split] = WantedPart(
        lvlm=lvlm,
        split=split,
        samples=len(wanted),
        called=before.called if before else now,
        others=len(held) - had,
        other_failures=sum(failure.sample_id not in wanted for failure in failed),
        had=had,
        began=now,
        turn="came",
    )
    write_document(folder / WANTED_NAME, Wanted(parts=list(parts.values())))


def _readable(folder: Path) -> list[WantedPart]:
    """The parts that are written down; none where the file is damaged, since it is written anew."""
    try:
        found = read_wanted(folder)
    except InputError:
        return []
    return found.parts if found else []
