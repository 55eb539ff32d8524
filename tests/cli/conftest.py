"""A small benchmark, and where a submission to it goes."""

from __future__ import annotations

import pytest

from ..submission.documents import write_small_benchmark


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("data") / "bench")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mine"
