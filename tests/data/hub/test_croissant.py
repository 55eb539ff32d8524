"""The Croissant description, as its own library reads it."""

from __future__ import annotations

import hashlib

import mlcroissant
import pandas as pd
import pytest

from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.hub.repository import published_configs

pytestmark = [  # of mlcroissant's own dependencies
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture
def croissant(small, closed_url, monkeypatch):
    """The description as mlcroissant reads it, in a place where nothing can be fetched."""
    monkeypatch.setenv("HTTPS_PROXY", closed_url)
    monkeypatch.setenv("HTTP_PROXY", closed_url)
    return mlcroissant.Dataset(jsonld=str(small / "croissant.json"))


def test_croissant_is_valid(croissant):
    issues = croissant.metadata.issues
    assert not issues.errors
    assert all(
        "datePublished" in warning for warning in issues.warnings
    )  # a recommendation; the files hold no dates
    assert [str(ctx) for ctx in croissant.metadata.conforms_to] == ["http://mlcommons.org/croissant/1.1"]
    assert croissant.metadata.version == "1.0.0"


def test_croissant_names_every_file_with_its_sha256(croissant, small):
    files = {node.content_url: node.sha256 for node in croissant.metadata.file_objects}
    found = {path.relative_to(small).as_posix(): path for path in small.rglob("*.parquet")}
    assert files == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def test_croissant_loads_records_of_every_config_offline(croissant, small):
    expected = {
        f"{folder.name}/{split}": len(pd.read_parquet(folder / f"{split}-00000-of-00001.parquet"))
        for folder in (small / name for name in published_configs())
        for split in ("direct", "reasoning", "dev")
        if list(folder.glob(f"{split}-*"))
    }
    assert {record_set.id for record_set in croissant.metadata.record_sets} == set(expected)
    for name, count in expected.items():
        records = list(croissant.records(record_set=name))
        assert len(records) == count
        first = {key.removeprefix(f"{name}/"): value for key, value in records[0].items()}
        assert set(first) == set(SCHEMA.names)
        assert first["source"] == name.split("/")[0].encode()
        if name.startswith("phantom"):
            assert first["image"].size == (32, 32)
            assert first["boxes"] == [[4.0, 5.0, 20.0, 21.5]]
            (region,) = first["anatomy"]
            assert region[f"{name}/anatomy/concept"] == b"left lung"
            assert list(region[f"{name}/anatomy/box"]) == [1.0, 2.0, 9.0, 9.0]
        else:
            assert first["image"] is None
            assert first["boxes"] is None
