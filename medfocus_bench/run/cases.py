"""The samples of a benchmark with what their LVLM was shown and asked, and what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.data.pictures import PICTURE_COLUMNS, StoredPicture, stored_picture
from medfocus_bench.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.reading import Reading


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One sample with its picture, which is decoded when it is read."""

    sample: Sample
    picture: StoredPicture
    question: str
    response: str

    def read(self, lvlm: HuggingFaceLVLM) -> Reading:
        """Raises InputError for a picture that cannot be decoded, and for a response without tokens."""
        return lvlm.read(self.picture.decode(), self.question, self.response)


def cases(benchmark: Benchmark) -> Iterator[Case]:
    """The samples of a benchmark, or of a part of it, read as it goes.

    Raises UnavailableError where it lacks the picture, the question or the response of one.
    """
    for sample, row in benchmark.rows((*PICTURE_COLUMNS, "question", "response")):
        picture = stored_picture(sample, row, benchmark.attachment.root)
        needed = {"image": picture, "question": row["question"], "response": row["response"]}
        lacking = [column for column, value in needed.items() if value is None]
        if picture is None or lacking:
            raise UnavailableError(
                f"{benchmark.folder}: {sample.sample_id} has no {lacking[0]} (column {lacking[0]}), which "
                "methods need; attach it first"
            )
        yield Case(sample, picture, row["question"], row["response"])


def part_of(benchmark: Benchmark, configs: Sequence[str], splits: Sequence[str]) -> Benchmark:
    """The part in these configs (all, where none is given) and splits. Raises InputError for unknown ones."""
    for kind, names, known in (
        ("config", configs, benchmark.configs),
        ("split", splits, benchmark.splits),
    ):
        for name in names:
            if name not in known:
                raise InputError(
                    f"no {kind} {name!r} in {benchmark.name} {benchmark.version}, only {', '.join(known)}"
                )
    return benchmark.select(configs or benchmark.configs, splits)
