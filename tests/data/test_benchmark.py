"""Benchmark folders: what is read, what identifies them, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from medfocus_bench.data.benchmark import Benchmark, read_rows
from medfocus_bench.data.columns import REQUIRED, SCHEMA
from medfocus_bench.data.resolve import installed_benchmarks, load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import BenchmarkError, InputError
from medfocus_bench.evaluation.evaluate import evaluate

from ..conftest import make_row, write_submission
from ..submission.documents import mutated_bytes

MakeBenchmark = Callable[..., Benchmark]

ROWS = [
    make_row(
        number,
        image={"bytes": b"png" * number, "path": None},
        anatomy=[{"concept": "l", "box": [0, 0, 9, 9]}],
    )
    for number in range(6)
]


def save(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema | None = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def fingerprint(folder: Path) -> str:
    return load_benchmark(folder).fingerprint


def refusal(folder: Path) -> str:
    with pytest.raises(BenchmarkError) as raised:
        load_benchmark(folder)
    assert len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_only_grounded_rows_are_samples_but_all_count_for_the_fingerprint(make_benchmark):
    rows = [make_row(0, group="grounded"), make_row(1, group="ungrounded"), make_row(2)]
    benchmark = make_benchmark(rows)
    assert [sample.index for sample in benchmark.samples] == [0, 2]
    assert make_benchmark([rows[0], rows[2]], name="other").fingerprint != benchmark.fingerprint
    with pytest.raises(BenchmarkError, match="grounded"):
        make_benchmark([make_row(0, group="incorrect")])


def test_a_row_says_how_its_answers_were_decoded_and_one_that_does_not_is_greedy(make_benchmark):
    rows = [make_row(0, decoding="checkpoint"), make_row(1)]
    assert [sample.decoding for sample in make_benchmark(rows).samples] == ["checkpoint", "greedy"]
    plain = make_benchmark([make_row(0), make_row(1)], name="plain")
    named = make_benchmark([make_row(0, decoding=None), make_row(1)], name="named")
    assert plain.fingerprint == named.fingerprint
    with pytest.raises(BenchmarkError, match="decoding 'beams' is not one of greedy, checkpoint"):
        make_benchmark([make_row(0, decoding="beams")], name="beams")


def test_a_folder_is_read_as_it_was_written(make_benchmark):
    written = make_benchmark(ROWS)
    read = load_benchmark(written.folder)
    assert (read.name, read.version, read.fingerprint) == ("bench", "1.0.0", written.fingerprint)
    assert (read.configs, read.splits) == (("phantom",), ("direct",))
    sample = read.samples[1]
    assert (sample.sample_id, sample.width) == (ROWS[1]["sample_id"], 224)
    assert sample.patient == ("phantom", "p0001")
    assert sample.boxes.tolist() == ROWS[1]["boxes"]
    assert sample.anatomy["l"].tolist() == [[0, 0, 9, 9]]


def test_a_folder_without_a_manifest_is_unversioned_and_named_as_it_is(tmp_path):
    save(tmp_path / "mine" / "direct.parquet", ROWS)
    read = load_benchmark(tmp_path / "mine")
    assert (read.name, read.version) == ("mine", "unversioned")


def test_the_split_is_the_name_of_the_file(tmp_path):
    save(tmp_path / "phantom" / "dev-00000-of-00001.parquet", [ROWS[0]])
    save(tmp_path / "reasoning.parquet", [ROWS[1] | {"mode": "reasoning"}])
    assert [sample.split for sample in load_benchmark(tmp_path).samples] == ["dev", "reasoning"]
    assert [sample.split for sample in load_benchmark(tmp_path, split="dev").samples] == ["dev"]
    assert load_benchmark(load_benchmark(tmp_path), split=["reasoning"]).splits == ("reasoning",)
    with pytest.raises(InputError, match=r"no split 'direct' in .*, only dev, reasoning"):
        load_benchmark(tmp_path, split="direct")


@pytest.mark.parametrize("name", ["control", "control-00000-of-00001", "dev-copy", "Dev"])
def test_a_file_of_an_unknown_split_is_never_read_as_another(tmp_path, name):
    """A later version's controls would be scored as evidence."""
    shutil.copy(installed_benchmarks()["phantom"] / "dev.parquet", tmp_path / f"{name}.parquet")
    save(tmp_path / "direct.parquet", ROWS)
    assert refusal(tmp_path) == (
        f"{tmp_path / name}.parquet: {name.partition('-0')[0]!r} is not a split that this version knows, "
        "which are direct, reasoning, dev; name the file <split>.parquet or <split>-00000-of-00001.parquet, "
        "or move it out of the folder"
    )


