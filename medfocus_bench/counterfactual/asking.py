"""The work of the causal filter: edit the pictures of some questions, and ask the model about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medfocus_bench.counterfactual.editors import Editor, EditorError, counterfactual_sets, editor_label
from medfocus_bench.counterfactual.records import Failure, Verification
from medfocus_bench.data.questions import Mode, Question, prompt
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.decoding import most_tokens
from medfocus_bench.lvlm.fitting import OutOfMemoryError, halving
from medfocus_bench.lvlm.protocol import LVLM, NotFiniteError, Response
from medfocus_bench.lvlm.registry import LVLMSource

_Edited = tuple[Question, dict[str, UInt8Image]]
"""A question with its pictures by name."""


@dataclass(slots=True)
class Ask:
    """Puts questions with all their edits to a model, and yields a record or a failure for each, together.

    `batch` pictures go through the model together, at most; where they do not fit into the memory of the
    device half as many, and so on, from then on.
    """

    lvlm: LVLM | LVLMSource
    mode: Mode
    editor: Editor
    sham_seeds: tuple[int, ...]
    batch: int

    def __call__(self, questions: Sequence[Question]) -> Iterator[list[Verification | Failure]]:
        lvlm = self.lvlm.load() if isinstance(self.lvlm, LVLMSource) else self.lvlm
        edited, answers = [], list[Verification | Failure]()
        for one in self._edited(questions):
            if isinstance(one, Failure):
                answers.append(one)
            else:
                edited.append(one)
        if edited:
            answers += self._answered(lvlm, edited)
        yield answers

    def _edited(self, questions: Sequence[Question]) -> Iterator[_Edited | Failure]:
        """The pictures of each question; where an edit fails, each question is edited by itself."""
        try:
            sets = counterfactual_sets(self.editor, questions, sham_seeds=self.sham_seeds)
        except EditorError:
            raise
        except (InputError, ValueError) as error:
            if len(questions) == 1:
                yield Failure.of(questions[0], " ".join(str(error).split()))
                return
        else:
            yield from zip(questions, sets, strict=True)
            return
        for question in questions:
            yield from self._edited([question])

    def _answered(self, lvlm: LVLM, edited: Sequence[_Edited]) -> Iterator[Verification | Failure]:
        """The records; where the model cannot answer one of them, those of each half by itself."""
        try:
            records = self._records(lvlm, edited)
        except (NotFiniteError, OutOfMemoryError) as error:
            why = " ".join(str(error).split())[:1000]
        else:
            yield from records
            return
        if len(edited) == 1:
            yield Failure.of(edited[0][0], why)
            return
        half = len(edited) // 2
        for part in (edited[:half], edited[half:]):
            yield from self._answered(lvlm, part)

    def _records(self, lvlm: LVLM, edited: Sequence[_Edited]) -> list[Verification]:
        images = [picture for _, pictures in edited for picture in pictures.values()]
        asked = [prompt(question.finding, self.mode) for question, pictures in edited for _ in pictures]
        answers = iter(self._respond(lvlm, images, asked))
        return [
            self._record(lvlm, question, {name: next(answers) for name in pictures})
            for question, pictures in edited
        ]

    def _respond(self, lvlm: LVLM, images: Sequence[UInt8Image], asked: Sequence[str]) -> list[Response]:
        """The responses, to as many pictures at a time as fit."""
        most = min(self.batch, len(images))

        def answers(pictures: int) -> list[Response]:
            if pictures < most:
                self.batch = pictures
            parts = (slice(start, start + pictures) for start in range(0, len(images), pictures))
            tokens = most_tokens(lvlm.decoding, self.mode)
            return [
                one
                for part in parts
                for one in lvlm.respond(images[part], asked[part], max_new_tokens=tokens)
            ]

        return halving(lvlm, "the answer", most, answers)[0]

    def _record(self, lvlm: LVLM, question: Question, said: Mapping[str, Response]) -> Verification:
        return Verification(
            source=question.source,
            index=question.index,
            evidence=question.evidence,
            finding=question.finding,
            patient_id=question.patient_id,
            lvlm=lvlm.key,
            mode=self.mode,
            editor=editor_label(self.editor),
            decoding=lvlm.decoding,
            dtype=self.lvlm.dtype,
            responses={name: answer.text for name, answer in said.items()},
            log_odds={name: answer.log_odds for name, answer in said.items()},
        )
