"""The samples of a benchmark with what their LVLM was shown and asked, and what it wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.data.pictures import PICTURE_COLUMNS, StoredPicture, stored_picture
from medfocus_bench.data.questions import Mode, prompt
from medfocus_bench.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One sample with its picture, which is decoded when it is read.

    `response` is None where the benchmark has none: then the LVLM answers when the case is read.
    """

    sample: Sample
    picture: StoredPicture
    question: str
    response: str | None

    def read(self, lvlm: HuggingFaceLVLM) -> EncodedExample:
        """Raises InputError for a picture that cannot be decoded, and for a response without tokens."""
        image = self.picture.decode()
        said = lvlm.generate(image, self.question) if self.response is None else self.response
        return lvlm.encode(image, self.question, said)


def cases(benchmark: Benchmark) -> Iterator[Case]:
    """The samples of a benchmark, or of a part of it, read as it goes.

    A row without a question is asked about its finding, in the words of the published benchmark. Raises
    UnavailableError where it lacks the picture of one.
    """
    for sample, row in benchmark.rows((*PICTURE_COLUMNS, "question", "response")):
        picture = stored_picture(sample, row, benchmark.attachment.root)
        if picture is None:
            raise UnavailableError(
                f"{benchmark.folder}: {sample.sample_id} has no picture, {_way_out(benchmark, row)}"
            )
        mode: Mode = "reasoning" if sample.mode == "reasoning" else "direct"
        question = row["question"] or prompt(sample.finding, mode)
        yield Case(sample, picture, question, row["response"] or None)


def _way_out(benchmark: Benchmark, row: Mapping[str, Any]) -> str:
    """How a row without a picture that can be reached gets one."""
    if row["image_ref"] is not None:
        return (
            f"only a pointer to {row['image_ref']} in copies of your own; join them with `medfocus-bench "
            f"data attach {benchmark.folder} --root COPIES --out DIR`"
        )
    return (
        "which methods need; put it into the column image (write_benchmark takes a picture), or into a file "
        "below the root that benchmark.json names, with its path in the column image_ref"
    )


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
