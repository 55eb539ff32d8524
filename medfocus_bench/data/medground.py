"""The records of the published benchmark: models, questions by source and index, four answers each.

They hold no boxes and no pixels. A record names its mode by its fields: `prediction_direct` and so on, or
`prediction_cot` and so on for the reasoning mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.base_rate import Kept
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.parquet import MAX_TEXT
from medfocus_bench.data.questions import Decoding, Mode
from medfocus_bench.data.rows import Group, group_of
from medfocus_bench.data.sources.registry import installed_sources, published_sources
from medfocus_bench.data.sources.tables import read_json_list
from medfocus_bench.errors import InputError
from medfocus_bench.text import same

NAME: Final = "medground"
VERSION: Final = "2605.20158"
"""The published records have no version of their own; this is the paper's number."""

MODELS: Final[Mapping[str, str]] = {
    "qwen2_5_vl_3b": "qwen2_5_vl_3b",
    "qwen2_5_vl_7b": "qwen2_5_vl_7b",
    "gemma3_4b": "gemma3_4b",
    "gemma3_12b": "gemma3_12b",
    "medgemma_4b": "medgemma_4b",
    "medgemma1_5_4b": "medgemma_1_5_4b",
}
"""The models by the name in the records, with their key in the registry of LVLMs."""

_SUFFIXES: Final[Mapping[str, Mode]] = {"direct": "direct", "cot": "reasoning"}
_STEMS: Final = ("prediction", "prediction_edited", "prediction_edited_kept", "prediction_edited_kept_normal")
"""In the order of `IMAGES`."""


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """One published sample; `responses` are the texts by picture of the causal filter."""

    source: str
    index: int
    lvlm: str
    mode: Mode
    responses: Mapping[str, str]
    place: str
    evidence: str = "lesion"
    log_odds: Mapping[str, float | None] = field(default_factory=dict)
    decoding: Decoding = "checkpoint"

    @property
    def group(self) -> Group:
        return group_of(self.responses)


def read_records(paths: Iterable[Path]) -> tuple[PublishedRecord, ...]:
    """All records of these files. Raises InputError with every problem of every record and its place."""
    records: list[PublishedRecord] = []
    problems: list[str] = []
    seen: dict[tuple[str, int, str, str], str] = {}
    for path in paths:
        for number, value in enumerate(read_json_list(path), start=1):
            place = f"{path}: record {number}"
            try:
                record = _record(value, place)
            except ValueError as error:
                problems.append(f"{place}: {error}")
                continue
            key = (record.source, record.index, record.lvlm, record.mode)
            if key in seen:
                problems.append(f"{place}: is the same sample as {seen[key]}")
                continue
            seen[key] = place
            records.append(record)
    if problems:
        raise InputError(problems)
    if not records:
        raise InputError("the files hold no records")
    return tuple(records)


def _record(value: Any, place: str) -> PublishedRecord:
    """Raise ValueError with what is wrong with a record."""
    if not isinstance(value, dict):
        raise ValueError(f"is not an object but {type(value).__name__}")
    suffix = next((end for end in _SUFFIXES if f"prediction_{end}" in value), None)
    if suffix is None:
        raise ValueError("has neither prediction_direct nor prediction_cot")
    names = [f"{stem}_{suffix}" for stem in _STEMS]
    wanted = {"model", "dataset", "index", "answer", *names}
    if value.keys() != wanted:
        lacking, strange = sorted(wanted - value.keys()), sorted(value.keys() - wanted)
        raise ValueError(f"lacks {lacking[0]}" if lacking else f"has the unknown field {strange[0][:100]!r}")
    model, source, index = value["model"], value["dataset"], value["index"]
    if model not in (known := tuple(MODELS)):
        raise ValueError(f"model {str(model)[:100]!r} is not one of {', '.join(known)}")
    if source not in published_sources():
        raise ValueError(f"dataset {str(source)[:100]!r} is not one of {', '.join(published_sources())}")
    count = installed_sources()[source].expected["test"]
    if type(index) is not int or not 0 <= index < count:
        raise ValueError(f"index {str(index)[:100]} is not a rank within the {count:,} questions of {source}")
    if same(str(value["answer"])) != "yes":
        raise ValueError(
            f"answer {str(value['answer'])[:100]!r} is not 'Yes'; every question is of a finding"
        )
    for name in names:
        if not isinstance(value[name], str) or not 0 < len(value[name]) <= MAX_TEXT:
            raise ValueError(f"{name} is not a text of 1 to {MAX_TEXT:,} characters")
    responses = dict(zip(IMAGES, (value[name] for name in names), strict=True))
    return PublishedRecord(source, index, MODELS[model], _SUFFIXES[suffix], responses, place)


def disagreements(records: Sequence[PublishedRecord]) -> list[str]:
    """The records whose answers, parsed again, are not those of a grounded sample, as all published are."""
    return [
        f"{record.place}: is published as grounded, but its answers say {record.group}"
        for record in records
        if record.group != "grounded"
    ]


def counts(records: Sequence[PublishedRecord]) -> Mapping[tuple[str, str], Counter[str]]:
    """The number of records of each model by (mode, source); models are never pooled."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        found.setdefault((record.mode, record.source), Counter())[record.lvlm] += 1
    return found


def kept(records: Sequence[PublishedRecord]) -> Mapping[tuple[str, str], Mapping[str, Kept]]:
    """How many of the questions of a source each model passed, by (mode, source) and model.

    Only those that passed are published, so that the share of yes among all answers is not known.
    """
    asked = {source: installed_sources()[source].expected["test"] for source in published_sources()}
    return {
        (mode, source): {lvlm: Kept(count, asked[source]) for lvlm, count in of_models.items()}
        for (mode, source), of_models in counts(records).items()
    }


def distinct_questions(records: Sequence[PublishedRecord]) -> int:
    return len({(record.source, record.index) for record in records})