def test_a_mode_that_contradicts_the_name_of_the_file_is_refused(tmp_path):
    path = save(tmp_path / "reasoning-00000-of-00001.parquet", [ROWS[1]])
    assert refusal(tmp_path) == (
        f"{path}: row 0 ({ROWS[1]['sample_id']}): mode is direct, but the file is named reasoning; "
        "move the row, or rename the file"
    )


def test_the_fingerprint_depends_on_no_order_and_no_files(tmp_path):
    save(tmp_path / "one" / "direct.parquet", ROWS)
    save(tmp_path / "two" / "direct.parquet", ROWS[::-1])
    save(tmp_path / "three" / "b" / "direct-00000-of-00002.parquet", ROWS[3:])
    save(tmp_path / "three" / "a" / "direct-00001-of-00002.parquet", ROWS[:3])
    swapped = pa.schema(list(SCHEMA)[::-1])
    save(tmp_path / "four" / "direct.parquet", ROWS, swapped)
    fewer = pa.schema([field for field in SCHEMA if field.name in ROWS[0]])
    save(tmp_path / "five" / "direct.parquet", ROWS, fewer)
    assert len({fingerprint(tmp_path / name) for name in ("one", "two", "three", "four", "five")}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": [[60.0, 80.0, 140.0, 171.0]]},
        {"patient_id": "q"},
        {"response": "Yes."},
        {"image": {"bytes": b"other", "path": None}},
        {"mode": "reasoning"},
    ],
)
def test_the_fingerprint_depends_on_all_but_the_log_odds(change, tmp_path):
    save(tmp_path / "one" / "dev.parquet", ROWS)
    save(tmp_path / "two" / "dev.parquet", [*ROWS[:-1], ROWS[-1] | change])
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_the_fingerprint_depends_on_the_split(tmp_path):
    save(tmp_path / "one" / "direct.parquet", ROWS)
    save(tmp_path / "two" / "dev.parquet", ROWS)
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_a_selection_keeps_the_identity_of_the_whole(make_benchmark):
    whole = make_benchmark([*ROWS, make_row(7, source="other", sample_id="other")])
    part = whole.select(["other"], ["direct"])
    assert [sample.sample_id for sample in part.samples] == ["other"]
    assert (part.fingerprint, part.configs) == (whole.fingerprint, ("other",))
    assert whole.configs == ("other", "phantom")


def test_the_folder_above_a_benchmark_is_refused_with_the_one_to_give(make_benchmark):
    bench = make_benchmark(ROWS)
    above = bench.folder.parent
    assert refusal(above) == f"{above}: is not a benchmark, but a folder in it is; give {bench.folder}"


def test_a_content_that_is_not_that_of_the_manifest_is_refused(make_benchmark):
    bench = make_benchmark(ROWS)
    save(bench.folder / "direct.parquet", ROWS[1:])
    assert "is not that of its manifest" in refusal(bench.folder)


@pytest.mark.parametrize(
    "manifest",
    [
        *(b"", b"\xff", b"[]", b"{}", b"[" * 60_000, b"1" * 50_000),
        b'{"name": 1, "version": "1", "fingerprint": "0"}',
        b'{"name": "a\\u001b[31m", "version": "1", "fingerprint": "0"}',
        b'{"name": "\\ud800", "version": "1", "fingerprint": "0"}',
        b'{"name": "' + b"a" * 301 + b'", "version": "1", "fingerprint": "0"}',
        b'{"name": "a", "version": "", "fingerprint": "0"}',
    ],
)
def test_a_manifest_that_says_no_identity_is_refused(manifest, make_benchmark):
    bench = make_benchmark(ROWS)
    (bench.folder / "benchmark.json").write_bytes(manifest)
    assert refusal(bench.folder) == (
        f"{bench.folder}/benchmark.json: needs a name, a version and a fingerprint, each a short text"
    )


