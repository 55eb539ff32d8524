"""Columns of few known words, which a dataset on the Hub stores as numbers with a list of names.

`datasets` calls them ClassLabel; the names stand in the file's metadata. Everything in this package reads
and writes the words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from medfocus_bench.data.columns import EVIDENCE_KINDS, GROUPS
from medfocus_bench.data.questions import MODES

LABELS: Final[Mapping[str, tuple[str, ...]]] = {"mode": MODES, "evidence": EVIDENCE_KINDS, "group": GROUPS}
"""The columns that are published as labels, with their names in order: a row holds the position."""

Names = Mapping[str, tuple[str, ...]]

_MAX_METADATA_BYTES = 2**20
_MAX_NAMES = 1000


def label_names(schema: pa.Schema) -> Names:
    """The names of every label column of a file; empty for a file that holds words or no usable metadata."""
    data = (schema.metadata or {}).get(b"huggingface", b"")
    if not data or len(data) > _MAX_METADATA_BYTES:
        return {}
    try:
        features = json.loads(data)["info"]["features"]
        listed = {column: features[column] for column in LABELS if column in features}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {
        column: tuple(feature["names"])
        for column, feature in listed.items()
        if len(schema.get_all_field_indices(column)) == 1
        and pa.types.is_integer(schema.field(column).type)
        and isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
        and len(feature["names"]) <= _MAX_NAMES
        and all(isinstance(name, str) for name in feature["names"])
    }


def schema_in_words(schema: pa.Schema, names: Names) -> pa.Schema:
    """`schema` as it is once the labels are words."""
    return pa.schema(
        [field.with_type(pa.string()) if field.name in names else field for field in schema],
        metadata=schema.metadata,
    )


def in_words(row: dict[str, Any], names: Names) -> dict[str, Any]:
    """`row` with words for its labels. Raises ValueError for a number that has no name."""
    for column, words in names.items():
        number = row.get(column)
        if number is not None:
            if not 0 <= number < len(words):
                raise ValueError(f"{column} {number} is not one of the {len(words)} labels of the file")
            row[column] = words[number]
    return row


def in_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with the published labels as numbers. Raises ValueError for a word that is not one of them."""
    encoded = dict(row)
    for column, words in LABELS.items():
        word = row.get(column)
        if word is not None:
            if word not in words:
                raise ValueError(f"{column} {str(word)[:100]!r} is not one of {', '.join(words)}")
            encoded[column] = words.index(word)
    return encoded
