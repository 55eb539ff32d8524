"""Whatever is changed in a file, its reader ends in a result or in an InputError, and takes no memory for it.

Seeded: bytes that flip, go, come, repeat or become zero, and numbers that grow, in a small sound file of each
kind.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.answers import parse_verdict
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.box_parsing import parse_boxes, parse_phrases
from medfocus_bench.counterfactual.records import Failure as FilterFailure
from medfocus_bench.counterfactual.records import read_failures as read_filter_failures
from medfocus_bench.data.images import read_picture
from medfocus_bench.data.manifest import read_manifest
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.sources.tables import read_json_list, read_table
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.log import read_log
from medfocus_bench.leaderboard.result import read_result
from medfocus_bench.leaderboard.review.pull_request import read_changes
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.runs.records import Failure, RecordFiles, RecordWriter, add_failure, read_failures
from medfocus_bench.runs.settings import read_settings
from medfocus_bench.runs.tuning import read_tuning
from medfocus_bench.submission.reader import validate
from medfocus_bench.submission.schema import AttributionEntry

from ..conftest import make_row, write_submission

ROOT = Path(__file__).parents[2]
MUTATIONS = 80
NEVER_REFUSED = ("answer",)
MOST_MEMORY = 96 * 2**20
"""Bytes that a reader may take for a file of kilobytes, whatever it claims; the largest line is 16 MiB."""


@dataclass(frozen=True)
class Reader:
    """`make` writes sound files into a folder and returns the one to change; `read` reads what is there."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def benchmark(folder: Path) -> Path:
    picture = BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "PNG")
    rows = [
        make_row(n, width=8, height=8, boxes=[[1, 1, 5, 6]], response="Yes.")
        | {"image": {"bytes": picture.getvalue(), "path": None}}
        for n in range(4)
    ]
    write_benchmark(folder / "bench", {"direct": rows}, name="b", version="1")
    (folder / "bench" / "benchmark.json").rename(folder / "benchmark.json")
    return folder / "bench" / "direct.parquet"


def pictures(path: Path) -> None:
    for sample in load_benchmark(path.parent).samples:
        _ = sample.image