@pytest.mark.parametrize("name", ["benchmark.json", "dev.parquet"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_read(make, name, make_benchmark):
    bench = make_benchmark(ROWS)
    (bench.folder / name).unlink(missing_ok=True)
    make(bench.folder / name)
    assert refusal(bench.folder) == f"{bench.folder / name}: is not a regular file"


def test_a_folder_that_is_none_or_holds_nothing_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name in ("none", "file", "x" * 300):
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: is neither a folder")
    assert (
        refusal(tmp_path)
        == f"{tmp_path}: holds no Parquet file; a benchmark folder has <split>.parquet files"
    )
    save(tmp_path / "direct.parquet", [])
    assert refusal(tmp_path) == f"{tmp_path}: its Parquet files hold no rows"


def test_a_folder_whose_name_cannot_be_printed_needs_a_manifest(tmp_path):
    folder = tmp_path / "a\x1b[31m"
    save(folder / "direct.parquet", ROWS)
    with pytest.raises(BenchmarkError, match="give the folder a plain name"):
        load_benchmark(folder)
    write_benchmark(folder.with_name("b"), {"direct": ROWS}, name="b", version="1")
    load_benchmark(folder.with_name("b").rename(folder.with_name("b\x1b")))


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(column, tmp_path):
    schema = pa.schema([field for field in SCHEMA if field.name != column])
    path = save(tmp_path / "direct.parquet", ROWS, schema)
    assert refusal(tmp_path) == f"{path}: lacks the columns {column}"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("sample_id", 1), ("index", "1"), ("index", 1.5), ("width", "224"), ("height", 224.0)),
        *(("width", True), ("finding", 1), ("patient_id", b"p"), ("evidence", 1)),
        *(("boxes", box) for box in ("1 2 3 4", [1.0, 2.0, 3.0, 4.0], [["1", "2", "3", "4"]], {"x": 1})),
        *(("image", image) for image in (b"png", {"path": "x"}, {"bytes": "png", "path": "x"})),
        *(("anatomy", value) for value in ("lung", [{"concept": "lung"}])),
        ("anatomy", [{"concept": 1, "box": [0.0, 0.0, 1.0, 1.0]}]),
    ],
)
def test_a_column_of_the_wrong_type_is_named(column, value, tmp_path):
    path = save(tmp_path / "direct.parquet", [make_row(0) | {column: value}], None)
    assert refusal(tmp_path).startswith(f"{path}: its column {column} holds ")


def test_a_column_that_stands_twice_is_refused(tmp_path):
    table = pa.Table.from_pylist([make_row(0)])
    pq.write_table(table.append_column("finding", table["finding"]), tmp_path / "direct.parquet")
    assert refusal(tmp_path) == f"{tmp_path}/direct.parquet: has the column finding 2 times"


