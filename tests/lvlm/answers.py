"""Answers and log-odds of one LVLM of every family and of the shipped twins, to hold environments against.

`python -m tests.lvlm.answers > tests/lvlm/answers.json` writes them anew, after a change of weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm import checkpoints

TINY: dict[str, Callable[[Path], Path]] = {
    f"tiny_{name}": getattr(checkpoints, f"save_{name}")
    for name in (
        "paligemma",
        "idefics3",
        "smolvlm",
        "llava",
        "llava_next",
        "llava_onevision",
        "internvl",
    )
}
"""Random weights: of what they write only the probabilities say something."""

LVLMS = (*PHANTOM_LVLMS, *TINY)
FINDINGS = ("nodule", "mass", "pleural effusion")


def answers(name: str, folder: Path) -> list[dict[str, Any]]:
    """The answers of an LVLM to the pictures: `text`, `log_odds`, and the `log_probs` of a fixed response.

    Pictures in the model frame, which few processors resize, and native ones of other shapes, which all do.
    """
    said = []
    for framing in ("square", "native"):
        lvlm = HuggingFaceLVLM(name, folder, framing=framing)
        for number, finding in enumerate(FINDINGS):
            image = render(Patient.sample((14, number))).image
            if framing == "native":
                image = np.ascontiguousarray(image[10 : 180 - 20 * number, 20 * number :])
            question = prompt(finding, "direct")
            # Random weights write on and on, and a near tie somewhere would be another text.
            written = None if name in TINY else lvlm.generate(image, question)
            said.append(
                {
                    "framing": framing,
                    "finding": finding,
                    "text": None if written is None else written.text,
                    "log_odds": None if written is None else round(written.log_odds or 0.0, 5),
                    "log_probs": lvlm.log_probs([image], question, "Yes.").round(5)[0].tolist(),
                }
            )
    return said


def tiny_folder(name: str, place: Path) -> Path:
    """The checkpoint of a name, built at `place` unless it is a shipped one."""
    return TINY[name](place / name) if name in TINY else PHANTOM_LVLMS[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = {name: answers(name, tiny_folder(name, Path(place))) for name in LVLMS}
    said = json.dumps(found)
    # A line for each answer.
    sys.stdout.write(said.replace("[{", "[\n{").replace("}, ", "},\n").replace("}]", "}\n]") + "\n")
