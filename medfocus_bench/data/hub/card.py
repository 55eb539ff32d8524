"""The descriptions of a repository: the card for people and `datasets`, and the Croissant file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import pyarrow as pa

from medfocus_bench.data.base_rate import COIN_AT_MOST, Kept
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.hub.repository import DEFAULT_CONFIG, PUBLISHED_SCHEMA, Repository, published_configs
from medfocus_bench.data.labels import LABELS

_EDITS: Final = {
    "original": "the picture as it is",
    "foreground": "the picture with the evidence region edited away",
    "background": "the picture with all but the region edited, without the finding",
    "background_normal": "the picture with all but the region edited to that of a normal patient",
    "sham": "the picture with the region drawn anew, unchanged",
}

COLUMN_TEXTS: Final[Mapping[str, str]] = {
    "sample_id": "`{source}-{index}-{lvlm}-{mode}`, unique",
    "source": "the collection; also the name of the config",
    "index": "rank of the question in its source",
    "patient_id": "opaque; every interval is clustered by it",
    "image": "PNG, decoded by `datasets`; null for licensed sources",
    "image_ref": "null in what is published; a path in a local copy with attached pictures",
    "width": "native pixels",
    "height": "native pixels",
    "finding": "what is asked about",
    "question": "the full text of the prompt",
    "answer": "the right answer, always Yes",
    "lvlm": "the vision-language model that answered",
    "mode": "how it was asked to answer",
    "response": "what it wrote; every method explains this text",
    "boxes": "the evidence region: `[x1, y1, x2, y2]`, native pixels, half-open; null for licensed sources",
    "evidence": "what the region holds: the lesion, or (phantom only) a mark without medical meaning",
    "group": "what the causal filter found; only grounded rows are samples of the benchmark",
    **{f"answer_{name}": f"the answer to {_EDITS[name]}" for name in IMAGES},
    **{f"log_odds_{name}": f"log-odds of yes over no for {_EDITS[name]}" for name in (*IMAGES, "sham")},
    "decoding": "how the model wrote; null: greedily; `checkpoint`: with the penalties of its own settings",
    "anatomy": "a box for each region of the anatomy; null for licensed sources",
}
"""The content of each column, for the card and the Croissant file."""

_CITATION: Final = (
    "Xiong, Jin, Sinha, Lu, Zhang: Rethinking Visual Attribution for Chest X-ray Reasoning in Large Vision "
    "Language Models. arXiv:2605.20158, 2026."
)

_TEMPLATES: Final = Path(__file__).parent / "templates"
"""Texts of the card, and the JSON-LD context that the specification of Croissant prescribes."""

_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_card(repository: Repository) -> str:
    """The text of `README.md`."""
    rows = sum(split.rows for config in repository.configs for split in config.splits)
    return str(
        _templates()
        .get_template("README.md.jinja")
        .render(
            repository=repository,
            sources=published_configs(),
            default=DEFAULT_CONFIG,
            features=list(feature_lines()),
            columns=[(field.name, _type_text(field), COLUMN_TEXTS[field.name]) for field in PUBLISHED_SCHEMA],
            labels=LABELS,
            coin=f"{COIN_AT_MOST:.1%}",
            kept=kept_text,
            size=next((name for limit, name in _SIZES if rows < limit), "1M<n<10M"),
        )
    )


def kept_text(kept: Kept | None) -> str:
    """As "244 of 264 (92.4%; coin 10.4%)"."""
    if kept is None:
        return "0"
    coin = f"{'at most ' if kept.yes is None else ''}{kept.coin:.1%}"
    return f"{kept.count:,} of {kept.asked:,} ({kept.share:.1%}; coin {coin})"


def changelog() -> str:
    """The text of `CHANGELOG.md`, the history of the dataset."""
    return str(_templates().get_template("CHANGELOG.md.jinja").render())


def feature_lines() -> Iterator[str]:
    """The features of every config as lines of YAML, as `datasets` writes them itself."""
    for field in PUBLISHED_SCHEMA:
        yield f"- name: {field.name}"
        if field.name == "image":
            yield "  dtype: image"
        elif field.name in LABELS:
            yield from ("  dtype:", "    class_label:", "      names:")
            yield from (f"        '{number}': {name}" for number, name in enumerate(LABELS[field.name]))
        else:
            yield from (f"  {line}" for line in _type_lines(field.type))


def _type_lines(kind: pa.DataType) -> Iterator[str]:
    if not pa.types.is_list(kind):
        yield f"dtype: {_scalar(kind)}"
    elif pa.types.is_struct(kind.value_type):
        yield "list:"
        for part in kind.value_type:
            yield f"- name: {part.name}"
            yield from (f"  {line}" for line in _type_lines(part.type))
    elif pa.types.is_list(kind.value_type):
        yield "list:"
        yield from (f"  {line}" for line in _type_lines(kind.value_type))
    else:
        yield f"list: {_scalar(kind.value_type)}"


def _scalar(kind: pa.DataType) -> str:
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def _type_text(field: pa.Field) -> str:
    if field.name == "image":
        return "image"
    if field.name in LABELS:
        return "label"
    return {"boxes": "list of boxes", "anatomy": "list of concept, box"}.get(field.name, _scalar(field.type))


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("medfocus_bench.data.hub"),
        autoescape=jinja2.select_autoescape(),  # HTML only; these are Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_croissant(repository: Repository) -> Mapping[str, Any]:
    """The content of `croissant.json`, Croissant 1.1.

    Every shard is a FileObject with its sha256. A record set (one for each config and split) reads the file
    set of its shards, which lies beside the description: a copy of the repository loads without a network.
    Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
    """
    return {
        "@context": json.loads((_TEMPLATES / "croissant_context.json").read_text(encoding="utf-8")),
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
        source = published_configs()[config.name]
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