def test_other_widths_of_a_type_are_read(tmp_path):
    plain = save(tmp_path / "a" / "direct.parquet", [make_row(0)])
    table = pq.read_table(plain)
    for name, kind in {
        "sample_id": pa.large_string(),
        "source": pa.dictionary(pa.int32(), pa.string()),
        "index": pa.uint16(),
        "width": pa.int64(),
        "boxes": pa.large_list(pa.list_(pa.float32(), 4)),
        "response": pa.null(),
    }.items():
        position = table.schema.get_field_index(name)
        column = pa.chunked_array([pa.array(table[name].to_pylist(), kind)])
        table = table.set_column(position, name, column)
    (tmp_path / "b").mkdir()
    pq.write_table(table, tmp_path / "b" / "direct.parquet")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_whole_coordinates_are_the_same_as_integers_and_as_floats(tmp_path):
    row = make_row(0, anatomy=[{"concept": "l", "box": [0.0, 0.0, 9.0, 9.0]}], log_odds_sham=2.0001)
    whole = row | {
        "boxes": [[60, 80, 140, 170]],
        "anatomy": [{"concept": "l", "box": [0, 0, 9, 9]}],
        "log_odds_sham": 2,
    }
    save(tmp_path / "a" / "direct.parquet", [row], None)
    path = save(tmp_path / "b" / "direct.parquet", [whole], None)
    assert pq.read_schema(path).field("boxes").type.value_type.value_type == pa.int64()
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_columns_of_others_are_let_be(tmp_path):
    rows = [make_row(0) | {"note": "x", "nested": {"a": [1]}, "raw": b"\xff", "when": None}]
    save(tmp_path / "direct.parquet", rows, None)
    assert len(load_benchmark(tmp_path).samples) == 1


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("sample_id", None, "sample_id 'None' is not a plain identifier"),
        ("sample_id", "../x", "sample_id '../x' is not a plain identifier"),
        ("sample_id", "a\x1b[31m", r"sample_id 'a\x1b[31m' is not a plain identifier"),
        ("sample_id", "a" * 20_000, "is not a plain identifier"),
        ("width", 0, "width 0 is not within 1 and 65536"),
        ("height", 10**6, "height 1000000 is not within"),
        ("width", None, "width None is not within"),
        ("mode", "other", "mode 'other' is not one of direct, reasoning"),
        ("evidence", "other", "evidence 'other' is not one of lesion, spurious"),
        ("index", -1, "index -1 is not a rank"),
        ("index", None, "index None is not a rank"),
        ("finding", "", "finding is empty or no short text"),
        ("finding", None, "finding is empty or no short text"),
        ("finding", "\u200b\u00a0", "finding is empty or no short text"),
        ("finding", "a\nb", "finding is empty or no short text on one line"),
        ("source", "a\x1b[31m", "source is empty or no short text on one line"),
        ("lvlm", "a" * 301, "lvlm is empty or no short text"),
        ("boxes", None, "boxes is empty; licensed sources need their boxes attached first"),
        ("boxes", [], "boxes is empty"),
        *(("boxes", boxes, "boxes are not all [x1, y1, x2, y2]") for boxes in ([[]], [None])),
        ("boxes", [[1, 2, 3, 4], [1, 2, 3]], "boxes are not all [x1, y1, x2, y2]"),
        *(("boxes", [[1, 2, x, 4]], "a box coordinate is not finite") for x in (None, float("inf"))),
        ("boxes", [[3, 2, 1, 4]], "a box is inside out"),
        ("boxes", [[300, 300, 400, 400]], "boxes reach out of the image of 224 x 224 pixels; give native"),
        ("boxes", [[-9, -9, 0, 0]], "boxes reach out of the image"),
        ("boxes", [[0, 0, 9, 9], [0, 0, 225.1, 9]], "boxes reach out of the image"),
        *(
            ("boxes", [box], "boxes cover nothing of the image")
            for box in ([-1, -1, 0, 0], [5, 5, 5 + 1e-200, 5 + 1e-200], [5, 5, 5, 9])
        ),
        ("anatomy", [None], "anatomy has an entry without a concept or without a box"),
        ("anatomy", [{"concept": None, "box": [0, 0, 1, 1]}], "anatomy has an entry without a concept"),
        ("anatomy", [{"concept": "lung", "box": None}], "anatomy has an entry without a concept or without"),
        ("anatomy", [{"concept": "lung", "box": [0, 0, 1]}], "boxes need the shape (n, 4)"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row(column, value, said, tmp_path):
    path = save(tmp_path / "direct.parquet", [ROWS[0], make_row(1) | {column: value}])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: row 1 (")
    assert said in message


def test_findings_and_concepts_that_differ_in_unseen_characters_are_one(tmp_path):
    """Slices, the prior of a finding and the lungs of `both-lungs` are looked up by these names."""
    anatomy = [{"concept": "Left\u00a0lung", "box": [1.0, 1.0, 9.0, 9.0]}]
    written = ("Pleural effusion", "Pleural\u00a0effusion", "\ufeffPleural  effu\u200bsion ")
    rows = [make_row(n, finding=finding, anatomy=anatomy) for n, finding in enumerate(written)]
    samples = load_benchmark(save(tmp_path / "direct.parquet", rows).parent).samples
    assert {sample.finding for sample in samples} == {"Pleural effusion"}
    assert all(set(sample.anatomy) == {"left lung"} for sample in samples)


def test_boxes_that_stick_out_by_rounding_are_cut_to_the_image(make_benchmark):
    bench = make_benchmark([make_row(0, boxes=[[-1, -0.5, 225, 100]])])
    assert bench.samples[0].boxes[0].tolist() == [0, 0, 224, 100]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_of_another_size_than_its_row_says_is_refused(kind, tmp_path):
    file = io.BytesIO()
    Image.new("L", (224, 200)).save(file, kind)
    row = make_row(0, image={"bytes": file.getvalue(), "path": None})
    path = save(tmp_path / "direct.parquet", [row])
    assert refusal(tmp_path) == (
        f"{path}: row 0 ({row['sample_id']}): image is 224 x 200 pixels, but width x height is 224 x 224"
    )
    save(path, [row | {"height": 200}])
    assert load_benchmark(tmp_path).samples[0].height == 200


@pytest.mark.parametrize("change", [{"boxes": [[60.0, 80.0, 140.0, 171.0]]}, {"width": 225}])
def test_samples_that_share_a_region_state_the_same_region(change, tmp_path):
    rows = [make_row(0, lvlm="a"), make_row(0, lvlm="b")]
    save(tmp_path / "direct.parquet", rows)
    load_benchmark(tmp_path)
    save(tmp_path / "direct.parquet", [rows[0], rows[1] | change])
    assert refusal(tmp_path).startswith(
        f"{tmp_path}: phantom-00000-a-direct and phantom-00000-b-direct share source, index and evidence"
    )
    save(tmp_path / "direct.parquet", [rows[0], rows[1] | change | {"evidence": "spurious"}])
    load_benchmark(tmp_path)


def test_a_duplicate_sample_is_refused(tmp_path):
    save(tmp_path / "direct.parquet", ROWS)
    save(tmp_path / "dev.parquet", [ROWS[3]])
    assert refusal(tmp_path) == f"{tmp_path}: the sample {ROWS[3]['sample_id']} stands twice"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"\x00" * 10_000])
