"""Questions to the phantom's models, and their answers."""

from __future__ import annotations

from typing import Final

from medfocus_bench.data.questions import MODES, Mode, prompt
from medfocus_bench.phantom.findings import FINDINGS

_SIGNS: Final = {
    "cardiomegaly": ("The heart is measured against the chest.", "an enlarged cardiac silhouette"),
    "pleural effusion": ("The costophrenic angles are checked.", "fluid that blunts the angle"),
    "nodule": ("Both lungs are searched.", "a small round opacity"),
    "mass": ("Both lungs are searched.", "a large round opacity"),
    "consolidation": ("Both lungs are searched.", "a hazy patch of filled air spaces"),
    "pneumothorax": ("The edges of the lungs are followed.", "a pleural line without vessels beyond it"),
    "hilar enlargement": ("Both hila are compared.", "a bulky hilum"),
    "atelectasis": ("The lung bases are checked.", "a band of collapsed lung"),
    "clavicle fracture": ("Both clavicles are followed.", "a step in the bone"),
    "pacemaker": ("The chest wall is checked for devices.", "a generator with its lead"),
    "rib lesion": ("The ribs are followed one by one.", "a dense spot in a rib"),
}


def response(finding: str, mode: Mode, present: bool) -> str:
    """How a model is trained to answer; a reasoning answer looks at anatomy first."""
    verdict = "Yes." if present else "No."
    if mode == "direct":
        return verdict
    look, sign = _SIGNS[finding]
    seen = f"There is {sign}." if present else f"There is no sign of {sign}."
    return f"{look} {seen} Final answer: {verdict}"


def sign(finding: str) -> str:
    """The visible sign of a finding, in the words of the answers."""
    return _SIGNS[finding][1]


def corpus() -> list[str]:
    """Every text that the models read or write: what their tokenizers are trained on."""
    return [
        text
        for finding in FINDINGS
        for mode in MODES
        for text in (prompt(finding, mode), response(finding, mode, True), response(finding, mode, False))
    ]
