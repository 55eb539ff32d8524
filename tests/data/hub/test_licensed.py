"""A licensed pixel or box never leaves: neither by export nor by push, whatever the files are called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfocus_bench.data.benchmark import fingerprint_of, read_rows, row_digest
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.hub.publication import Publication
from medfocus_bench.data.hub.publish import export, push, write_repository
from medfocus_bench.data.hub.repository import DATASET, PUBLISHED_SCHEMA, published_configs
from medfocus_bench.data.labels import in_numbers
from medfocus_bench.data.manifest import Attachment
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError

from .rows import open_row, picture, pointer_row, small_splits, write_pointers, write_rows

LICENSED = [name for name, config in published_configs().items() if not config.is_open]
SECRETS: dict[str, Any] = {
    "image": {"bytes": picture(99), "path": None},
    "boxes": [[1.5, 2.5, 30.5, 31.5]],
    "anatomy": [{"concept": "left lung", "box": [1.5, 2.5, 30.5, 31.5]}],
    "image_ref": "files/p10/p10000032/s1/scan.jpg",
}
FILLED = {"patient_id": "p1", "width": 32, "height": 32, "finding": "mass"}
FILLED |= {"question": "?", "response": "Yes."}

secrets = st.sets(st.sampled_from(sorted(SECRETS)), max_size=3)
many = settings(max_examples=25)


def held(root: Path) -> list[str]:
    """Data of licensed sources beyond pointers in the Parquet files below a folder."""
    found = []
    for path in root.rglob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["source"] in LICENSED:
                found += [name for name in row if row[name] is not None and name in SECRETS]
                found += [name for name in row if name not in SCHEMA.names]
    return found


@st.composite
def folders(draw: st.DrawFn) -> tuple[list[tuple[str, list[Mapping[str, Any]], str | None]], bool]:
    """Files (name, rows, an extra column of bytes), and whether anything in them is licensed content."""
    files, dirty = [], False
    for number in range(draw(st.integers(1, 3))):
        source, kept = draw(st.sampled_from(LICENSED)), draw(secrets)
        extra = draw(st.sampled_from([None, None, "pixels", "thumbnail"]))
        names = ["direct", "phantom/direct", "direct-00000-of-00001", f"{source}/direct", "a/b/dev"]
        name = draw(st.sampled_from(names))
        clean = draw(st.booleans())
        row = pointer_row(source, number, **(FILLED if draw(st.booleans()) else {}))
        row |= {name: SECRETS[name] for name in kept}
        dirty = dirty or bool(kept) or extra is not None
        others = [pointer_row(source, number + 10)] if clean else []
        files.append((f"{number}/{name}.parquet", [*others, row], extra))
    return files, dirty


def write_files(root: Path, files: Any, *, as_labels: bool) -> Path:
    for name, rows, extra in files:
        if extra is not None:
            wider = SCHEMA.append(pa.field(extra, pa.binary()))
            write_rows(root / name, [row | {extra: b"\x89PNG"} for row in rows], wider)
        elif as_labels:
            write_rows(root / name, [in_numbers(row) for row in rows], PUBLISHED_SCHEMA)
        else:
            write_rows(root / name, rows)
    return root


def write_manifest(root: Path) -> None:
    """A manifest that agrees with all rows below a folder."""
    fingerprint = fingerprint_of(row_digest(row, split) for _, split, row in read_rows(root))
    value = {"name": DATASET, "version": "1.0.0", "fingerprint": fingerprint}
    (root / "benchmark.json").write_text(json.dumps(value))


@many
@given(folders(), st.booleans(), st.booleans())
def test_export_lets_pointers_pass_and_nothing_else(tmp_path, plain, drawn, as_labels, as_source):
    """As a folder of pointers, or mixed into the open benchmark that is exported."""
    files, dirty = drawn
    with TemporaryDirectory(dir=tmp_path) as place:
        root = Path(place)
        source = shutil.copytree(plain, root / "source")
        pointers = write_files(root / "pointers", files, as_labels=as_labels)
        if as_source:
            shutil.move(pointers, source / "more")
            write_manifest(source)
        try:
            export(root / "out", source, [] if as_source else [pointers], version="1.0.0")
        except InputError:
            assert not (root / "out").exists()
            assert not (root / "out.partial").exists()
        else:
            assert not dirty
            assert held(root / "out") == []


@many
@given(
    source=st.sampled_from(LICENSED),
    kept=secrets.filter(bool),
    config=st.sampled_from(list(published_configs())),
    split=st.sampled_from(["direct", "dev"]),
)
def test_push_refuses_what_is_forged_from_licensed_rows(hub, tmp_path, source, kept, config, split):
    """Every file of it agrees with every other, as if a changed program had written it."""
    row = dict.fromkeys(SCHEMA.names)
    row |= pointer_row(source, 1, **FILLED) | {name: SECRETS[name] for name in kept}
    row |= {"evidence": "lesion"}
    configs: dict[str, dict[str, list[Any]]] = {"phantom": {k: list(v) for k, v in small_splits(2).items()}}
    configs.setdefault(config, {}).setdefault(split, []).append(row)
    with TemporaryDirectory(dir=tmp_path) as place:
        write_repository(Path(place) / "forged", Publication(DATASET, "1.0.0", configs))
        with pytest.raises(InputError, match=rf"of {source}, which is licensed"):
            push(Path(place) / "forged", DATASET)
    assert not hub.large
    assert not hub.repos


def test_push_refuses_whatever_its_flags_say(hub, owner, small, tmp_path):
    shutil.copytree(small, tmp_path / "copy")
    path = tmp_path / "copy" / "imagenome" / "direct-00000-of-00001.parquet"
    rows = [in_numbers(pointer_row("imagenome", 0, **FILLED, boxes=SECRETS["boxes"]))]
    write_rows(path, rows, PUBLISHED_SCHEMA)
    for flags in ({"private": True}, {"dry_run": True}, {"remove_configs": True}, {"revision": "v1.0.0"}):
        with pytest.raises(InputError, match="holds boxes of imagenome, which is licensed"):
            push(tmp_path / "copy", DATASET, **flags)
    assert not hub.large


@pytest.fixture
def attached(tmp_path):
    """A benchmark as `data attach` leaves it: boxes of experts, pictures by reference, marked as licensed."""
    row = pointer_row("imagenome", 3, **FILLED, boxes=SECRETS["boxes"], image_ref="files/scan.jpg")
    attachment = Attachment(tmp_path / "copies", licensed=True)
    splits = {"direct": [row]}
    write_benchmark(tmp_path / "attached", splits, name=DATASET, version="1.0.0", attachment=attachment)
    return tmp_path / "attached"


def test_an_attached_benchmark_is_neither_exported_nor_taken_for_pointers(attached, tmp_path, plain):
    for folders in ([attached], [plain, [attached]]):
        with pytest.raises(InputError, match="is a benchmark with licensed images and boxes attached; it st"):
            export(tmp_path / "out", *folders)
    (attached / "benchmark.json").unlink()
    with pytest.raises(InputError, match="holds image_ref, boxes of imagenome, which is licensed"):
        export(tmp_path / "out", plain, [attached])
    assert not (tmp_path / "out").exists()


def test_a_mark_of_licensed_content_counts_wherever_it_stands(tmp_path, plain):
    pointers = write_pointers(tmp_path / "pointers", ["vindr_cxr"])
    mark = '{"name": "x", "version": "1", "licensed": true}'
    (pointers / "vindr_cxr" / "benchmark.json").write_text(mark)
    with pytest.raises(InputError, match="licensed images and boxes attached"):
        export(tmp_path / "out", plain, [pointers])


def test_rows_that_call_themselves_phantom_are_checked_as_such(tmp_path):
    """A licensed picture under the name of the open source: nothing can know it, but it needs a manifest."""
    write_rows(tmp_path / "phantom" / "direct.parquet", [open_row(1)])
    with pytest.raises(InputError, match=r"has no benchmark\.json"):
        export(tmp_path / "out", tmp_path / "phantom")
