"""A counterfactual editor in the place of a fill: the concept's region is redrawn without the finding."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from medfocus_bench.counterfactual.editors import Editor
from medfocus_bench.counterfactual.registry import load_editor
from medfocus_bench.data.questions import Question
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.medfocus.fills import RegionEdit

_SETTING = re.compile(r"(?P<name>[a-z_]+)=(?P<value>.*)", re.DOTALL)
_ANYTHING = "abnormality"
"""The finding that is removed where the example does not name one."""


def generative_fill(editor: str, finding: str | None, seed: int) -> RegionEdit:
    """Return the edit by which `editor` removes `finding` from a region of an image.

    `editor` is a name of `medfocus_bench.editors`, with settings as in "radedit,size=512,device=cuda". The
    edit is that of the causal filter's foreground. Raises InputError for an unknown editor or setting.
    """
    drawing = _loaded(editor)

    def redraw(image: UInt8Image, region: BoolArray) -> UInt8Image:
        own = Question("own", 0, "own", finding or _ANYTHING, image, np.zeros((0, 4)))
        return drawing.redraw(own, "foreground", region, seed)

    return redraw


def check_editor(editor: str | None) -> None:
    """Raise InputError for an editor (`NAME` or `NAME,FIELD=VALUE`) that is not installed or so set."""
    if editor is not None:
        _loaded(editor)


@lru_cache(maxsize=2)
def _loaded(editor: str) -> Editor:
    name, *assignments = editor.split(",")
    settings: dict[str, Any] = {}
    for assignment in assignments:
        found = _SETTING.fullmatch(assignment)
        if found is None:
            raise InputError(f"editor {editor!r}: {assignment!r} is not FIELD=VALUE")
        settings[found["name"]] = found["value"]
    return load_editor(name, **settings)
