"""The figures of a row beside its scores of localisation, each over everything that it covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.report import Report
from medfocus_bench.evaluation.words import WordScore


@dataclass(frozen=True, slots=True)
class Section:
    """A figure of a report's sections; `find` gives it, or None where it was not computed or cannot apply."""

    name: str
    label: str
    help: str
    find: Callable[[Report], Score | float | None]
    featured: bool = False

    def score(self, report: Report) -> float | None:
        """The figure without its interval."""
        found = self.find(report)
        return found.mean if isinstance(found, Score) else found


def _of_words(report: Report, name: str) -> Score | None:
    found: WordScore | None = getattr(report.words, name, None)
    return found.score if found else None


SECTIONS: Final = (
    Section(
        "faithfulness",
        "Faithfulness",
        "How much of the answer its first pixels carry; 0 for a random map, 1 for the exact mask.",
        lambda report: report.faithfulness.faithfulness if report.faithfulness else None,
        featured=True,
    ),
    Section(
        "model_dependence",
        "Dependence",
        "1 less the evidence AP on LVLMs with random decoders over that on trained ones; below 0.5, no rank.",
        lambda report: report.dependence.model_dependence if report.dependence else None,
        featured=True,
    ),
    Section(
        "contrast",
        "Contrast",
        "Whether it tells an LVLM that goes by the finding from one that goes by a mark; 0 for what reads no "
        "model.",
        lambda report: report.contrast.contrast if report.contrast else None,
        featured=True,
    ),
    Section(
        "token_ndcg",
        "Words",
        "nDCG of its scores of the response's words for what the cause does to them; 0 for a random order.",
        lambda report: _of_words(report, "token_ndcg"),
    ),
    Section(
        "concept_ndcg",
        "Concepts",
        "nDCG of its scores of anatomical concepts for what healing the cause in each does; 0 for a random "
        "order.",
        lambda report: _of_words(report, "concept_ndcg"),
    ),
    Section(
        "abstention",
        "Abstention",
        "How often it names no concept where none holds the cause.",
        lambda report: _of_words(report, "abstention"),
    ),
    Section(
        "ceiling",
        "Ceiling",
        "Evidence AP of the exact mask on the grid of its maps.",
        lambda report: report.grid.ceiling if report.grid else None,
    ),
)
