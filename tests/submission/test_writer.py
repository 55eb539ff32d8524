"""Writing a submission: all of it or nothing, and what was written is read back equal."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, validate
from medfocus_bench.attribution.attribution import Cost
from medfocus_bench.errors import SubmissionError
from medfocus_bench.submission import writer as writer_module
from medfocus_bench.submission.reader import open_submission
from medfocus_bench.submission.schema import Submitter

from ..conftest import METHOD
from .documents import WITH_BOXES, WITH_MAP

BOX = np.array([[1.0, 2.0, 3.5, 4.0]])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "submissions" / "mine"


def writing(folder, bench, **more):
    return SubmissionWriter(folder, METHOD, bench, **{"submitters": ["Ada"], **more})


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (0, 4), (2048, 1)])
def test_a_map_is_read_back_equal(shape, dtype, folder, bench):
    saliency = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    if dtype != np.uint8 and saliency.size > 4:
        saliency.ravel()[:4] = np.nan, np.inf, -np.inf, -0.0
    with writing(folder, bench) as writer:
        writer.add(Attribution(WITH_MAP, saliency=saliency))
    assert validate(folder, bench) == []
    attribution = open_submission(folder, bench).attribution(WITH_MAP)
    read = attribution.saliency
    assert (read.dtype, read.shape, read.tobytes()) == (saliency.dtype, shape, saliency.tobytes())


def test_boxes_scores_and_costs_are_read_back_equal(folder, bench):
    given = Attribution(
        WITH_BOXES,
        boxes=BOX,
        concepts={"left lung": np.float32(0.5), "Herzgröße": 1.0},
        tokens=[("Ġyes\n", -0.25), ("", np.float64(1))],
        cost=Cost(forward_passes=0, seconds=1.5),
    )
    with writing(folder, bench) as writer:
        writer.add(given)
    read = open_submission(folder, bench).attribution(WITH_BOXES)
    assert read.boxes.tolist() == BOX.tolist()
    assert (read.concepts, list(read.tokens), read.cost) == (given.concepts, given.tokens, given.cost)


def test_the_same_content_gives_the_same_bytes(folder, bench):
    written = []
    for name in ("one", "two"):
        target = folder.with_name(name)
        with writing(target, bench) as writer:
            writer.add(Attribution(WITH_MAP, saliency=np.eye(3, dtype=np.float32)))
        written.append({path.name: path.read_bytes() for path in target.iterdir()})
        assert stat.S_IMODE(target.stat().st_mode) == 0o755, "others can read it"
    assert written[0] == written[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SubmissionError])
def test_an_error_inside_the_block_leaves_nothing_behind(error, folder, bench):
    with pytest.raises(error), writing(folder, bench) as writer:  # noqa: PT012
        writer.add(Attribution(WITH_MAP, saliency=np.eye(300)))
        if error is KeyboardInterrupt:
            raise error
        writer.add(Attribution(WITH_BOXES, saliency=np.zeros((2049, 1))))
    assert left_in(folder.parent) == []


def test_a_method_that_breaks_the_format_leaves_nothing_behind(folder, bench):
    method = {**METHOD.model_dump(), "name": "No Name"}
    with pytest.raises(SubmissionError, match=r"submission\.json: /method/name: "):
        SubmissionWriter(folder, method, bench, submitters=["Ada"])
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("submitters", "said"),
    [
        ([], "/submitters: "),
        ([{"nmae": "Ada"}], "/submitters/0/name: is required"),
        ([{"name": "Ada", "link": "x"}], "/submitters/0/link: is not a key"),
        ("", "/submitters/0/name: "),
    ],
)
def test_submitters_are_looked_at_before_the_first_map(submitters, said, folder, bench):
    with pytest.raises(SubmissionError, match=said):
        writing(folder, bench, submitters=submitters)
    assert not folder.parent.exists()


@pytest.mark.parametrize("ada", ["Ada", {"name": "Ada"}, Submitter(name="Ada"), ["Ada"], ({"name": "Ada"},)])
def test_one_submitter_is_one_with_and_without_a_list(ada, folder, bench):
    with writing(folder, bench, submitters=ada):
        pass
    assert open_submission(folder).document.submitters == [Submitter(name="Ada")]


@pytest.mark.parametrize("make", [lambda folder: folder.mkdir(), lambda folder: folder.symlink_to("nowhere")])
def test_an_existing_folder_or_a_dangling_link_is_refused(make, folder, bench):
    folder.parent.mkdir()
    make(folder)
    with pytest.raises(SubmissionError, match=r"exists already.*overwrite=True"):
        writing(folder, bench)
    assert left_in(folder.parent) == ["mine"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(folder, bench):
    with pytest.raises(SubmissionError, match="exists already"), writing(folder, bench):
        folder.mkdir()
    assert left_in(folder.parent) == ["mine"]
    assert left_in(folder) == []


def test_a_submission_is_overwritten_where_that_is_asked_for(folder, bench):
    with writing(folder, bench) as writer:
        writer.add(Attribution(WITH_MAP, saliency=np.eye(3)))
    with writing(folder, bench, overwrite=True) as writer:
        writer.add(Attribution(WITH_BOXES, boxes=BOX))
    assert left_in(folder.parent) == ["mine"]
    assert left_in(folder) == ["submission.json"]
    assert len(open_submission(folder, bench)) == 1


def test_an_old_submission_survives_an_error_while_it_is_overwritten(folder, bench):
    with writing(folder, bench):
        pass
    before = (folder / "submission.json").read_bytes()
    with pytest.raises(ZeroDivisionError), writing(folder, bench, overwrite=True):
        raise ZeroDivisionError
    assert left_in(folder.parent) == ["mine"]
    assert (folder / "submission.json").read_bytes() == before


def test_a_folder_that_is_no_submission_is_never_overwritten(folder, bench):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()
    with pytest.raises(SubmissionError, match="is not a submission"):
        writing(folder, bench, overwrite=True)
    assert left_in(folder) == ["thesis.tex"]


def test_a_sample_is_added_once(folder, bench):
    with writing(folder, bench) as writer:
        writer.add(Attribution(WITH_BOXES, boxes=BOX))
        with pytest.raises(SubmissionError, match=f"{WITH_BOXES} was added already"):
            writer.add(Attribution(WITH_BOXES, boxes=BOX))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"boxes": [[1, 1, 1, 2]]}, r"/boxes/0: the box is inside out or empty"),
        ({"boxes": BOX, "concepts": {"a": float("nan")}}, "/concepts/a: should be a finite number"),
        ({"boxes": BOX, "tokens": [("\ud800", 1.0)]}, "/tokens/0/text: should be a valid string"),
        ({"saliency": np.eye(2), "cost": Cost(seconds=-1)}, "/cost/seconds: should be greater"),
        ({"boxes": [[0, 0, 224, 201]]}, "/boxes/0: reaches out of the image of 224 x 200 pixels; boxes are"),
        ({"boxes": [[-1, 0, 224, 200]]}, "/boxes/0/0: should be greater"),
        ({"saliency": np.eye(2) * 1j}, "a map holds real numbers, not complex128"),
        ({"saliency": [[None, 1]]}, "a map holds real numbers, not object"),
        ({"saliency": [["a", "b"]]}, "a map holds real numbers, not <U1"),
        (
            {"boxes": [[0.1, 0.2, 0.5, 1.0]]},
            "/boxes: all lie within a pixel of the corner .* 224 x 200 pixels",
        ),
        ({"saliency": np.zeros((1, 2049))}, "a map is 2-D with at most 2048 pixels a side"),
    ],
)
def test_an_attribution_that_breaks_the_format_is_refused_when_it_is_added(broken, said, folder, bench):
    with writing(folder, bench) as writer:
        with pytest.raises(SubmissionError, match=f"{WITH_MAP}: {said}"):
            writer.add(Attribution(WITH_MAP, **broken))
        writer.add(Attribution(WITH_MAP, saliency=np.eye(2)))
    assert validate(folder, bench) == []


def test_a_sample_that_is_not_in_the_benchmark_is_refused_when_it_is_added(folder, bench):
    with writing(folder, bench) as writer:
        with pytest.raises(SubmissionError) as raised:
            writer.add(Attribution("other", boxes=BOX))
        assert str(raised.value) == (
            f"{folder}: other: /sample_id: no such sample in phantom / direct; remove it"
        )
    assert validate(folder, bench) == []


@pytest.mark.parametrize(
    "given",
    [{"saliency": [[0, 1], [2, 3]]}, {"saliency": memoryview(np.eye(2))}, {"boxes": [(1, 2, 3, 4)]}],
    ids=["lists", "a buffer", "tuples"],
)
def test_maps_and_boxes_may_be_any_array_like(given, folder, bench):
    with writing(folder, bench) as writer:
        writer.add(Attribution(WITH_MAP, **given))
    read = open_submission(folder, bench).attribution(WITH_MAP)
    ((name, value),) = given.items()
    assert np.array_equal(getattr(read, name), np.asarray(value))


def test_what_is_masked_is_not_taken_for_a_value():
    masked = np.ma.masked_equal(np.array([[0.0, 1.0]]), 1.0)
    with pytest.raises(ValueError, match=f"{WITH_MAP}: a map has masked values"):
        Attribution(WITH_MAP, saliency=masked)
    with pytest.raises(ValueError, match=f"{WITH_MAP}: an array of boxes has masked values"):
        Attribution(WITH_MAP, boxes=np.ma.masked_equal(BOX, 1.0))
    whole = np.ma.masked_less(np.array([[0.0, 1.0]]), -1.0)
    assert Attribution(WITH_MAP, saliency=whole).saliency is not None


def test_a_document_that_could_not_be_read_is_not_written(folder, bench, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(SubmissionError, match="at most 100 are read"), writing(folder, bench):
        pass
    assert left_in(folder.parent) == []


def test_maps_go_to_disk_as_they_come(folder, bench):
    with writing(folder, bench) as writer:
        writer.add(Attribution(WITH_MAP, saliency=np.ones((1024, 1024), dtype=np.float32)))
        (work,) = folder.parent.iterdir()
        assert sum(path.stat().st_size for path in work.iterdir()) >= 2**22 - 2**17
        assert work.stat().st_mode & 0o077 == 0
