"""Building and checking the shipped phantom track with the shipped models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow.parquet as pq

from medfocus_bench.counterfactual.causal_filter import verify
from medfocus_bench.counterfactual.records import Failure, Verification, group_shares, read_verifications
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.questions import MODES, Mode
from medfocus_bench.data.writing import check_vacant, write_benchmark
from medfocus_bench.engine.protocol import Engine
from medfocus_bench.errors import InputError, require
from medfocus_bench.lvlm.protocol import AUTO_ANSWERS
from medfocus_bench.lvlm.registry import LVLMSource, lvlm_key
from medfocus_bench.phantom import EXACT, PHANTOM_LVLMS, TWINS
from medfocus_bench.phantom.editor import PhantomEditor
from medfocus_bench.phantom.track import (
    DEV_QUESTIONS,
    TEST_QUESTIONS,
    VERSION,
    patient_of,
    phantom_questions,
    rows,
)
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import records_beside

ALL_QUESTIONS: Final = range(TEST_QUESTIONS + DEV_QUESTIONS)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the causal filter: an LVLM, a mode and the kind of evidence."""

    lvlm: str
    mode: Mode = "direct"
    evidence: str = "lesion"

    def file(self, folder: Path) -> Path:
        return folder / f"{lvlm_key(self.lvlm)}-{self.mode}-{self.evidence}.jsonl"


def verify_phantom(
    run: str | Run,
    out: str | Path,
    indices: Iterable[int] = ALL_QUESTIONS,
    *,
    batch: int = AUTO_ANSWERS,
    engine: Engine | None = None,
) -> Iterator[Verification]:
    """The causal filter of one run (or of that of an LVLM's name) over phantom questions, resumable."""
    run = Run(run) if isinstance(run, str) else run
    questions = phantom_questions(indices, run.evidence)
    editor = PhantomEditor(patient_of)
    lvlm, file = LVLMSource.of(run.lvlm, **EXACT), run.file(Path(out))
    more: dict[str, Any] = {"batch": batch, "engine": engine, "on_failure": _refuse}
    return verify(questions, lvlm, run.mode, editor, file, **more)


def _refuse(failure: Failure) -> None:
    """Every question of the phantom has an answer: a dataset without one is not built."""
    raise InputError(
        f"{failure.source} {failure.index}: {failure.reason}; the same command goes on from here"
    )


def track_runs() -> list[Run]:
    """The runs of the dataset: lesion models with lesions, twins with marks."""
    return [
        Run(lvlm, mode, "spurious" if lvlm in TWINS else "lesion")
        for lvlm, mode in product(PHANTOM_LVLMS, MODES)
    ]


def control_runs() -> list[Run]:
    """The runs that must fail: twins asked whether the lesion drives them."""
    return [Run(lvlm, mode, "lesion") for lvlm, mode in product(TWINS, MODES)]


def build_track(
    out: str | Path,
    work: str | Path | None = None,
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    indices: Sequence[int] = ALL_QUESTIONS,
    progress: Progress = no_progress,
) -> Benchmark:
    """Verify every question with every shipped model, and write the dataset.

    The records of the causal filter go to `work`, by default `out` with `.work` behind it; a stopped build
    goes on from them. `engine` asks the models; `progress` shows how many of all questions are done.

    Raises InputError where something is in `out` already, unless it is a benchmark and `overwrite` is given.
    """
    out = Path(out)
    work = records_beside(out) if work is None else Path(work)
    check_vacant(out, overwrite=overwrite)
    for library in ("torch", "transformers"):
        require(library)
    runs = [*track_runs(), *control_runs()]
    made = chain.from_iterable(verify_phantom(run, work, indices, engine=engine) for run in runs)
    for _ in progress(made, "Verifying", len(runs) * len(indices)):
        pass
    records = [
        record
        for run in track_runs()
        for record in sorted(read_verifications(run.file(work)), key=lambda record: record.key)
    ]
    built = write_benchmark(
        out, rows(records), name="medfocus/cxr-causal", version=VERSION, overwrite=overwrite
    )
    (out / "README.md").write_text(_CARD, encoding="utf-8")
    (out / "groups.json").write_text(group_table(work) + "\n", encoding="utf-8")
    return built


_CARD = """---
license: mit
task_categories:
- visual-question-answering
configs:
- config_name: phantom
  default: true
  data_files:
  - split: direct
    path: direct.parquet
  - split: reasoning
    path: reasoning.parquet
  - split: dev
    path: dev.parquet
---

# The phantom track of medfocus/cxr-causal

Synthetic chest radiographs, the answers of four tiny LVLMs that were trained on such pictures, and the
region that drives each answer: the lesion, or for the two twins a mark that has nothing to do with it. Rows
of every group are here; those whose `group` is `grounded` are the benchmark. Built by
`medfocus-bench data build phantom --out DIR`.
"""


def check_answers(
    folder: Path,
    indices: Sequence[int] = ALL_QUESTIONS,
    *,
    tolerance: float = 1e-3,
    progress: Progress = no_progress,
) -> list[str]:
    """Ask the shipped models again about these questions of a built track.

    Every stored answer that is not reproduced to the letter, and every log-odds that is further off than
    `tolerance`, is a sentence of the result; empty if all is as stored.
    """
    problems: list[str] = []
    with TemporaryDirectory() as work:
        runs = track_runs()
        asked = chain.from_iterable(verify_phantom(run, work, indices) for run in runs)
        tracked = progress(asked, "Asking again", len(runs) * len(indices))
        again = {(record.index, record.lvlm, record.mode): record for record in tracked}
        for row in _stored(folder, set(indices)):
            record = again[row["index"], row["lvlm"], row["mode"]]
            for name in IMAGES:
                said, told = record.responses[name], row[f"answer_{name}"]
                odds, known = record.log_odds[name], row[f"log_odds_{name}"]
                if said != told:
                    problems.append(f"{row['sample_id']}: {name}: {said!r}, stored {told!r}")
                if odds != known and (odds is None or known is None or abs(odds - known) > tolerance):
                    problems.append(f"{row['sample_id']}: {name}: log-odds {odds}, stored another")
    return problems


def _stored(folder: Path, indices: set[int]) -> Iterator[dict[str, Any]]:
    names = [f"answer_{name}" for name in IMAGES] + [f"log_odds_{name}" for name in IMAGES]
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path, columns=["sample_id", "index", "lvlm", "mode", *names])
        yield from (row for row in table.to_pylist() if row["index"] in indices)


def group_table(folder: Path) -> str:
    """The groups of every run in a folder as JSON, for the record."""
    table = {
        run.file(folder).stem: {
            name: [share.count, share.total, *share.interval]
            for name, share in group_shares(read_verifications(run.file(folder))).items()
        }
        for run in [*track_runs(), *control_runs()]
    }
    return json.dumps(table, indent=1)
