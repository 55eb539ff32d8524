"""Statistical tests of what is shipped: a sample in `make test`, everything in `make test-data`."""

from __future__ import annotations

from typing import Any

import pytest


def sampled(name: str, sample: Any, everything: Any) -> pytest.MarkDecorator:
    """Parametrises a test: with a sample always, with everything under the mark `data`."""
    whole = pytest.param(everything, id="all", marks=pytest.mark.data)
    return pytest.mark.parametrize(name, [pytest.param(sample, id="sample"), whole])
