"""The LVLM that most tests of MedFocus explain."""

from __future__ import annotations

import pytest

from medfocus_bench.lvlm.registry import load_lvlm


@pytest.fixture(scope="session")
def qwen():
    return load_lvlm("phantom_qwen")
