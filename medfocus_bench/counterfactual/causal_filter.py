"""The causal filter: four answers and a sham decide whether a region drives an answer (paper, section 2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from scipy import stats

from medfocus_bench.answers import parse_verdict
from medfocus_bench.counterfactual.editors import Editor, counterfactuals
from medfocus_bench.data.questions import Mode, Question, prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.protocol import LVLM

Group = Literal["incorrect", "ungrounded", "grounded"]

GROUPS: Final[tuple[Group, ...]] = ("incorrect", "ungrounded", "grounded")

MARGIN: Final = 1.0
"""Log-odds on the right side of zero that the strict rule asks of every answer."""

_BACKGROUNDS = ("background", "background_normal")


@dataclass(frozen=True, slots=True)
class Verification:
    """What one model said to the original and the edits of one question: texts and log-odds by picture."""

    source: str
    index: int
    evidence: str
    finding: str
    patient_id: str
    lvlm: str
    mode: str
    editor: str
    responses: dict[str, str]
    log_odds: dict[str, float | None]

    def says(self, picture: str) -> str | None:
        """The verdict on one picture: "yes", "no" or None."""
        return parse_verdict(self.responses[picture])

    @property
    def group(self) -> Group:
        """The paper's rule: right on the original, flipped by the foreground edit, kept by both backgrounds.

        An answer without a verdict is neither right nor a flip.
        """
        if self.says("original") != "yes":
            return "incorrect"
        kept = all(self.says(background) == "yes" for background in _BACKGROUNDS)
        return "grounded" if self.says("foreground") == "no" and kept else "ungrounded"

    @property
    def sham_flips(self) -> bool:
        """Whether redrawing the region with the finding in place loses the "yes": the editor's doing."""
        return any(self.says(name) != "yes" for name in self.responses if name.startswith("sham"))

    @property
    def strict(self) -> bool:
        """Grounded, no sham flips, and every log-odds on its side of zero by `MARGIN`."""
        if self.group != "grounded" or self.sham_flips:
            return False
        signed = {name: -odds if name == "foreground" else odds for name, odds in self._known_odds()}
        return len(signed) == len(self.log_odds) and min(signed.values()) >= MARGIN

    def _known_odds(self) -> Iterator[tuple[str, float]]:
        return ((name, odds) for name, odds in self.log_odds.items() if odds is not None)

    @property
    def key(self) -> tuple[str, int, str]:
        return self.source, self.index, self.evidence


def verify(
    questions: Iterable[Question],
    lvlm: LVLM,
    mode: Mode,
    editor: Editor,
    out: Path,
    *,
    sham_seeds: Sequence[int] = (0,),
    batch: int = 32,
) -> Iterator[Verification]:
    """Puts every question with all its edits to the model; yields one record a question.

    Records are appended to `out` (JSON lines) as they are made; those that it holds already are not computed
    again, so a stopped run goes on where it was. Raises InputError for a file of another run.
    """
    label = f"{editor.name} {editor.version}"
    done = {record.key: record for record in read_verifications(out)} if out.exists() else {}
    for record in done.values():
        if (record.lvlm, record.mode, record.editor) != (lvlm.key, mode, label):
            raise InputError(f"{out}: is of {record.lvlm}, {record.mode}, {record.editor}; give another file")
    out.parent.mkdir(parents=True, exist_ok=True)
    pending: list[tuple[Question, dict[str, object]]] = []
    size = max(1, batch // (4 + len(sham_seeds)))
    for question in questions:
        key = (question.source, question.index, question.evidence)
        if key in done:
            yield done[key]
            continue
        pending.append((question, dict(counterfactuals(editor, question, sham_seeds=sham_seeds))))
        if len(pending) == size:
            yield from _ask(pending, lvlm, mode, label, out)
            pending = []
    if pending:
        yield from _ask(pending, lvlm, mode, label, out)


def _ask(
    pending: Sequence[tuple[Question, dict[str, object]]], lvlm: LVLM, mode: Mode, editor: str, out: Path
) -> list[Verification]:
    images = [picture for _, pictures in pending for picture in pictures.values()]
    asked = [prompt(question.finding, mode) for question, pictures in pending for _ in pictures]
    answers = iter(lvlm.respond(images, asked))  # type: ignore[arg-type]
    records = []
    for question, pictures in pending:
        said = {name: next(answers) for name in pictures}
        records.append(
            Verification(
                source=question.source,
                index=question.index,
                evidence=question.evidence,
                finding=question.finding,
                patient_id=question.patient_id,
                lvlm=lvlm.key,
                mode=mode,
                editor=editor,
                responses={name: answer.text for name, answer in said.items()},
                log_odds={name: answer.log_odds for name, answer in said.items()},
            )
        )
    with out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
    return records


def read_verifications(path: Path) -> list[Verification]:
    """The records of a file; a last line that a stopped run left half-written is dropped.

    Raises InputError that names the line for anything else that is no record.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Verification(**json.loads(line)))
        except (ValueError, TypeError):
            raise InputError(f"{path}: line {number} is no record of the causal filter") from None
    return records


@dataclass(frozen=True, slots=True)
class Share:
    """A share of questions with its 95 % Wilson interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        found = stats.binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def group_shares(records: Sequence[Verification]) -> dict[str, Share]:
    """The share of each group, of the strictly grounded and of sham flips (among right answers)."""
    total = len(records)
    shares: dict[str, Share] = {g: Share(sum(r.group == g for r in records), total) for g in GROUPS}
    shares["strict"] = Share(sum(r.strict for r in records), total)
    right = [record for record in records if record.group != "incorrect"]
    shares["sham flips"] = Share(sum(r.sham_flips for r in right), max(1, len(right)))
    return shares
