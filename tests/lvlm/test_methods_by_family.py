"""Which method explains which family: the table of docs/methods.md is what happens."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest

from medfocus_bench.attribution.protocol import refuse_family
from medfocus_bench.attribution.registry import list_methods, load_method
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.families import load_family
from tests.lvlm.conftest import picture

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
QUESTION = prompt("nodule", "direct")
SHAPES = {"square": (224, 224), "wide": (168, 336), "tall": (280, 140)}

FAMILIES = sorted(entry.name for entry in entry_points(group="medfocus_bench.lvlms"))
HALF = [(kind, list(SHAPES)[number % len(SHAPES)], "bfloat16") for number, kind in enumerate(FAMILIES)]
CASES = [
    *product(FAMILIES, SHAPES, ["float32"]),
    *HALF,
    *(
        pytest.param(*case, marks=pytest.mark.data)
        for case in product(FAMILIES, SHAPES, ["bfloat16"])
        if case not in HALF
    ),
]
"""All shapes in both types; in bfloat16 one of each family unless it is `make test-data`."""

CHECKPOINTS = {"qwen2_5_vl": "tiny_qwen", "gemma3": "tiny_gemma"}
"""Those whose tiny checkpoints are not called by the type of their model."""

CHEAP = {
    "occlusion": {"cells": 2},
    "rise": {"cells": 2, "masks": 2},
    "integrated-gradients": {"steps": 2},
    "lrp": {"attention_rule": "constant", "sign": "absolute"},
    "medfocus": {"pool_size": 1},
    "medfocus-plus": {"localiser": "transport", "places": 1, "probes": 0},
    "prompting": {"max_new_tokens": 2},
    "prompting-medsam": {"max_new_tokens": 2, "detector": "phantom_owlv2", "segmenter": "phantom_sam"},
}
BOXES = ("medfocus", "prompting", "prompting-medsam")
POSITIVE = ("grad-cam", "grad-cam-plus-plus", "occlusion", "token-activation-map")
"""Their maps are the positive part of something, which random weights may leave empty."""


def cheap(name):
    return load_method(name, **CHEAP.get(name, {}))


def refusal(method, kind):
    """Why a family is not explained by a method; None where it is."""
    try:
        refuse_family([method], load_family(kind), "it")
    except InputError as error:
        return str(error).removeprefix(f"{method.name} cannot explain it: ")
    return None


def test_the_page_says_of_every_method_and_family_whether_and_why_not():
    reasons = {name: [refusal(cheap(name), kind) for kind in FAMILIES] for name in list_methods()}
    said = dict.fromkeys(reason for row in reasons.values() for reason in row if reason)
    letters = dict(zip(said, ascii_lowercase, strict=False))
    rows = {name: [letters.get(reason, "yes") for reason in row] for name, row in reasons.items()}
    table = [
        f"| method | {' | '.join(f'`{kind}`' for kind in FAMILIES)} |",
        "|---" * (len(FAMILIES) + 1) + "|",
        *(f"| `{name}` | {' | '.join(row)} |" for name, row in rows.items()),
    ]
    text = "\n".join([*table, "", *(f"* {letter}: {reason}." for reason, letter in letters.items())])
    assert text in PAGE.read_text(), f"{PAGE.name} should hold\n\n{text}\n"


@pytest.mark.parametrize(("kind", "shape", "dtype"), CASES)
def test_every_method_explains_every_family_or_says_why_not(open_lvlm, kind, shape, dtype):
    lvlm = open_lvlm(CHECKPOINTS.get(kind, f"tiny_{kind}"), framing="native", dtype=dtype)
    height, width = SHAPES[shape]
    image = picture(7, height, width)
    for name in list_methods():
        method = cheap(name)
        reason = refusal(method, kind)
        if reason is not None:
            with pytest.raises(InputError, match=re.escape(reason)):
                method.attribute(lvlm, image, QUESTION, "Yes.")
            continue
        found = method.attribute(lvlm, image, QUESTION, "Yes.")
        assert found.cost.forward_passes > 0
        if name in BOXES:
            assert ((found.boxes >= 0) & (found.boxes <= [width, height] * 2)).all()
        else:
            rows, columns = found.saliency.shape
            assert rows == columns, "a map is of the model frame"
            assert np.isfinite(found.saliency).all()
            assert found.saliency.any() or name in POSITIVE, name
        if name == "lrp" and dtype == "float32":
            assert found.diagnostics["conservation"] == pytest.approx(1, abs=1e-3)
