"""Statistical tests of what is shipped: a sample in `make test`, everything in `make test-data`."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from medfocus_bench.phantom.render import Patient, render


def sampled(names: str | tuple[str, ...], sample: Any, everything: Any) -> pytest.MarkDecorator:
    """Parametrises a test: with a sample always, with everything under the mark `data`."""
    of_one = isinstance(names, str)
    less, all_of_it = ((each,) if of_one else each for each in (sample, everything))
    whole = pytest.param(*all_of_it, id="all", marks=pytest.mark.data)
    return pytest.mark.parametrize(names, [pytest.param(*less, id="sample"), whole])


def digest(seed: int) -> str:
    """Of the picture and all masks of a patient."""
    phantom = render(Patient.sample(seed))
    masks = {**phantom.concepts, **phantom.findings}.values()
    return hashlib.sha256(b"".join([phantom.image, *masks])).hexdigest()
