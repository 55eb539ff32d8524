"""The dataset card: the YAML header that `datasets` and the Hub read, and what people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import jinja2
import pyarrow as pa

from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.hub.layout import CONFIGS, DEFAULT_CONFIG, PUBLISHED_SCHEMA
from medfocus_bench.data.hub.repository import Repository
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
    "anatomy": "a box for each region of the anatomy; null for licensed sources",
}
"""What each column holds, for the card and the Croissant file."""

_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render_card(repository: Repository) -> str:
    """The text of `README.md`."""
    rows = sum(split.rows for config in repository.configs for split in config.splits)
    return str(
        _templates()
        .get_template("README.md.jinja")
        .render(
            repository=repository,
            sources=CONFIGS,
            default=DEFAULT_CONFIG,
            features=list(feature_lines()),
            columns=[(field.name, _type_text(field), COLUMN_TEXTS[field.name]) for field in PUBLISHED_SCHEMA],
            labels=LABELS,
            size=next((name for limit, name in _SIZES if rows < limit), "1M<n<10M"),
        )
    )


def changelog() -> str:
    """The text of `CHANGELOG.md`: what changed from version to version of the dataset."""
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