def test_a_file_that_is_no_parquet_is_refused(data, tmp_path):
    (tmp_path / "direct.parquet").write_bytes(data)
    assert refusal(tmp_path).startswith(f"{tmp_path}/direct.parquet: cannot be read as Parquet: ")
    path = save(tmp_path / "direct.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-50])
    assert "cannot be read as Parquet" in refusal(tmp_path)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    table = pa.Table.from_pylist([make_row(0) | {"finding": b"\xff\xfe"}])
    forged = pa.chunked_array([table["finding"].combine_chunks().view(pa.string())])
    table = table.set_column(table.schema.get_field_index("finding"), "finding", forged)
    pq.write_table(table, tmp_path / "direct.parquet")
    assert "direct.parquet: breaks off at row 0: 'utf-8' codec" in refusal(tmp_path)


def test_whatever_loads_can_be_scored(tmp_path):
    """The names of a benchmark go into reports, which are as strict about text as submissions are."""
    odd = "Größe 心 \u00a0'\"<b>&"
    row = make_row(0, source=odd, finding=odd, lvlm=odd, patient_id=odd, sample_id="a")
    bench = write_benchmark(tmp_path / "bench", {"direct": [row]}, name=odd, version=odd)
    folder = write_submission(tmp_path / "mine", bench, lambda sample: sample.boxes, kind="boxes")
    report = evaluate(folder, bench.folder, resamples=10, nulls=False)
    assert json.loads(report.model_dump_json())["benchmark"]["dataset"] == odd


@settings(max_examples=100)
@given(data=st.data())
def test_any_damage_to_a_file_is_found_or_harmless(data, tmp_path):
    path = tmp_path / "direct.parquet"
    sound = tmp_path / "sound"
    if not sound.exists():
        sound.write_bytes(save(path, ROWS).read_bytes())
    path.write_bytes(data.draw(mutated_bytes(sound.read_bytes())))
    with suppress(BenchmarkError):
        read = load_benchmark(tmp_path)
        assert [sample.response for sample in read.samples]
        list(read_rows(tmp_path))


def test_the_size_of_a_row_is_that_of_its_picture_as_it_is_shown(make_benchmark, tmp_path):
    """A photograph that is stored lying down, 200 x 224, and shown standing, 224 x 200."""
    levels = np.arange(224 * 200).reshape(224, 200).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", exif=exif)
    row = make_row(0, image={"bytes": file.getvalue(), "path": None}, width=224, height=200)
    shown = make_benchmark([row]).samples[0].image
    np.testing.assert_array_equal(shown, np.rot90(levels, -1))
    save(tmp_path / "stored" / "direct.parquet", [row | {"width": 200, "height": 224}])
    assert "image is 224 x 200 pixels, but width x height is 200 x 224" in refusal(tmp_path / "stored")
