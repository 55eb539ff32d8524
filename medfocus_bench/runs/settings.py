"""The configuration of a run, stored next to its records and compared with that of a run that resumes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.data.resolve import installed_benchmarks
from medfocus_bench.errors import InputError, sentence
from medfocus_bench.runs.records import FAILURES_NAME, holds_records
from medfocus_bench.storage import read_regular, write_atomic
from medfocus_bench.submission.schema import MethodMetadata, Strict

SETTINGS_NAME: Final = "settings.json"
MAX_DOCUMENT_BYTES: Final = 16 * 2**20
"""Limit for settings, tuning and result files."""

FORMAT: Final[Literal["medfocus-bench run 1"]] = "medfocus-bench run 1"

_DECIDING = (
    *("source", "method", "benchmark", "target", "seed"),
    *("dtype", "framing", "quantise", "decoding", "pixels"),
)
"""The settings that every record of a folder has in common."""

_UNKNOWN: Final = "unknown (an earlier version did not keep it)"


class BenchmarkIdentity(Strict):
    """The name, version and fingerprint of a benchmark."""

    dataset: str
    version: str
    fingerprint: str

    @classmethod
    def of(cls, benchmark: Benchmark) -> BenchmarkIdentity:
        return cls(dataset=benchmark.name, version=benchmark.version, fingerprint=benchmark.fingerprint)

    def __str__(self) -> str:
        return f"{self.dataset} {self.version} ({self.fingerprint[:12]})"


class PartSettings(Strict):
    """The settings of one part of a run, an LVLM and a mode.

    `tuned`: hyperparameters selected on `dev_samples` samples of dev; None where nothing was tuned.
    `checkpoint`: the identity of the LVLM's weights; None where unknown, as in runs of earlier versions.
    """

    tuned: dict[str, Any] | None = None
    dev_samples: Annotated[int, Field(ge=1)] | None = None
    checkpoint: str | None = None


class RunSettings(Strict):
    """The content of `settings.json`.

    `source` loads the method, and `opened` the benchmark. `target`, `dtype`, `framing` and `decoding` are
    None for a null control, which needs no model; `quantise` for weights of that dtype, `pixels` where the
    limits of the checkpoint and its family hold. Runs of earlier
    versions keep neither `quantise` nor `decoding`: they had no quantised weights, and were greedy.
    """

    format: Literal["medfocus-bench run 1"] = FORMAT
    source: str
    method: MethodMetadata
    benchmark: BenchmarkIdentity
    opened: str
    target: str | None
    seed: int
    dtype: str | None
    framing: str | None
    quantise: str | None = None
    decoding: Decoding | None = None
    pixels: tuple[int, int] | None = None
    parts: dict[str, PartSettings]

    @model_validator(mode="after")
    def _of_earlier_versions(self) -> Self:
        if self.dtype is not None and self.decoding is None:
            object.__setattr__(self, "decoding", GREEDY)  # the settings are frozen once they are made
        return self

    def differences(self, other: RunSettings) -> Iterator[tuple[str, Any, Any]]:
        """Settings that differ from `other`, as (name, ours, theirs).

        A checkpoint that `other` does not know yet makes no difference.
        """
        mine, others = (run.model_dump(include=set(_DECIDING)) for run in (self, other))
        yield from _differences("", mine, others)
        for name in sorted(self.parts.keys() & other.parts.keys()):
            ours, theirs = self.parts[name], other.parts[name]
            if ours.tuned != theirs.tuned:
                yield f"settings tuned for {name}", ours.tuned, theirs.tuned
            if theirs.checkpoint not in (None, ours.checkpoint):
                yield f"checkpoint of {name}", ours.checkpoint or _UNKNOWN, theirs.checkpoint

    def of_parts(self, names: Iterable[str], checkpoint: str | None) -> RunSettings:
        """The settings of some parts of one LVLM, with its checkpoint where that is known."""
        parts = {name: self.parts[name] for name in names if name in self.parts}
        if checkpoint is not None:
            known = {"checkpoint": checkpoint}
            parts = {name: part.model_copy(update=known) for name, part in parts.items()}
        return self.model_copy(update={"parts": parts})


def part_name(lvlm: str, mode: str) -> str:
    """The name of an LVLM and a mode in settings and tuning files."""
    return f"{lvlm} {mode}"


def place_of(benchmark: Benchmark) -> str:
    """The name of an embedded benchmark, or the path of its folder: either loads it again."""
    names = [name for name, folder in installed_benchmarks().items() if folder == benchmark.folder]
    return names[0] if names else str(benchmark.folder.resolve())


def read_settings(folder: Path) -> RunSettings:
    """The settings in a run's folder. Raises InputError where they are missing or broken."""
    path = folder / SETTINGS_NAME
    try:
        return RunSettings.model_validate_json(read_regular(path, MAX_DOCUMENT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: holds no {SETTINGS_NAME}; give the folder of a run") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: is not the settings file of a run: {sentence(error)}") from None


def check_settings(folder: Path, wanted: RunSettings) -> None:
    """Raises InputError where a folder holds records of other settings."""
    if not holds_records(folder):
        return
    for name, existing, new in read_settings(folder).differences(wanted):
        raise InputError(
            f"{folder}: was made with {name} {_shown(existing)}, and this run has {_shown(new)}; "
            "choose another folder for it"
        )


def write_settings(folder: Path, wanted: RunSettings) -> None:
    """Write checked settings; their parts add to the existing ones.

    Existing settings without records are replaced, and the failures under them forgotten.
    """
    path = folder / SETTINGS_NAME
    if path.exists():
        existing = read_settings(folder)
        if any(existing.differences(wanted)):
            (folder / FAILURES_NAME).unlink(missing_ok=True)
        else:
            known = {name: part.checkpoint for name, part in existing.parts.items()}
            parts = {
                name: part.model_copy(update={"checkpoint": part.checkpoint or known.get(name)})
                for name, part in wanted.parts.items()
            }
            wanted = existing.model_copy(update={"parts": existing.parts | parts})
    write_document(path, wanted)


def write_document(path: Path, document: Strict) -> None:
    """Write a document as JSON, atomically."""
    write_atomic(path, document.model_dump_json(indent=1) + "\n")


def _differences(name: str, ours: Any, theirs: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            yield from _differences(key, ours.get(key), theirs.get(key))
    elif ours != theirs:
        yield name, ours, theirs


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:100]