def submission(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        bench = write_benchmark(
            folder / "bench", {"direct": [make_row(0), make_row(1)]}, name="b", version="1"
        )
        rng = np.random.default_rng(0)
        return write_submission(folder / "sub", bench, lambda sample: rng.random((4, 4))) / name

    return make


def checked(path: Path) -> None:
    problems = validate(path.parent)
    if problems:
        raise InputError(problems)


def record_files(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with RecordWriter(RecordFiles.of(folder, "lvlm", "direct")) as writer:
            for number in range(3):
                saliency, figures = np.full((3, 4), number, np.float32), {"figure": 1.0}
                attribution = Attribution(f"s{number}", saliency, diagnostics=figures)
                writer.add(AttributionEntry(sample_id=f"s{number}", map=True), attribution)
        return folder / name

    return make


def records(path: Path) -> None:
    files = RecordFiles.of(path.parent, "lvlm", "direct")
    for record in files.read():
        files.attribution(record)
    RecordWriter(files)


def failures(folder: Path) -> Path:
    for number in range(3):
        add_failure(folder, Failure(sample_id=f"s{number}", lvlm="l", split="direct", reason="so"))
    return folder / "failures.jsonl"


def copied(source: str, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes((ROOT / source).read_bytes())
        return folder / name

    return make


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def picture(form: str, mode: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        values = np.random.default_rng(0).integers(0, 255, (24, 20), dtype=np.uint8)
        Image.fromarray(values).convert(mode).save(folder / f"p.{form}")
        return folder / f"p.{form}"

    return make


def dicom(folder: Path) -> Path:
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.Dataset()
    data.Rows, data.Columns, data.SamplesPerPixel = 20, 24, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = np.random.default_rng(0).integers(0, 4095, (20, 24), dtype=np.uint16).tobytes()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(folder / "p.dcm", enforce_file_format=True)
    return folder / "p.dcm"


def settings_file(folder: Path) -> Path:
    method = {"name": "m", "family": "other", "version": "1", "description": "d"}
    value = {
        "source": "m", "method": method, "benchmark": {"dataset": "b", "version": "1", "fingerprint": "f"},
        "opened": "b", "target": "answer", "seed": 0, "dtype": "float32", "framing": "square",
        "parts": {"l direct": {"tuned": {"layer": 3}, "dev_samples": 4, "checkpoint": "c"}},
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(value))
    return folder / "settings.json"


def filter_failures(folder: Path) -> Path:
    fields = FilterFailure.__dataclass_fields__
    line = json.dumps({name: 1 if "int" in str(field.type) else "a" for name, field in fields.items()})
    (folder / "out.failures").write_text(f"{line}\n{line}\n")
    return folder / "out.failures"


TABLE = b"name,x,y\n" + b"".join(b"a%d,1.5,2\n" % n for n in range(20))
CHANGES = b"A\0submissions/a/submission.json\0M\0README.md\0R100\0a\0b\0"
ANSWER = b'Looking at the film, [12, 30, 88, 140] and {"box": [1, 2, 3, 4]}. So the answer is: Yes.'


def answer(path: Path) -> None:
    text = path.read_bytes().decode(errors="replace")
    parse_verdict(text)
    parse_boxes(text, "pixels", 224, 224)
    parse_phrases(text)


READERS = {
    "parquet": Reader(benchmark, pictures),
    "benchmark.json": Reader(lambda folder: benchmark(folder) and folder / "benchmark.json",
                             lambda path: read_manifest(path.parent)),
    "submission.json": Reader(submission("submission.json"), checked),
    "maps": Reader(submission("maps.safetensors"), checked),
    "records": Reader(record_files("lvlm-direct.jsonl"), records),
    "maps of a run": Reader(record_files("lvlm-direct.maps"), records),
    "failures": Reader(failures, lambda path: read_failures(path.parent)),
    "settings": Reader(settings_file, lambda path: read_settings(path.parent)),
    "tuning": Reader(copied("leaderboard/tuned/lrp.json", "lrp.json"), read_tuning),
    "result": Reader(copied("leaderboard/results/medfocus.json", "medfocus.json"), read_result),
    "log": Reader(copied("leaderboard/log.jsonl", "log.jsonl"), read_log),
    "changes": Reader(written("changes", CHANGES), read_changes),
    "table": Reader(written("t.csv", TABLE), lambda path: read_table(path, ["name", "y"])),
    "packed table": Reader(written("t.csv.gz", gzip.compress(TABLE, mtime=0)),
                           lambda path: read_table(path, ["name", "y"])),
    "list": Reader(written("t.json", b'[{"a": [1.5, null, "b"]}, 2]'), read_json_list),
    "png": Reader(picture("png", "L"), read_picture),
    "png, colour": Reader(picture("png", "RGBA"), read_picture),
    "jpeg": Reader(picture("jpg", "L"), read_picture),
    "dicom": Reader(dicom, read_picture),
    "references": Reader(copied("medfocus_bench/medfocus/phantom-references.safetensors", "r.safetensors"),
                         ReferencePool.load),
    "failures of the filter": Reader(filter_failures,
                                     lambda path: read_filter_failures(path.with_suffix(".jsonl"))),
    "answer": Reader(written("answer", ANSWER), answer),
}  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to three changes; most of them near the ends, where headers and footers are."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        end = max(len(changed) - 1, 0)
        at = rng.choice(
            [rng.randint(0, end), rng.randint(0, min(end, 64)), max(0, end - rng.randint(0, 400))]
        )
        kind = rng.randrange(7)
        if kind == 0 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[at] = rng.choice(b'\x00\xff\x7f\x80"{}[],:0-\n')
        elif kind == 2:
            del changed[at : at + rng.choice([1, 4, 64])]
        elif kind == 3:
            changed[at:at] = rng.choice(
                [b"\x00", b"\xff\xff\xff\xff", b"9" * 400, b"[" * 2000, b"\xed\xa0\x80", b"\n"]
            )
        elif kind == 4:
            changed[at : at + 16] = changed[:16]
        elif kind == 5:
            changed[at : at + 8] = bytes(len(changed[at : at + 8]))
        else:
            numbers = list(re.finditer(rb"\d+", bytes(changed)))[:5000]
            if numbers:
                found = rng.choice(numbers)
                new = rng.choice(
                    [b"-1", b"1e400", b"99999999999999999999", b"1" * 5000, b"NaN", b"null", b"0.5"]
                )
                changed[found.start() : found.end()] = new
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_whatever_is_changed_in_a_file_its_reader_reads_or_refuses_it(name, tmp_path):
    reader = READERS[name]
    path = reader.make(tmp_path)
    sound = path.read_bytes()
    reader.read(path)  # so that the rest is about the changes
    everything = {other: other.read_bytes() for other in path.parent.rglob("*") if other.is_file()}
    rng = random.Random(name)
    refused = 0
    tracemalloc.start()
    try:
        for number in range(MUTATIONS):
            for other, content in everything.items():
                other.write_bytes(content)
            changed = b"" if number == 0 else mutated(sound, rng)
            path.write_bytes(changed)
            tracemalloc.reset_peak()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    reader.read(path)
            except InputError as error:
                refused += bool(error.problems[0])
            except Exception as error:
                pytest.fail(f"{name}, change {number}: {type(error).__name__}: {error}")
            assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert refused > 0 or name in NEVER_REFUSED
