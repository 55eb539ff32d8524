"""The columns of a benchmark row, and the typed part of a row that scoring needs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import numpy as np
import pyarrow as pa

from medfocus_bench.data.concepts import concept_named
from medfocus_bench.data.images import header_size
from medfocus_bench.geometry import FloatArray, as_boxes, clip_boxes
from medfocus_bench.text import tidy

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
        ("anatomy", pa.list_(pa.struct([("concept", pa.string()), ("box", pa.list_(pa.float64()))]))),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)
"""All columns. `boxes` and `anatomy` are native pixels; `anatomy` (optional) holds one box a concept."""

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

MODES: Final = ("direct", "reasoning")
EVIDENCE_KINDS: Final = ("lesion", "spurious")
GROUPS: Final = ("incorrect", "ungrounded", "grounded")
"""What the causal filter found; only grounded rows are samples of the benchmark."""
MAX_SIDE: Final = 65_536

EVIDENCE_TOLERANCE: Final = 1.0
"""Native pixels by which an evidence box may stick out of the image (rounding) before it is an error."""

SAMPLE_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"

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
_SAMPLE_ID = re.compile(SAMPLE_ID_PATTERN)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One (question, LVLM, mode) as the evaluator sees it; `boxes` (n, 4) is the evidence region, native."""

    sample_id: str
    split: str
    source: str
    index: int
    patient_id: str
    width: int
    height: int
    finding: str
    lvlm: str
    mode: str
    evidence: str
    boxes: FloatArray
    anatomy: Mapping[str, FloatArray] = field(default_factory=dict)
    grounded: bool = True

    @property
    def patient(self) -> tuple[str, str]:
        """The cluster of the sample in every bootstrap."""
        return self.source, self.patient_id

    @property
    def region(self) -> tuple[str, int, str]:
        """The evidence region, which several LVLMs and modes share."""
        return self.source, self.index, self.evidence


def schema_problem(found: pa.Schema) -> str | None:
    """What is wrong with the columns of a Parquet file; None if nothing is. Columns of others are let be."""
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


def sample_of(row: Mapping[str, Any], split: str) -> Sample:
    """A row as a Sample. Raises ValueError with a sentence that names the column at fault."""
    sample_id = row["sample_id"]
    if not isinstance(sample_id, str) or not _SAMPLE_ID.fullmatch(sample_id):
        raise ValueError(f"sample_id {str(sample_id)[:100]!r} is not a plain identifier")
    if row["width"] is None and row["boxes"] is None:
        raise ValueError(
            "is a pointer to a licensed source, without boxes; join your copy to it with "
            "`medfocus-bench data attach FOLDER --root COPIES --out DIR`"
        )
    width, height = _side(row, "width"), _side(row, "height")
    _check_image(row.get("image"), width, height)
    mode = _text(row, "mode")
    if mode not in MODES:
        raise ValueError(f"mode {mode[:100]!r} is neither of {', '.join(MODES)}")
    if split in MODES and split != mode:
        raise ValueError(f"mode is {mode}, but the file is named {split}; move the row, or rename the file")
    evidence = row.get("evidence") or "lesion"
    if evidence not in EVIDENCE_KINDS:
        raise ValueError(f"evidence {str(evidence)[:100]!r} is neither of {', '.join(EVIDENCE_KINDS)}")
    group = row.get("group") or "grounded"
    if group not in GROUPS:
        raise ValueError(f"group {str(group)[:100]!r} is none of {', '.join(GROUPS)}")
    if row["index"] is None or row["index"] < 0:
        raise ValueError(f"index {row['index']} is not a rank in the source")
    return Sample(
        sample_id=sample_id,
        split=sys.intern(split),
        source=_text(row, "source"),
        index=int(row["index"]),
        patient_id=_text(row, "patient_id"),
        width=width,
        height=height,
        finding=_finding(row),
        lvlm=_text(row, "lvlm"),
        mode=mode,
        evidence=sys.intern(evidence),
        boxes=_evidence_boxes(row["boxes"], width, height),
        anatomy=_anatomy(row.get("anatomy")),
        grounded=group == "grounded",
    )


def is_line(value: Any) -> TypeGuard[str]:
    """Whether this is text that can be printed as part of a line."""
    if not isinstance(value, str) or len(value) > 300 or not _LINE.fullmatch(value):
        return False
    return value.encode(errors="ignore").decode() == value  # no lone surrogates


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not is_line(value):
        raise ValueError(f"{name} is empty or no short text on one line")
    return sys.intern(value)


def _finding(row: Mapping[str, Any]) -> str:
    """One name for findings that differ only in characters that nobody sees."""
    name = tidy(_text(row, "finding"))
    if not name:
        raise ValueError("finding is empty or no short text on one line")
    return sys.intern(name)


def _side(row: Mapping[str, Any], name: str) -> int:
    value = row[name]
    if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{name} {value} is not within 1 and {MAX_SIDE}")
    return value


def _check_image(value: Any, width: int, height: int) -> None:
    """A picture whose header cannot be read is let be here: whoever decodes it names it."""
    size = header_size(value["bytes"]) if value and value["bytes"] else None
    if size is not None and size != (width, height):
        raise ValueError(f"image is {size[0]} x {size[1]} pixels, but width x height is {width} x {height}")


def _evidence_boxes(value: Any, width: int, height: int) -> FloatArray:
    if not value:
        raise ValueError("boxes is empty; licensed sources need their boxes attached first")
    if any(box is None or len(box) != 4 for box in value):
        raise ValueError("boxes are not all [x1, y1, x2, y2]")
    given = np.array(value, dtype=np.float64)
    boxes = clip_boxes(given, width, height)
    if np.abs(boxes - given).max() > EVIDENCE_TOLERANCE:
        raise ValueError(f"boxes reach out of the image of {width} x {height} pixels; give native pixels")
    if not ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (width * height) > 0).any():
        raise ValueError("boxes cover nothing of the image")
    return boxes


def _anatomy(value: Any) -> Mapping[str, FloatArray]:
    entries = value or ()
    if any(not entry or not is_line(entry["concept"]) or not entry["box"] for entry in entries):
        raise ValueError("anatomy has an entry without a concept or without a box")
    return {concept_named(entry["concept"]): as_boxes([entry["box"]]) for entry in entries}
