"""Splits that no file holds: their samples are made of those of the benchmark when they are asked for.

`control`: questions of the splits `direct` and `reasoning`, put to copies of their LVLMs whose decoder was
drawn at random, with the same picture, question and response. An attribution that finds the evidence there,
too, did not read the model.

`contrast`: pictures that show a finding and the mark which stands for it, put to an LVLM that goes by the one
and to an LVLM that goes by the other, under names that do not say which is which (see `data.truth`). An
attribution that does not read the model cannot tell the two apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import islice, zip_longest
from typing import Final

from medfocus_bench.data.questions import MODES, prompt
from medfocus_bench.data.sample import Content, Sample
from medfocus_bench.data.truth import ContrastQuestion, installed_truths
from medfocus_bench.errors import UnavailableError
from medfocus_bench.geometry import UInt8Image

CONTROL: Final = "control"
CONTRAST: Final = "contrast"
DERIVED_SPLITS: Final = (CONTROL, CONTRAST)

CONTROL_QUESTIONS: Final = 20
"""Questions of each LVLM and mode in `control`."""

RANDOM: Final = "@random"
"""After the name of an LVLM: the copy whose decoder was drawn at random."""


class Derived:
    """The derived splits of all samples of a benchmark; each is made once, when it is asked for."""

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        self._samples = samples

    def of(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split; none where it is not derived, or nothing can be derived."""
        return {CONTROL: lambda: self.control, CONTRAST: lambda: self.contrast}.get(split, tuple)()

    @cached_property
    def control(self) -> tuple[Sample, ...]:
        """Samples of `control` in the order of the benchmark."""
        chosen = {sample.sample_id for sample in _control_questions(self._samples)}
        return tuple(_with_random_decoder(s) for s in self._samples if s.sample_id in chosen)

    @cached_property
    def contrast(self) -> tuple[Sample, ...]:
        """Samples of `contrast`: the pictures of this benchmark that the truth of their source asks about."""
        shown: dict[Hashable, Sample] = {}
        for sample in self._samples:
            shown.setdefault(sample.region, sample)
        return tuple(
            _of_contrast(shown[asked.region], asked)
            for source in sorted({sample.source for sample in self._samples} & installed_truths().keys())
            for asked in installed_truths()[source].contrast()
            if asked.region in shown and shown[asked.region].exact_mask is not None
        )


def _control_questions(samples: Sequence[Sample]) -> Iterator[Sample]:
    """For each LVLM and mode `CONTROL_QUESTIONS` of its samples, from one finding after the other.

    Findings and their samples stand in the order of a hash, so that nobody chose them.
    """
    cells: dict[tuple[str, str], dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.split in MODES:
            cells[sample.lvlm, sample.mode][sample.finding].append(sample)
    for (lvlm, mode), findings in cells.items():
        lines = [
            sorted(findings[finding], key=lambda sample: _hash(sample.sample_id))
            for finding in sorted(findings, key=lambda finding: _hash(f"{lvlm} {mode} {finding}"))
        ]
        in_turn = (sample for turn in zip_longest(*lines) for sample in turn if sample is not None)
        yield from islice(in_turn, CONTROL_QUESTIONS)


def _hash(text: str) -> bytes:
    return sha256(f"{CONTROL} {text}".encode()).digest()


def _with_random_decoder(trained: Sample) -> Sample:
    """The sample of a trained LVLM as that of its copy."""
    lvlm = f"{trained.lvlm}{RANDOM}"
    head, found, tail = trained.sample_id.rpartition(f"-{trained.lvlm}-")
    name = f"{head}-{lvlm}-{tail}" if found else f"{trained.sample_id}{RANDOM}"
    return replace(
        trained,
        sample_id=name,
        split=CONTROL,
        lvlm=lvlm,
        content=_Borrowed(trained.sample_id, trained.content),
        derived_from=trained.sample_id,
    )


def _of_contrast(shown: Sample, asked: ContrastQuestion) -> Sample:
    question = prompt(shown.finding, "direct")
    return replace(
        shown,
        sample_id=f"{shown.source}-{shown.index:05d}-{asked.lvlm}-direct",
        split=CONTRAST,
        lvlm=asked.lvlm,
        mode="direct",
        content=_Borrowed(shown.sample_id, shown.content, question, asked.response),
        derived_from=shown.sample_id,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Borrowed:
    """The content of another sample, with a question and response of its own where these are given."""

    sample_id: str
    content: Content | None
    question: str | None = None
    response: str | None = None

    @property
    def origin(self) -> Hashable:
        return None if self.content is None else self.content.origin

    def texts(self, sample_id: str) -> tuple[str | None, str | None]:
        if self.response is not None:
            return self.question, self.response
        question, response = self._held.texts(self.sample_id)
        if response is None:
            raise UnavailableError(
                f"{sample_id}: the benchmark does not hold the response of {self.sample_id}, which a random "
                "decoder cannot write; leave out the split control"
            )
        return question, response

    def picture(self, sample_id: str, size: tuple[int, int]) -> UInt8Image:
        return self._held.picture(self.sample_id, size)

    @property
    def _held(self) -> Content:
        if self.content is None:
            raise UnavailableError(f"{self.sample_id}: has neither picture nor texts; load a benchmark")
        return self.content
