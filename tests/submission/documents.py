"""Submissions as raw documents and bytes, so that a test can break any part of one."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
from hypothesis import strategies as st

from medfocus_bench.data.writing import write_benchmark

from ..conftest import make_row

WITH_BOXES, WITH_MAP = "phantom-00000-tiny-direct", "phantom-00001-tiny-direct"
MAPS = "maps.safetensors"


def write_small_benchmark(folder):
    """Two samples of 224 x 200 pixels: `WITH_BOXES` and `WITH_MAP`."""
    rows = [make_row(number, height=200) for number in range(2)]
    return write_benchmark(folder, {"direct": rows}, name="bench", version="1.0.0")


def safetensors(header, data=b"", length=None):
    """A safetensors file with any header, of any claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape, start, end, dtype="U8"):
    """One map in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def sound_maps():
    saliency = np.arange(16, dtype=np.uint8)
    return safetensors({WITH_MAP: entry([4, 4], 0, 16)}, saliency.tobytes())


def sound_document(benchmark, maps=None):
    """A document that uses every key of the format."""
    return {
        "schema_version": "1.0",
        "method": {
            "name": "probe",
            "display_name": "Probe",
            "family": "other",
            "version": "1",
            "description": "Of the tests.",
            "paper": "https://example.org/paper",
            "code": "https://example.org/code",
            "licence": "MIT",
            "needs": ["forward", "text"],
            "hyperparameters": {
                "steps": 3,
                "rate": 0.5,
                "on": True,
                "name": "x",
                "list": [1, 0.5],
                "no": None,
            },
            "tuned_on_dev": True,
        },
        "submitters": [{"name": "Ada", "affiliation": "Here", "url": "https://example.org"}],
        "benchmark": benchmark.reference(),
        "maps": {"file": MAPS, "sha256": hashlib.sha256(maps or sound_maps()).hexdigest()},
        "attributions": [
            {
                "sample_id": WITH_BOXES,
                "boxes": [[10, 20, 30.5, 40]],
                "concepts": {"left lung": 0.5},
                "tokens": [{"text": "Yes\n", "score": -1.5}],
                "cost": {"forward_passes": 1, "backward_passes": 0, "seconds": 0.25},
            },
            {"sample_id": WITH_MAP, "map": True},
        ],
    }


def write_folder(folder, document=None, maps=None, *, raw=None):
    """A submission folder with this document (or these raw bytes of one) and these maps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "submission.json").write_bytes(json.dumps(document).encode() if raw is None else raw)
    (folder / MAPS).write_bytes(sound_maps() if maps is None else maps)
    return folder


_texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**320)
    | st.floats()
    | _texts
    | st.sampled_from([WITH_BOXES, WITH_MAP, "", "\x1b[31m", "../x", 2**63, -1])
)
json_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)
"""Anything that json.loads can give, and NaN and infinities as Python writes them."""


def places(value, at=()):
    """The location of every value inside a document."""
    inner = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


def changed(document, at, new, *, extra=False):
    """A copy of a document with another value at a location, or beside it where `extra`."""
    if not at:
        return new
    copy = json.loads(json.dumps(document))
    parent = copy
    for step in at[:-1]:
        parent = parent[step]
    if not extra:
        parent[at[-1]] = new
    elif isinstance(parent, list):
        parent.append(new)
    else:
        parent[f"{at[-1]}x"] = new
    return copy


@st.composite
def mutated_bytes(draw, sound):
    """`sound` with a few of its bytes changed, cut out or put in."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        patch = draw(st.binary(max_size=8))
        removed = draw(st.sampled_from([len(patch), 0, 1, 7]))
        data[position : position + removed] = patch
    return bytes(data)
