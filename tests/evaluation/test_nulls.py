"""The null controls, as submissions and as what they claim to be."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medfocus_bench import evaluate, load_benchmark
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, write_null
from medfocus_bench.geometry import BoxUnion, Frame
from medfocus_bench.submission.reader import open_submission

from ..conftest import make_row

LUNGS = [
    {"concept": "left lung", "box": [130, 20, 210, 190]},
    {"concept": "right lung", "box": [20, 20, 100, 190]},
]


def picture(width=224, height=224, edge=112, depth=8):
    """Dark, then bright; a shading from top to bottom gives it as many levels as a radiograph has."""
    pixels = np.zeros((height, width), dtype=np.uint8 if depth == 8 else np.uint16)
    pixels[:, edge:] = 200 if depth == 8 else 3000
    pixels += np.linspace(0, 50 if depth == 8 else 800, height).astype(pixels.dtype)[:, None]
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture
def benchmark(make_benchmark):
    rows = [make_row(n, image=picture(), anatomy=LUNGS, boxes=[[10 + n, 20, 90 + n, 80]]) for n in range(6)]
    return make_benchmark(rows)


def attributions(name, benchmark, seed=0):
    return {sample.sample_id: said for sample, said in NULL_CONTROLS[name].make(benchmark.samples, seed)}


@pytest.mark.parametrize("name", NULL_CONTROLS)
def test_every_control_is_a_sound_submission_that_scores_as_its_row(name, benchmark, tmp_path):
    folder = write_null(name, benchmark, tmp_path / name)
    submission = open_submission(folder, benchmark)
    assert len(submission) == 6
    assert submission.document.method.family == "null"
    report = evaluate(folder, benchmark, resamples=100)
    row = next(null for null in report.nulls if null.name == name)
    assert row.slices == report.slices


@pytest.mark.parametrize("name", ["random-boxes", "random-map"])
def test_random_controls_depend_on_the_seed_and_on_nothing_else(name, benchmark):
    first, again, other = (attributions(name, benchmark, seed) for seed in (0, 0, 1))

    def values(said):
        return np.concatenate([np.ravel(a.saliency if a.boxes is None else a.boxes) for a in said.values()])

    assert np.array_equal(values(first), values(again))
    assert not np.array_equal(values(first), values(other))


def test_random_boxes_have_the_experts_sizes_inside_the_image(benchmark):
    for sample in benchmark.samples:
        boxes = attributions("random-boxes", benchmark)[sample.sample_id].boxes
        assert np.allclose(boxes[:, 2:] - boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2])
        assert boxes.min() >= 0
        assert boxes.max() <= 224


def test_the_mean_map_never_sees_the_patient_it_explains(make_benchmark):
    rows = [make_row(n, boxes=[[0, 0, 112, 224]], patient_id="others") for n in range(3)]
    rows += [make_row(n, boxes=[[112, 0, 224, 224]], patient_id="mine") for n in (3, 4)]
    said = attributions("mean-map", make_benchmark(rows))
    mine, others = said["phantom-00003-tiny-direct"].saliency, said["phantom-00000-tiny-direct"].saliency
    assert mine[:, :100].min() == 1
    assert mine[:, 124:].max() == 0
    assert np.array_equal(mine[:, ::-1], others)


def test_the_mean_map_knows_the_finding_and_falls_back_to_all_findings(make_benchmark):
    rows = [make_row(n, boxes=[[0, 0, 112, 224]], finding="mass") for n in range(3)]
    rows.append(make_row(3, boxes=[[112, 0, 224, 224]], finding="nodule"))
    rows.append(make_row(4, boxes=[[112, 0, 224, 224]], finding="mass", evidence="spurious"))
    said = attributions("mean-map", make_benchmark(rows))
    for sample_id in ("phantom-00000-tiny-direct", "phantom-00003-tiny-direct"):
        assert said[sample_id].saliency[:, :100].min() == 1
        assert said[sample_id].saliency[:, 124:].max() == 0


def test_a_lone_patient_has_no_mean_map_to_go_by(make_benchmark):
    (said,) = attributions("mean-map", make_benchmark([make_row()])).values()
    assert not said.saliency.any()


def test_both_lungs_is_the_union_of_the_two_boxes(benchmark):
    said = attributions("both-lungs", benchmark)["phantom-00000-tiny-direct"]
    assert BoxUnion.of(said.boxes).area == 2 * 80 * 170


def test_image_edges_light_up_where_the_picture_changes(make_benchmark):
    rows = [make_row(0, width=448, height=224, image=picture(448, 224, edge=300), boxes=[[1, 1, 50, 50]])]
    (said,) = attributions("image-edges", make_benchmark(rows)).values()
    content = Frame(448, 224).content_of(said.saliency)
    assert abs(int(content.mean(0).argmax()) - 150) <= 1
    assert not said.saliency[:50].any()


def test_sixteen_bit_pictures_keep_their_edges(make_benchmark):
    """A plain conversion to 8 bits would cut every value above 255 to white."""
    (said,) = attributions("image-edges", make_benchmark([make_row(image=picture(depth=16))])).values()
    assert abs(int(said.saliency.mean(0).argmax()) - 112) <= 1


def test_what_the_benchmark_lacks_is_said_and_leaves_no_folder(make_benchmark, tmp_path):
    bare = make_benchmark([make_row()])
    for name, reason in (("both-lungs", "anatomy"), ("image-edges", "image")):
        with pytest.raises(UnavailableError, match=rf"^{re.escape(str(bare.folder))}: .*{reason}"):
            write_null(name, bare, tmp_path / name)
        assert not list(tmp_path.glob(f"*{name}*"))


def test_image_edges_need_the_image_of_every_sample(make_benchmark):
    """A file without the column is not a sample less: its samples would score 0 without an explanation."""
    bench = make_benchmark([make_row(0, image=picture())])
    bare = pa.Table.from_pylist([make_row(1)])
    (bench.folder / "more").mkdir()
    pq.write_table(bare, bench.folder / "more" / "direct.parquet")
    (bench.folder / "benchmark.json").unlink()
    with pytest.raises(UnavailableError, match="phantom-00001-tiny-direct has no image"):
        attributions("image-edges", load_benchmark(bench.folder))


def test_lungs_that_reach_out_of_the_image_are_cut_to_it(make_benchmark, tmp_path):
    lungs = [lung | {"box": [lung["box"][0], -5, lung["box"][2], 230]} for lung in LUNGS]
    bench = make_benchmark([make_row(anatomy=lungs)])
    folder = write_null("both-lungs", bench, tmp_path / "lungs")
    said = open_submission(folder, bench).attribution("phantom-00000-tiny-direct")
    assert BoxUnion.of(said.boxes).area == 2 * 80 * 224


def test_a_damaged_picture_is_an_error_that_names_the_sample(make_benchmark, tmp_path):
    broken = make_benchmark([make_row(image={"bytes": b"\x89PNG broken", "path": None})])
    with pytest.raises(InputError, match=r"phantom-00000-tiny-direct: is not a PNG or JPEG picture"):
        write_null("image-edges", broken, tmp_path / "n")


def test_an_unknown_control_lists_the_known_ones(benchmark, tmp_path):
    with pytest.raises(InputError, match="whole-image"):
        write_null("nothing", benchmark, tmp_path / "n")
