"""docs/reliability.md states the bounds that the code has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
UNITS = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
STATED = [
    (number, unit or None, constant)
    for number, unit, constant in re.findall(
        r"([\d,]+)(?: ([KMG]iB))?[^,;|()\d]*\(`([a-z0-9_.]+\.[A-Z][A-Z0-9_]*)`\)", PAGE
    )
]


def test_every_bound_that_is_stated_is_the_one_that_holds():
    assert len(STATED) == len(re.findall(r"`[a-z0-9_.]+\.[A-Z][A-Z0-9_]*`", PAGE)) > 20
    for number, unit, constant in STATED:
        module, _, name = constant.rpartition(".")
        value = getattr(importlib.import_module(f"medfocus_bench.{module}"), name)
        assert value == int(number.replace(",", "")) * UNITS[unit], constant
