"""The repository in Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html).

Every shard is a FileObject with its sha256. A record set (one for each config and split) reads the file set
of its shards, which lies beside the description: a copy of the repository loads without a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from medfocus_bench.data.hub.card import COLUMN_TEXTS
from medfocus_bench.data.hub.layout import CONFIGS, PUBLISHED_SCHEMA
from medfocus_bench.data.hub.repository import Repository
from medfocus_bench.data.labels import LABELS

_CITATION: Final = (
    "Xiong, Jin, Sinha, Lu, Zhang: Rethinking Visual Attribution for Chest X-ray Reasoning in Large Vision "
    "Language Models. arXiv:2605.20158, 2026."
)

CONTEXT: Final[Mapping[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The JSON-LD context that the specification prescribes."""


def render_croissant(repository: Repository) -> Mapping[str, Any]:
    """The description as a JSON value."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": repository.name.replace("/", "-"),
        "description": (
            "Questions about chest X-rays, the answers of vision-language models, and the region of the "
            "picture that was shown to drive each answer by editing it away."
        ),
        "url": f"https://huggingface.co/datasets/{repository.name}",
        "version": repository.version,
        "license": ["https://opensource.org/license/mit"],
        "creator": {"@type": "Organization", "name": "The MedFocus-Bench authors"},
        "citeAs": _CITATION,
        "keywords": ["chest X-ray", "explainability", "attribution", "vision-language models"],
        "isLiveDataset": False,
        "distribution": list(_distribution(repository)),
        "recordSet": list(_record_sets(repository)),
    }


def _distribution(repository: Repository) -> Iterator[Mapping[str, Any]]:
    for shard in repository.shards:
        yield {
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": shard.path,
            "contentUrl": shard.path,
            "contentSize": f"{shard.size} B",
            "encodingFormat": "application/x-parquet",
            "sha256": shard.sha256,
        }
    for config in repository.configs:
        for split in config.splits:
            yield {
                "@type": "cr:FileSet",
                "@id": f"files/{config.name}/{split.name}",
                "name": f"files/{config.name}/{split.name}",
                "description": f"The shards of {config.name}, {split.name}.",
                "encodingFormat": "application/x-parquet",
                "includes": f"{config.name}/{split.name}-*.parquet",
            }


def _record_sets(repository: Repository) -> Iterator[Mapping[str, Any]]:
    for config in repository.configs:
        source = CONFIGS[config.name]
        terms = "" if source.is_open else f" Pointers; pixels and boxes are under {source.licence}."
        for split in config.splits:
            name = f"{config.name}/{split.name}"
            yield {
                "@type": "cr:RecordSet",
                "@id": name,
                "name": name,
                "description": f"{source.title}, {split.name}: {split.rows} rows.{terms}",
                "key": {"@id": f"{name}/sample_id"},
                "field": [_field(name, field) for field in PUBLISHED_SCHEMA],
            }


def _field(record_set: str, field: pa.Field) -> Mapping[str, Any]:
    identity = f"{record_set}/{field.name}"
    text = COLUMN_TEXTS[field.name]
    if field.name in LABELS:
        names = ", ".join(f"{number} {name}" for number, name in enumerate(LABELS[field.name]))
        text = f"{text} ({names})"
    described = {
        "@type": "cr:Field",
        "@id": identity,
        "name": identity,
        "description": text.replace("`", ""),
    }
    read: dict[str, Any] = {
        "fileSet": {"@id": f"files/{record_set}"},
        "extract": {"column": field.name},
    }
    if field.name == "image":
        read["transform"] = {"jsonPath": "bytes"}
        return described | {"dataType": "sc:ImageObject", "source": read}
    if field.name == "boxes":
        shape = {"isArray": True, "arrayShape": "-1,4"}
        return described | {"dataType": "cr:Float64", **shape, "source": read}
    if field.name == "anatomy":
        parts: dict[str, dict[str, Any]] = {
            "concept": {"dataType": "sc:Text"},
            "box": {"dataType": "cr:Float64", "isArray": True},
        }
        return described | {
            "isArray": True,
            "arrayShape": "-1",
            "subField": [
                {
                    "@type": "cr:Field",
                    "@id": f"{identity}/{part}",
                    "name": f"{identity}/{part}",
                    **kind,
                    "source": read | {"transform": {"jsonPath": part}},
                }
                for part, kind in parts.items()
            ],
        }
    return described | {"dataType": _data_type(field.type), "source": read}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    return {"int32": "cr:Int32", "int64": "cr:Int64", "float": "cr:Float32"}[str(kind)]
