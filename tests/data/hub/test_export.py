"""The repository that `data export` writes: the same bytes again, the same fingerprint, nothing too much."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.hub.publish import export
from medfocus_bench.data.hub.repository import PUBLISHED_SCHEMA, published_configs
from medfocus_bench.data.resolve import installed_benchmarks, load_benchmark
from medfocus_bench.errors import BenchmarkError, InputError

from .rows import open_row, pointer_row, small_splits, write_pointers, write_rows, write_small


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def header(root: Path) -> dict:
    return yaml.safe_load((root / "README.md").read_text().split("---\n")[1])


def test_a_repository_holds_these_files(small):
    paths = sorted(contents(small))
    shards = [
        f"{config}/{split}-00000-of-00001.parquet"
        for config in ("imagenome", "padchest_gr", "vindr_cxr")
        for split in ("direct", "reasoning")
    ]
    phantom = [f"phantom/{split}-00000-of-00001.parquet" for split in ("dev", "direct", "reasoning")]
    described = ["CHANGELOG.md", "README.md", "benchmark.json", "croissant.json", "phantom/benchmark.json"]
    assert paths == sorted([*described, *shards, *phantom])


def test_the_shipped_track_keeps_its_fingerprint(embedded):
    shipped = load_benchmark(installed_benchmarks()["phantom"])
    exported = load_benchmark(embedded)  # opens its default config
    assert exported.reference() == shipped.reference()
    assert exported.folder == embedded / "phantom"
    assert [s.sample_id for s in exported.samples] == [s.sample_id for s in shipped.samples]


def test_large_splits_are_cut_into_shards_between_which_nothing_is_lost(embedded):
    shards = sorted((embedded / "phantom").glob("direct-*.parquet"))
    assert [path.name for path in shards] == [f"direct-0000{n}-of-00002.parquet" for n in range(2)]
    names = [name for path in shards for name in pq.read_table(path)["sample_id"].to_pylist()]
    assert len(names) == len(set(names)) == 1056


def test_export_of_an_export_is_byte_identical(small, tmp_path):
    export(tmp_path / "again", small)
    assert contents(tmp_path / "again") == contents(small)


def test_export_load_export_through_datasets_is_byte_identical(small, tmp_path, hf_home):
    """As somebody would do who loads the dataset, saves it as Parquet, and exports that."""
    for config in published_configs():
        for split, rows in datasets.load_dataset(str(small), config).items():
            (tmp_path / "saved" / config).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(tmp_path / "saved" / config / f"{split}.parquet")
    shutil.copy(small / "benchmark.json", tmp_path / "saved")
    export(tmp_path / "again", tmp_path / "saved")
    assert contents(tmp_path / "again") == contents(small)


def test_the_order_of_rows_and_files_changes_no_byte(tmp_path):
    source = write_small(tmp_path / "source")
    for split, rows in small_splits().items():
        (source / f"{split}.parquet").unlink()
        write_rows(source / "b" / f"{split}-00000-of-00002.parquet", rows[::-2])
        write_rows(source / "a" / f"{split}-00001-of-00002.parquet", rows[-2::-2])
    export(tmp_path / "one", source)
    export(tmp_path / "two", write_small(tmp_path / "plain"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_every_column_of_pointers_keeps_its_type(small):
    """Trap 37: a column of nulls only would have no type, and the viewer no features."""
    for path in sorted(small.rglob("*.parquet")):
        schema = pq.read_schema(path)
        assert schema.equals(PUBLISHED_SCHEMA)
        assert schema.metadata == PUBLISHED_SCHEMA.metadata
        assert not any(pa.types.is_null(field.type) for field in schema)
    pointers = pq.read_table(small / "imagenome" / "direct-00000-of-00001.parquet")
    assert pointers["boxes"].null_count == pointers["image"].null_count == 5


def test_no_config_is_without_a_split_and_no_split_without_rows(small):
    head = header(small)
    assert [config["config_name"] for config in head["configs"]] == list(published_configs())
    assert [config.get("default", False) for config in head["configs"]] == [True, False, False, False]
    for config, info in zip(head["configs"], head["dataset_info"], strict=True):
        assert config["config_name"] == info["config_name"]
        assert [file["split"] for file in config["data_files"]] == [split["name"] for split in info["splits"]]
        for file, split in zip(config["data_files"], info["splits"], strict=True):
            files = list(small.glob(file["path"]))
            assert sum(pq.read_metadata(path).num_rows for path in files) == split["num_examples"] > 0
        size = sum(path.stat().st_size for path in (small / info["config_name"]).glob("*.parquet"))
        assert info["download_size"] == size


def test_the_features_of_the_header_are_those_of_the_files(small):
    for info in header(small)["dataset_info"]:
        stated = datasets.Features._from_yaml_list(info["features"])
        for path in (small / info["config_name"]).glob("*.parquet"):
            assert stated == datasets.Features.from_arrow_schema(pq.read_schema(path))


def test_the_manifest_names_every_file_with_its_sha256(small):
    manifest = json.loads((small / "benchmark.json").read_text())
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert files == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in contents(small).items()
        if name.endswith(".parquet")
    }
    assert (manifest["name"], manifest["version"]) == ("medfocus/cxr-causal", "1.0.0")


def test_nothing_in_a_repository_tells_when_or_where_it_was_made(small):
    for data in contents(small).values():
        assert b"/tmp" not in data
        assert str(small).encode() not in data


def test_a_version_can_be_given_and_has_to_be_semantic(tmp_path, plain):
    assert export(tmp_path / "a", plain, version="1.2.0").version == "1.2.0"
    assert load_benchmark(tmp_path / "a").version == "1.2.0"
    with pytest.raises(InputError, match=r"'1.2' is not major.minor.patch"):
        export(tmp_path / "b", tmp_path / "not even read", version="1.2")
    assert not (tmp_path / "b").exists()


def test_an_export_overwrites_nothing(tmp_path, plain):
    (tmp_path / "out").mkdir()
    export(tmp_path / "out", plain)
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        export(tmp_path / "out", plain)


def test_a_content_that_is_not_that_of_its_manifest_is_not_exported(tmp_path):
    source = write_small(tmp_path / "source")
    write_rows(source / "dev.parquet", [open_row(7)])
    with pytest.raises(BenchmarkError, match=r"is not that of its benchmark\.json"):
        export(tmp_path / "out", source)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([pointer_row("nih", 1)], "source 'nih' is not one of those that are published"),
        ([open_row(1)], "holds rows of phantom; give a folder of pointers"),
        ([pointer_row("imagenome", 1, lvlm=None)], "lvlm is empty"),
        ([pointer_row("imagenome", 1, group="perhaps")], "group 'perhaps' is not one of"),
        ([pointer_row("imagenome", -1)], "index -1 is not a rank"),
        ([pointer_row("imagenome", 1, mode="reasoning")], "the file is named direct"),
        (
            [pointer_row("imagenome", 1, response="x" * 20_001)],
            "response holds a text of over 20,000 characters",
        ),
        ([pointer_row("imagenome", 1, finding="a\nb")], "finding is not a short text on one line"),
        ([pointer_row("imagenome", 1)] * 2, "stands twice"),
        ([pointer_row("imagenome", 1, width=2**40)], "direct: a value does not fit its column"),
    ],
)
def test_pointers_that_are_none_are_refused_by_name(rows, said, tmp_path, plain):
    wide = SCHEMA.set(SCHEMA.get_field_index("width"), pa.field("width", pa.int64()))
    write_rows(tmp_path / "pointers" / "direct.parquet", rows, wide)
    with pytest.raises(BenchmarkError, match=said):
        export(tmp_path / "out", plain, [tmp_path / "pointers"])
    assert not (tmp_path / "out").exists()


def test_a_source_comes_from_one_folder(tmp_path, plain):
    folders = [write_pointers(tmp_path / name, ["imagenome"]) for name in ("a", "b")]
    with pytest.raises(BenchmarkError, match="as another folder does"):
        export(tmp_path / "out", plain, folders)


def test_the_published_records_of_the_paper_export_as_pointers(real_data, tmp_path):
    """1,880 records of six models: what a licence holder will join with boxes and pixels."""
    records = json.loads((real_data / "medground" / "direct.json").read_text())
    for source in ("imagenome", "vindr_cxr", "padchest_gr"):
        rows = [
            pointer_row(
                source, record["index"], sample_id=f"{source}-{record['index']:05d}-{record['model']}-direct"
            )
            | {"lvlm": record["model"], "answer_foreground": record["prediction_edited_direct"]}
            for record in records
            if record["dataset"] == source
        ]
        write_rows(tmp_path / "pointers" / source / "direct.parquet", rows)
    repository = export(tmp_path / "out", write_small(tmp_path / "source"), [tmp_path / "pointers"])
    counts = {config.name: config.splits[0].rows for config in repository.configs}
    assert sum(counts.values()) - counts["phantom"] == len(records) == 1880


def test_the_card_states_each_share_that_was_kept_beside_that_of_a_coin(embedded, small):
    """The phantom's models were asked everything; of a licensed source only what passed is published."""
    card = (embedded / "README.md").read_text()
    cells = re.findall(r"(\d+) of (\d+) \((\d+\.\d)%; coin (\d+\.\d)%\)", card)
    track = load_benchmark("phantom")
    assert len(cells) == len({(sample.lvlm, sample.split) for sample in track.samples})
    assert sum(int(kept) for kept, *_ in cells) == len(track.samples)
    assert all(share == f"{100 * int(kept) / int(asked):.1f}" for kept, asked, share, _ in cells)
    assert all(9 < float(coin) < 10.6 for *_, coin in cells)
    assert "yes with p pass the filter with p^3 (1 - p), which is 10.5% at most" in card
    assert re.search(r"of 2,108 \(0\.\d%; coin at most 10\.5%\)", (small / "README.md").read_text())
