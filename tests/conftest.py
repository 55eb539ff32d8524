"""Fixtures and builders that every part of the tests shares."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before anything that reads them is imported, and for every program that a test starts: neither the machine
# nor its user decides anything. More threads than one also change the last bits of torch's sums.
_HOME = tempfile.mkdtemp(prefix="medfocus-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _variable in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_", "TRANSFORMERS_"))]:
    del os.environ[_variable]
os.environ |= {"HOME": _HOME, "HF_HOME": f"{_HOME}/hf", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # `auto` is the CPU; name a GPU to test on it
os.environ["RAY_AUTH_MODE"] = "disabled"  # trap 39: or Ray writes a token into the home folder

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.submission.schema import MethodMetadata
from medfocus_bench.submission.writer import SubmissionWriter

settings.register_profile(
    "medfocus",
    # A busy machine is slow, and the first call of a function is: neither is a fault.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    # The same examples in every run, and none from a database of earlier runs.
    derandomize=True,
    print_blob=True,
)
settings.register_profile("exploring", settings.get_profile("medfocus"), derandomize=False)
settings.load_profile("medfocus")

GOLDEN = Path(__file__).parent / "golden"

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Where the maintainers keep what may not be passed on: two radiographs of the NIH, records of the paper."""

METHOD = MethodMetadata(
    name="probe", family="other", version="1", description="A submission of the tests.", needs=["forward"]
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def golden():
    """Outputs of the paper's released code, and what each file holds in its README."""
    return GOLDEN


@pytest.fixture(scope="session")
def real_data():
    """Real radiographs and published records, which this repository may not pass on; skipped without them."""
    if not REAL_DATA.is_dir():
        pytest.skip("real radiographs and published records may not be passed on: none beside this checkout")
    return REAL_DATA


@pytest.fixture(scope="session")
def closed_url():
    """An address on loopback that refuses every connection: its port is taken, and nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


_watching: list[set[str]] = []


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        for opened in _watching:
            opened.add(os.fspath(arguments[0]))


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """The paths of the files that Python opens within, as they were given."""
    if not _note_opened_is_added:
        sys.addaudithook(_note_opened)
        _note_opened_is_added.append(True)
    opened: set[str] = set()
    _watching.append(opened)
    try:
        yield opened
    finally:
        _watching.remove(opened)


_note_opened_is_added: list[bool] = []
"""A hook of the interpreter cannot be taken away again: it is added once, where a test asks for it."""


def make_row(
    number: int = 0,
    *,
    width: int = 224,
    height: int = 224,
    boxes: Sequence[Sequence[float]] = ((60, 80, 140, 170),),
    lvlm: str = "tiny",
    **more: Any,
) -> dict[str, Any]:
    """A benchmark row with the columns that scoring needs."""
    row: dict[str, Any] = {
        "sample_id": f"phantom-{number:05d}-{lvlm}-direct",
        "source": "phantom",
        "index": number,
        "patient_id": f"p{number:04d}",
        "width": width,
        "height": height,
        "finding": "nodule",
        "lvlm": lvlm,
        "mode": "direct",
        "evidence": "lesion",
        "boxes": [list(map(float, box)) for box in boxes],
    }
    return row | more


@pytest.fixture
def make_benchmark(tmp_path):
    """Writes rows as a benchmark folder named `bench` and loads it."""

    def build(rows: Iterable[Mapping[str, Any]], name: str = "bench", split: str = "direct") -> Benchmark:
        return write_benchmark(tmp_path / name, {split: rows}, name=name, version="1.0.0", overwrite=True)

    return build


def write_submission(
    folder: Path, benchmark: Benchmark, explain: Callable[[Any], np.ndarray | None], kind: str = "saliency"
) -> Path:
    """Writes a submission of what `explain` says of each sample; None leaves the sample out."""
    with SubmissionWriter(folder, METHOD, benchmark, submitters=["tests"], overwrite=True) as writer:
        for sample in benchmark.samples:
            explained = explain(sample)
            if explained is not None:
                writer.add(Attribution(sample.sample_id, **{kind: explained}))
    return folder
