"""The columns of a benchmark row, and the typed part of a row that scoring needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from medfocus_bench.geometry import FloatArray, as_boxes, clip_boxes

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
    ]
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
MAX_SIDE: Final = 65_536

_SAMPLE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


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

    @property
    def patient(self) -> tuple[str, str]:
        """The cluster of the sample in every bootstrap."""
        return self.source, self.patient_id

    @property
    def region(self) -> tuple[str, int, str]:
        """The evidence region, which several LVLMs and modes share."""
        return self.source, self.index, self.evidence


def sample_of(row: Mapping[str, Any], split: str) -> Sample:
    """A row as a Sample. Raises ValueError with a sentence that names the column at fault."""
    sample_id = row["sample_id"]
    if not isinstance(sample_id, str) or not _SAMPLE_ID.fullmatch(sample_id):
        raise ValueError(f"sample_id {str(sample_id)[:100]!r} is not a plain identifier")
    width, height = _side(row, "width"), _side(row, "height")
    mode = _text(row, "mode")
    if mode not in MODES:
        raise ValueError(f"mode {mode[:100]!r} is neither of {', '.join(MODES)}")
    evidence = row.get("evidence") or "lesion"
    if evidence not in EVIDENCE_KINDS:
        raise ValueError(f"evidence {str(evidence)[:100]!r} is neither of {', '.join(EVIDENCE_KINDS)}")
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
        finding=_text(row, "finding"),
        lvlm=_text(row, "lvlm"),
        mode=mode,
        evidence=sys.intern(evidence),
        boxes=_evidence_boxes(row["boxes"], width, height),
        anatomy={entry["concept"]: as_boxes([entry["box"]]) for entry in row.get("anatomy") or ()},
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value or len(value) > 300:
        raise ValueError(f"{name} is empty or no short text")
    return sys.intern(value)


def _side(row: Mapping[str, Any], name: str) -> int:
    value = row[name]
    if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{name} {value} is not within 1 and {MAX_SIDE}")
    return value


def _evidence_boxes(value: Any, width: int, height: int) -> FloatArray:
    if not value:
        raise ValueError("boxes is empty; licensed sources need their boxes attached first")
    boxes = clip_boxes(np.array(value, dtype=np.float64), width, height)
    if not ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).any():
        raise ValueError("boxes cover nothing of the image")
    return boxes
