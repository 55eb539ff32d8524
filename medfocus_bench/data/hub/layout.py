"""What a dataset repository holds and how it is named: the configs, the columns, the files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.labels import LABELS

DATASET: Final = "medfocus/cxr-causal"
"""The published benchmark: its name in reports and its repository on the Hub."""

CARD_NAME: Final = "README.md"
CROISSANT_NAME: Final = "croissant.json"
CHANGELOG_NAME: Final = "CHANGELOG.md"

SHARD_BYTES: Final = 2**24
"""Content of a shard before compression. Small, so that a few workers have a shard each."""
ROW_GROUP_ROWS: Final = 128

VERSION_PATTERN: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
"""Semantic versions without pre-releases: major.minor.patch."""


@dataclass(frozen=True, slots=True)
class Config:
    """One published config. `is_open`: pixels and boxes are part of it; else it holds pointers only."""

    name: str
    title: str
    is_open: bool
    licence: str
    link: str
    join: str


CONFIGS: Final[Mapping[str, Config]] = {
    config.name: config
    for config in (
        Config(
            "phantom",
            "Phantom track",
            True,
            "MIT",
            "https://opensource.org/license/mit",
            "Complete: pictures, boxes and anatomy are in the files.",
        ),
        Config(
            "imagenome",
            "Chest ImaGenome",
            False,
            "PhysioNet Credentialed Health Data License 1.5.0",
            "https://physionet.org/content/chest-imagenome/1.0.0/",
            "Chest ImaGenome 1.0.0 (gold annotations) and MIMIC-CXR-JPG, from PhysioNet.",
        ),
        Config(
            "vindr_cxr",
            "VinDr-CXR",
            False,
            "PhysioNet Credentialed Health Data License 1.5.0",
            "https://physionet.org/content/vindr-cxr/1.0.0/",
            "VinDr-CXR 1.0.0 (test set), from PhysioNet.",
        ),
        Config(
            "padchest_gr",
            "PadChest-GR",
            False,
            "the data use agreement of BIMCV",
            "https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
            "PadChest-GR, from BIMCV.",
        ),
    )
}
"""In the order of the card. A source that is none of these is not published."""

DEFAULT_CONFIG: Final = "phantom"

LICENSED_COLUMNS: Final = ("image", "image_ref", "boxes", "anatomy")
"""What the row of a licensed source never holds: pixels, the file they are in, and what experts drew."""


def _published_schema() -> pa.Schema:
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {column: {"names": list(names), "_type": "ClassLabel"} for column, names in LABELS.items()}
    fields = [field.with_type(pa.int64()) if field.name in LABELS else field for field in SCHEMA]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


PUBLISHED_SCHEMA: Final = _published_schema()
"""`columns.SCHEMA` with labels as numbers, and with the metadata that `datasets` reads its features from."""


def shard_name(config: str, split: str, number: int, count: int) -> str:
    """The path of a shard in the repository."""
    return f"{config}/{split}-{number:05d}-of-{count:05d}.parquet"
