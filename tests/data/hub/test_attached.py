"""Pointers of the Hub, joined with a licensed copy: what `load_samples` gives goes into `attach`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from medfocus_bench import load_samples
from medfocus_bench.counterfactual.dataset import pointer_row
from medfocus_bench.data.attach import NotJoinedError, attach, write_pointers
from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.hub.publish import export, push
from medfocus_bench.data.hub.repository import DATASET
from medfocus_bench.data.questions import MODES
from medfocus_bench.data.sources import open_source, read_question
from medfocus_bench.errors import InputError
from tests.data import source_trees as trees

from .conftest import publish

LICENSED = ("image", "image_ref", "boxes", "anatomy")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    trees.write_imagenome(folder)
    return folder


class _Said:
    """A record of the filter: grounded in direct mode, incorrect in reasoning mode."""

    source, evidence, lvlm, decoding = "imagenome", "lesion", "gemma3_4b", "greedy"
    log_odds: Mapping[str, float | None] = dict.fromkeys((*IMAGES, "sham"), 1.5)

    def __init__(self, index: int, mode: str) -> None:
        self.index, self.mode = index, mode
        self.group: Any = "grounded" if mode == "direct" else "incorrect"
        self.responses = dict.fromkeys(IMAGES, "Yes" if mode == "direct" else "Final answer: No.")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, plain):
    """A repository with pointers to the 12 questions of the small ImaGenome, in both modes."""
    folder = tmp_path_factory.mktemp("exported")
    records = [pointer_row(_Said(index, mode)) for mode in MODES for index in range(12)]
    write_pointers(records, folder / "pointers")
    export(folder / "out", plain, [folder / "pointers"])
    return folder / "out"


@pytest.fixture(scope="module")
def questions(root):
    return [read_question(found, root) for found in open_source("imagenome").annotations(root).questions]


@pytest.fixture
def pointers(hub, exported):
    publish(hub, exported)
    return load_samples(DATASET, config="imagenome")


@pytest.fixture
def stream(hub, exported):
    publish(hub, exported)
    return load_samples(DATASET, config="imagenome", streaming=True)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
def test_what_was_pushed_is_loaded_and_joined(hub, owner, exported, root, questions):
    push(exported, DATASET)
    for mode, group in (("direct", "grounded"), ("reasoning", "incorrect")):
        loaded = load_samples("medfocus/cxr-causal", config="imagenome", split=mode)
        joined = attach(loaded, root)
        assert len(joined) == 12
        for row, question in zip(joined, questions, strict=True):
            np.testing.assert_array_equal(np.asarray(row["image"]), question.image)
            np.testing.assert_array_equal(row["boxes"], question.boxes)
            assert (row["width"], row["height"]) == row["image"].size == (260, 224)
            assert row["finding"] == question.finding
            assert f"evidence of {question.finding} in" in row["question"]
            assert ("step by step" in row["question"]) == (mode == "reasoning")
            assert {"left lung", "right lung"} <= {part["concept"] for part in row["anatomy"]}
            assert joined.features["mode"].int2str(row["mode"]) == mode
            assert joined.features["group"].int2str(row["group"]) == group
            assert joined.features["evidence"].int2str(row["evidence"]) == "lesion"
        assert joined.data.nbytes == loaded.data.nbytes, "pictures and boxes are not copied"


def test_a_stream_of_the_hub_is_joined_row_by_row(stream, root, questions):
    joined = attach(stream, root)
    assert isinstance(joined, datasets.IterableDataset)
    rows = list(joined)
    assert len(rows) == 12
    for row, question in zip(rows, questions, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), question.image)
        np.testing.assert_array_equal(row["boxes"], question.boxes)
        assert stream.features["group"].int2str(row["group"]) == "grounded"


def test_two_processes_join_what_one_does(pointers, root, questions):
    joined = attach(pointers, root)

    def measured(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"grey": int(np.asarray(row["image"]).sum(dtype=np.int64)), "left": row["boxes"][0][0]}

    found = joined.map(measured, num_proc=2).with_format(None)
    assert found["grey"][:] == [int(question.image.sum(dtype=np.int64)) for question in questions]
    assert found["left"][:] == [question.boxes[0, 0] for question in questions]
    assert found["boxes"][:] == [None] * 12, "what a map computes is stored, what was joined is not"


def test_workers_that_share_no_memory_can_be_handed_the_rows(pointers, root):
    joined = attach(pointers, root)
    workers = DataLoader(joined, num_workers=1, collate_fn=list, multiprocessing_context="spawn")
    read = [row["boxes"] for (row,) in workers]
    assert read == [row["boxes"] for row in joined]


def test_a_label_is_filtered_on_without_a_look_at_a_picture(pointers, tmp_path):
    joined = attach(pointers, tmp_path / "no root")
    grounded = joined.features["group"].str2int("grounded")
    assert len(joined.filter(lambda group: group == grounded, input_columns="group")) == 12
    with pytest.raises(NotJoinedError, match="is not a folder"):
        joined[0]


def test_columns_that_cannot_be_joined_are_an_error_and_not_empty(pointers, root):
    joined = attach(pointers, root)
    with pytest.raises(NotJoinedError, match="rows without mode cannot be joined; keep the columns source"):
        joined.select_columns(["image", "boxes", "source", "index"])[0]
    assert joined.select_columns(["source", "index", "mode"])[0]["image"].size == (260, 224)


@pytest.mark.parametrize("order", ["format, attach", "attach, format", "on disk"])
def test_rows_are_tensors_where_torch_was_asked_for(request, root, questions, order):
    rows = iter(formatted(request, root, order))
    for question in questions[:3]:
        row = next(rows)
        assert row["image"].shape == (1, 224, 260)
        np.testing.assert_array_equal(row["image"][0].numpy(), question.image)
        np.testing.assert_array_equal(row["boxes"].numpy(), question.boxes)
        assert (row["group"], row["mode"]) == (torch.tensor(2), torch.tensor(0))
        assert row["finding"] == question.finding


def formatted(request: pytest.FixtureRequest, root: Path, order: str) -> Iterator[Mapping[str, Any]]:
    if order == "on disk":
        return iter(attach(request.getfixturevalue("pointers").with_format("torch"), root))
    stream = request.getfixturevalue("stream")
    if order == "format, attach":
        return iter(attach(stream.with_format("torch"), root))
    return iter(attach(stream, root).with_format("torch"))


def test_a_batch_is_stacked_as_torch_does(pointers, root, questions):
    batch = attach(pointers.with_format("torch"), root)[:4]
    assert batch["image"].shape == (4, 1, 224, 260)
    assert [boxes.shape for boxes in batch["boxes"]] == [(len(q.boxes), 4) for q in questions[:4]]
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_a_format_or_transform_that_would_be_lost_is_refused(pointers, root):
    with pytest.raises(InputError, match="has a transform already"):
        attach(attach(pointers, root), root)
    with pytest.raises(InputError, match="'pandas' has no place for pictures"):
        attach(pointers.with_format("pandas"), root)


def test_what_was_attached_goes_nowhere(hub, owner, stream, exported, root, tmp_path, plain):
    """A stream can be written to a file with all that was joined; that file goes nowhere."""
    saved = tmp_path / "saved" / "imagenome" / "direct.parquet"
    attach(stream, root).cast(stream.features).to_parquet(str(saved))
    (row, *_) = pq.read_table(tmp_path / "saved").to_pylist()
    assert row["boxes"]
    assert row["image"]["bytes"]
    with pytest.raises(InputError, match=r"holds image, .*boxes.* of imagenome, which is licensed"):
        export(tmp_path / "out", plain, [tmp_path / "saved"])
    before = list(hub.repos[DATASET].commits)
    (forged,) = (exported / "imagenome").glob("direct-*.parquet")
    shutil.copytree(exported, tmp_path / "forged")
    shutil.copy(saved, tmp_path / "forged" / forged.relative_to(exported))
    with pytest.raises(InputError, match="of imagenome, which is licensed"):
        push(tmp_path / "forged", DATASET)
    assert hub.repos[DATASET].commits == before


def test_writing_an_attached_dataset_writes_its_pointers(pointers, root, tmp_path):
    attach(pointers, root).to_parquet(str(tmp_path / "imagenome" / "direct.parquet"))
    rows = [row for _, _, row in read_rows(tmp_path / "imagenome")]
    assert len(rows) == 12
    assert all(row[name] is None for row in rows for name in LICENSED)
