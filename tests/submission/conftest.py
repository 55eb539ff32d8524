"""The benchmark that most tests of submissions are about."""

from __future__ import annotations

import pytest

from .documents import write_small_benchmark


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("data") / "bench")
