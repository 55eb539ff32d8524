"""Attributions of a valid submission that explain nothing are counted."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, validate
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import SubmissionError

from ..conftest import METHOD, make_row

SAMPLES = 8


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Eight grounded rows, three that are not."""
    rows = [make_row(number) for number in range(SAMPLES)]
    rows += [{**make_row(SAMPLES), "group": "incorrect"}]
    rows += [{**make_row(SAMPLES + n), "group": "ungrounded"} for n in (1, 2)]
    folder = tmp_path_factory.mktemp("data") / "bench"
    return write_benchmark(folder, {"direct": rows}, name="bench", version="1.0.0")


def written(folder, bench, said):
    with SubmissionWriter(folder, METHOD, bench, submitters="Ada") as writer:
        for number, what in said.items():
            key = "boxes" if isinstance(what, list) else "saliency"
            writer.add(Attribution(bench.samples[number].sample_id, **{key: what}))
    return folder


SOUND = np.eye(4, dtype=np.float32)
NAN = np.full((4, 4), np.nan, dtype=np.float32)
ONE_INF = np.where(np.arange(16).reshape(4, 4) == 5, np.inf, SOUND)


def test_nothing_is_said_of_a_submission_that_explains_every_sample(tmp_path, bench):
    found = validate(written(tmp_path / "s", bench, dict.fromkeys(range(SAMPLES), SOUND)), bench)
    assert found == []
    assert found.warnings == []
    assert found.counts.summary == "8 of 8 samples, 8 by maps and 0 by boxes"


def test_each_kind_of_nothing_is_counted(tmp_path, bench):
    said = {
        0: NAN,
        1: NAN,
        2: ONE_INF,
        3: np.zeros((4, 4)),
        4: np.full((4, 4), 3, dtype=np.uint8),
        5: [],
        6: np.zeros((0, 4)),
    }
    found = validate(written(tmp_path / "s", bench, said), bench)
    first = [sample.sample_id for sample in bench.samples]
    assert found == []
    assert found.warnings == [
        "only 7 of 8 samples have an attribution; what is missing scores 0",
        f"2 maps have no finite value, which explains nothing (the first is that of {first[0]})",
        "1 map has a value that is NaN or infinite, which explains nothing "
        f"(the first is that of {first[2]})",
        "1 map has zeros only, which explains nothing; did small values underflow? "
        f"(the first is that of {first[3]})",
        f"1 map has one value everywhere, which explains nothing (the first is that of {first[4]})",
        f"1 map has no pixel (the first is that of {first[6]})",
        f"1 sample has an empty list of boxes, which explains nothing (the first is that of {first[5]})",
    ]


def test_without_a_benchmark_what_is_missing_is_not_known(tmp_path, bench):
    found = validate(written(tmp_path / "s", bench, {0: SOUND}))
    assert found.warnings == []
    assert found.counts.summary == "1 attributions, 1 by maps and 0 by boxes"


def test_rows_that_are_not_grounded_are_one_problem_that_says_so(tmp_path, bench):
    """Whoever goes through the rows of the dataset itself explains those, too."""
    from medfocus_bench.submission.schema import SubmissionDocument

    folder = written(tmp_path / "s", bench, {n: [[1, 2, 30, 40]] for n in range(SAMPLES)})
    path = folder / "submission.json"
    document = SubmissionDocument.model_validate_json(path.read_text())
    one = document.attributions[0]
    ids = [make_row(n)["sample_id"] for n in range(SAMPLES, SAMPLES + 3)] + ["other"]
    more = [one.model_copy(update={"sample_id": key}) for key in ids]
    whole = document.model_copy(update={"attributions": [*document.attributions, *more]})
    path.write_text(whole.model_dump_json(exclude_none=True))
    problems = validate(folder, bench)
    assert len(problems) == 2
    assert (
        "/attributions: 3 are of rows of the dataset that are not grounded (incorrect 1, ungrounded 2), "
        in (problems[0])
    )
    assert "(other): no such sample in phantom / direct" in problems[1]
    assert problems.counts is None


def test_the_writer_says_of_a_row_that_is_not_grounded_why_it_is_not_a_sample(tmp_path, bench):
    row = make_row(SAMPLES)["sample_id"]
    with (
        SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada") as writer,
        pytest.raises(SubmissionError, match=f"{row}: is a row of the dataset that is not grounded"),
    ):
        writer.add(Attribution(row, boxes=[[1, 2, 30, 40]]))
