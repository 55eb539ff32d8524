"""Input that `write_benchmark` takes, and its messages about input that it refuses."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medfocus_bench import InputError, load_benchmark, write_benchmark
from medfocus_bench.data.benchmark import read_rows

from ..conftest import make_row

PICTURE = np.tile(np.arange(64, dtype=np.uint8), (48, 1))


def own_row(**more):
    return make_row(width=64, height=48, boxes=[[8, 8, 40, 40]], **more)


def written(folder, *rows, **more):
    return write_benchmark(folder, {"direct": rows}, name="mine", version="1", **more)


def test_a_picture_of_pil_is_stored_as_png_and_read_back_as_it_is(tmp_path):
    bench = written(tmp_path / "mine", own_row(image=Image.fromarray(PICTURE)))
    ((*_, row),) = read_rows(bench.folder)
    assert Image.open(io.BytesIO(row["image"]["bytes"])).format == "PNG"
    assert np.array_equal(bench.samples[0].image, PICTURE)


def test_bytes_of_a_file_and_arrays_of_boxes_are_taken(tmp_path):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "PNG")
    row = own_row(image=file.getvalue()) | {"boxes": np.array([[8.0, 8, 40, 40]])}
    bench = written(tmp_path / "mine", row)
    assert np.array_equal(bench.samples[0].image, PICTURE)
    assert bench.samples[0].boxes.tolist() == [[8, 8, 40, 40]]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (
            "image",
            "chest.png",
            "column image: str 'chest.png' is not a picture; give one of PIL, or the bytes",
        ),
        ("image", PICTURE, "column image: list .* is not a picture"),
        (
            "image",
            Image.new("CMYK", (64, 48)),
            "column image: cannot be stored as PNG .*convert it to L",
        ),
        ("boxes", [8, 8, 40, 40], r"column boxes: list \[8, 8, 40, 40\] is not a list of \[x1, y1, x2, y2\]"),
        ("boxes", [["a", 8, 40, 40]], "column boxes: list"),
        ("width", "wide", "column width: str 'wide' is not a whole number"),
        ("index", 2**70, "column index: int .* is not a whole number"),
        ("finding", 7, "column finding: int 7 is not a text"),
        ("log_odds_original", "high", "column log_odds_original: str 'high' is not a number"),
        ("respones", "Yes.", "column respones: a benchmark has none of that name; there are .*response"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_row_and_column(tmp_path, column, value, said):
    good, bad = own_row(), own_row(number=1) | {column: value}
    with pytest.raises(InputError, match=rf"row 1 \({bad['sample_id']}\): {said}") as refused:
        written(tmp_path / "mine", good, bad)
    assert str(refused.value).startswith(str(tmp_path / "mine"))
    assert list(tmp_path.iterdir()) == []


def test_the_row_is_named_also_in_a_later_batch(tmp_path):
    rows = [own_row(number=number) for number in range(300)]
    rows[299]["height"] = "high"
    with pytest.raises(InputError, match=r"row 299 .*column height: str 'high' is not a whole number"):
        written(tmp_path / "mine", *rows)


def test_a_benchmark_is_replaced_only_where_that_is_asked_for(tmp_path):
    first = written(tmp_path / "mine", own_row())
    with pytest.raises(InputError, match=r"is there already; name another folder, .*overwrite=True"):
        written(tmp_path / "mine", own_row(number=5))
    assert load_benchmark(tmp_path / "mine").fingerprint == first.fingerprint
    second = written(tmp_path / "mine", own_row(number=5), overwrite=True)
    assert load_benchmark(tmp_path / "mine").fingerprint == second.fingerprint != first.fingerprint
    assert [sample.index for sample in second.samples] == [5]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match=r"chapter\.tex: is not part of a benchmark"):
        written(tmp_path / "thesis", own_row(), overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "x"


def test_what_is_wrong_with_the_rows_leaves_an_earlier_benchmark_as_it_was(tmp_path):
    first = written(tmp_path / "mine", own_row())
    with pytest.raises(InputError, match=f"^{tmp_path / 'mine'}"):
        written(tmp_path / "mine", own_row(mode="neither"), overwrite=True)
    assert load_benchmark(tmp_path / "mine").fingerprint == first.fingerprint
