"""The truth of the phantom track: masks and effects, shipped; pictures without the cause, rendered again.

`truth/regions.parquet` has a row a region: `source`, `index`, `evidence`, `picture` (sha256 of the pixels of
its picture) and `mask` (the pixels of the cause as a 1-bit PNG); `write_regions` renders it.
`truth/effects.parquet` has a row a sample: `sample_id`, `tokens` and `token_effects`, `concepts` and
`concept_effects`, `drop`. `truth/contrast.parquet` has a row a question of the split `contrast`: `index`,
`lvlm`, `response` and `mark` (as `mask`); `phantom.contrast` makes it. They are not a part of the track: its
fingerprint is that of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medfocus_bench.data.truth import ContrastQuestion, Effects, Region, picture_digest
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.phantom import TWINS

FOLDER: Final = Path(__file__).parent / "truth"
REGIONS_NAME: Final = "regions.parquet"
EFFECTS_NAME: Final = "effects.parquet"
CONTRAST_NAME: Final = "contrast.parquet"

SECOND_NAMES: Final = {
    "phantom_qwen@a": "phantom_qwen_twin",
    "phantom_qwen@b": "phantom_qwen",
    "phantom_gemma@a": "phantom_gemma",
    "phantom_gemma@b": "phantom_gemma_twin",
}
"""Lesion models and twins by the names of the split `contrast`, which do not say which is which.

The assignment is arbitrary and fixed. On this open track everybody can read it here, or compare the answers.
"""

REGIONS_SCHEMA: Final = pa.schema(
    [
        ("source", pa.string()),
        ("index", pa.int32()),
        ("evidence", pa.string()),
        ("picture", pa.binary(32)),
        ("mask", pa.binary()),
    ]
)
EFFECTS_SCHEMA: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("tokens", pa.list_(pa.string())),
        ("token_effects", pa.list_(pa.float32())),
        ("concepts", pa.list_(pa.string())),
        ("concept_effects", pa.list_(pa.float32())),
        ("drop", pa.float32()),
    ]
)
CONTRAST_SCHEMA: Final = pa.schema(
    [("index", pa.int32()), ("lvlm", pa.string()), ("response", pa.string()), ("mark", pa.binary())]
)


class PhantomTruth:
    """The truth in a folder, which is read when it is first asked for; see `data.truth.Truth`."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._masks: dict[Region, BoolArray] = {}

    def knows(self, region: Region, picture: UInt8Image) -> bool:
        row = self._regions.get(region)
        return row is not None and row["picture"] == picture_digest(picture)

    def mask(self, region: Region) -> BoolArray:
        if region not in self._masks:
            self._masks[region] = _decoded(self._regions[region]["mask"])
        return self._masks[region]

    def counterfactual(self, region: Region) -> UInt8Image:
        return _counterfactual(region[1], region[2]).copy()

    def effects(self, sample_id: str) -> Effects | None:
        return self._effects.get(sample_id)

    @property
    def second_names(self) -> Mapping[str, str]:
        return SECOND_NAMES

    def contrast(self) -> Sequence[ContrastQuestion]:
        return [
            ContrastQuestion(
                ("phantom", row["index"], "lesion"),
                row["lvlm"],
                row["lvlm"].partition("@")[0],
                "mark" if SECOND_NAMES[row["lvlm"]] in TWINS else "finding",
                row["response"],
            )
            for row in self._contrast
        ]

    def mark(self, region: Region) -> BoolArray:
        return self._marks[region]

    @cached_property
    def _marks(self) -> dict[Region, BoolArray]:
        return {("phantom", row["index"], "lesion"): _decoded(row["mark"]) for row in self._contrast}

    @cached_property
    def _contrast(self) -> list[dict[str, Any]]:
        path = self._folder / CONTRAST_NAME
        return pq.read_table(path).to_pylist() if path.is_file() else []

    @cached_property
    def _regions(self) -> dict[Region, dict[str, Any]]:
        rows = pq.read_table(self._folder / REGIONS_NAME).to_pylist()
        return {(row["source"], row["index"], row["evidence"]): row for row in rows}

    @cached_property
    def _effects(self) -> dict[str, Effects]:
        path = self._folder / EFFECTS_NAME
        rows = pq.read_table(path).to_pylist() if path.is_file() else []
        return {row["sample_id"]: _effects_of(row) for row in rows}


TRUTH: Final = PhantomTruth()
"""The shipped truth of the source `phantom`."""


def _effects_of(row: dict[str, Any]) -> Effects:
    effects = np.array(row["token_effects"], dtype=np.float32)
    effects.setflags(write=False)
    concepts = dict(zip(row["concepts"], row["concept_effects"], strict=True))
    return Effects(tuple(row["tokens"]), effects, concepts, row["drop"])


@lru_cache(maxsize=64)
def _counterfactual(index: int, evidence: str) -> UInt8Image:
    """As the foreground edit of the causal filter renders it; methods and modes share it."""
    from medfocus_bench.phantom.render import render
    from medfocus_bench.phantom.track import finding_of, patient_of

    return render(patient_of(index, evidence).without_cause(finding_of(index), evidence)).image


def write_regions(folder: Path = FOLDER, indices: Iterable[int] | None = None) -> Path:
    """Render the regions of the track's questions, or of these indices, and write their file to `folder`.

    The shipped file is made by `python -c "from medfocus_bench.phantom.truth import *; write_regions()"`.
    """
    from medfocus_bench.phantom.build import ALL_QUESTIONS

    asked = ALL_QUESTIONS if indices is None else indices
    rows = [region_row(index, evidence) for evidence in ("lesion", "spurious") for index in asked]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REGIONS_NAME
    pq.write_table(pa.Table.from_pylist(rows, schema=REGIONS_SCHEMA), path, compression="zstd")
    return path


def region_row(index: int, evidence: str) -> dict[str, Any]:
    """The row of one region, rendered."""
    from medfocus_bench.phantom.render import render
    from medfocus_bench.phantom.track import cause_in, patient_of

    phantom = render(patient_of(index, evidence))
    return {
        "source": "phantom",
        "index": index,
        "evidence": evidence,
        "picture": picture_digest(phantom.image),
        "mask": encoded_mask(cause_in(phantom, index, evidence)),
    }


def encoded_mask(mask: BoolArray) -> bytes:
    """A mask (height, width) as a 1-bit PNG."""
    file = BytesIO()
    Image.fromarray(mask).save(file, "PNG", optimize=True)
    return file.getvalue()


def _decoded(data: bytes) -> BoolArray:
    with Image.open(BytesIO(data)) as image:
        mask = np.asarray(image.convert("1"), dtype=np.bool_)
    mask.setflags(write=False)
    return mask
