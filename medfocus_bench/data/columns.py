"""The columns of a benchmark row, and which Parquet schemas are accepted for them."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeGuard

import pyarrow as pa

_BOXES = pa.list_(pa.list_(pa.float64()))

IMAGES: Final = ("original", "foreground", "background", "background_normal")
"""The four images of the causal filter: as taken, the finding removed, all else edited (two ways)."""

SCHEMA: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("index", pa.int64()),
        ("patient_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_ref", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("finding", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("lvlm", pa.string()),
        ("mode", pa.string()),
        ("response", pa.string()),
        ("boxes", _BOXES),
        ("evidence", pa.string()),
        ("group", pa.string()),
        *((f"answer_{image}", pa.string()) for image in IMAGES),
        *((f"log_odds_{image}", pa.float32()) for image in (*IMAGES, "sham")),
        ("decoding", pa.string()),
        ("anatomy", pa.list_(pa.struct([("concept", pa.string()), ("box", pa.list_(pa.float64()))]))),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)
"""All columns. `boxes` and `anatomy` are native pixels; `anatomy` (optional) holds one box a concept.

`decoding`: how the LVLM wrote its answers (`questions.Decoding`); null for greedy.
"""

REQUIRED: Final = (
    "sample_id",
    "source",
    "index",
    "patient_id",
    "width",
    "height",
    "finding",
    "lvlm",
    "mode",
    "boxes",
)
"""Without these a row cannot be scored; the other columns may be missing or null."""

EVIDENCE_KINDS: Final = ("lesion", "spurious")
GROUPS: Final = ("incorrect", "ungrounded", "grounded")
"""Outcomes of the causal filter; only grounded rows are samples of the benchmark."""
SAMPLE_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,199}$"

LINE_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$"
"""Text without line breaks, terminal escapes and marks that reorder what stands around it."""

_KINDS = (
    (pa.types.is_list, pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    (pa.types.is_floating, pa.types.is_floating, pa.types.is_integer),
    (pa.types.is_integer, pa.types.is_integer),
    (pa.types.is_string, pa.types.is_string, pa.types.is_large_string),
    (pa.types.is_binary, pa.types.is_binary, pa.types.is_large_binary),
)
"""Each kind of column of `SCHEMA` with the kinds that are read in its place."""

_LINE = re.compile(LINE_PATTERN)


def schema_problem(found: pa.Schema) -> str | None:
    """The fault of the columns of a Parquet file, or None. Additional columns are ignored."""
    missing = [column for column in REQUIRED if column not in found.names]
    if missing:
        return f"lacks the columns {', '.join(missing)}"
    for wanted in SCHEMA:
        positions = found.get_all_field_indices(wanted.name)
        if len(positions) > 1:
            return f"has the column {wanted.name} {len(positions)} times"
        if positions and not _fits(found.field(positions[0]).type, wanted.type):
            held = str(found.field(positions[0]).type)[:100]
            return f"its column {wanted.name} holds {held}; it should hold {wanted.type}"
    return None


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type can be taken for the other: any width of it, dictionary-encoded or null."""
    if pa.types.is_dictionary(found):
        return _fits(found.value_type, wanted)
    if pa.types.is_null(found):
        return True
    if pa.types.is_struct(wanted):
        return pa.types.is_struct(found) and all(
            found.get_field_index(part.name) >= 0 and _fits(found.field(part.name).type, part.type)
            for part in wanted
        )
    accepted = next(tests for is_wanted, *tests in _KINDS if is_wanted(wanted))
    if not any(accepts(found) for accepts in accepted):
        return False
    return not pa.types.is_list(wanted) or _fits(found.value_type, wanted.value_type)


def is_line(value: Any) -> TypeGuard[str]:
    """Whether this is text that can be printed as part of a line."""
    if not isinstance(value, str) or len(value) > 300 or not _LINE.fullmatch(value):
        return False
    return value.encode(errors="ignore").decode() == value  # no lone surrogates
