"""What a run was made with: kept beside its records, and held against those of whoever goes on with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import installed_benchmarks
from medfocus_bench.errors import InputError, sentence
from medfocus_bench.runs.records import FAILURES_NAME, holds_records
from medfocus_bench.storage import read_regular, write_atomic
from medfocus_bench.submission.schema import MethodMetadata, Strict

SETTINGS_NAME: Final = "settings.json"
MAX_DOCUMENT_BYTES: Final = 16 * 2**20
"""Of the settings of a run, of a tuning file and of an ablation."""

FORMAT: Final[Literal["medfocus-bench run 1"]] = "medfocus-bench run 1"

_DECIDING = ("source", "method", "benchmark", "target", "seed", "dtype", "framing")
"""The settings that every record of a folder has in common."""

_NOT_KEPT: Final = "unknown (an earlier version did not keep it)"


class BenchmarkIdentity(Strict):
    """Which benchmark, exactly."""

    dataset: str
    version: str
    fingerprint: str

    @classmethod
    def of(cls, benchmark: Benchmark) -> BenchmarkIdentity:
        return cls(dataset=benchmark.name, version=benchmark.version, fingerprint=benchmark.fingerprint)

    def __str__(self) -> str:
        return f"{self.dataset} {self.version} ({self.fingerprint[:12]})"


class PartSettings(Strict):
    """What differs between the parts of a run, which are an LVLM and a mode each.

    `tuned`: the settings that were chosen on `dev_samples` samples of dev; None where nothing was tuned.
    `checkpoint`: which one the LVLM is; None where that is not known, as in runs of earlier versions.
    """

    tuned: dict[str, Any] | None = None
    dev_samples: Annotated[int, Field(ge=1)] | None = None
    checkpoint: str | None = None


class RunSettings(Strict):
    """The content of `settings.json`.

    `source` is what the method was loaded by; `opened` where the benchmark was found. `target`, `dtype` and
    `framing` are null for a null control, which looks at no model.
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
    parts: dict[str, PartSettings]

    def differences(self, other: RunSettings) -> Iterator[tuple[str, Any, Any]]:
        """What `other` cannot share a folder for: a name and the two values.

        A part of `other` that does not know its checkpoint yet is not told apart by it.
        """
        mine, others = (run.model_dump(include=set(_DECIDING)) for run in (self, other))
        yield from _differences("", mine, others)
        for name in sorted(self.parts.keys() & other.parts.keys()):
            held, own = self.parts[name], other.parts[name]
            if held.tuned != own.tuned:
                yield f"settings tuned for {name}", held.tuned, own.tuned
            if own.checkpoint not in (None, held.checkpoint):
                yield f"checkpoint of {name}", held.checkpoint or _NOT_KEPT, own.checkpoint

    def of_parts(self, names: Iterable[str], checkpoint: str | None) -> RunSettings:
        """Those of some parts of one LVLM, with its checkpoint where that became known."""
        parts = {name: self.parts[name] for name in names if name in self.parts}
        if checkpoint is not None:
            known = {"checkpoint": checkpoint}
            parts = {name: part.model_copy(update=known) for name, part in parts.items()}
        return self.model_copy(update={"parts": parts})


def part_name(lvlm: str, mode: str) -> str:
    """How settings and tuning files name an LVLM and a mode."""
    return f"{lvlm} {mode}"


def place_of(benchmark: Benchmark) -> str:
    """What opens the benchmark again: the name of an embedded one, or the path of its folder."""
    names = [name for name, folder in installed_benchmarks().items() if folder == benchmark.folder]
    return names[0] if names else str(benchmark.folder.resolve())


def read_settings(folder: Path) -> RunSettings:
    """The settings of the records in a folder. Raises InputError where it holds none, or no sound ones."""
    path = folder / SETTINGS_NAME
    try:
        return RunSettings.model_validate_json(read_regular(path, MAX_DOCUMENT_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: holds no {SETTINGS_NAME}; give the folder of a run") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: is not that of a run: {sentence(error)}") from None


def check_settings(folder: Path, wanted: RunSettings) -> None:
    """Raises InputError where a folder holds records of other settings."""
    if not holds_records(folder):
        return
    for name, held, own in read_settings(folder).differences(wanted):
        raise InputError(
            f"{folder}: was made with {name} {_shown(held)}, and this run has {_shown(own)}; "
            "choose another folder for it"
        )


def keep_settings(folder: Path, wanted: RunSettings) -> None:
    """Writes checked settings; their parts add to those that are there already.

    Other settings, of which nothing was recorded, are replaced, and the failures under them forgotten.
    """
    path = folder / SETTINGS_NAME
    if path.exists():
        held = read_settings(folder)
        if any(held.differences(wanted)):
            (folder / FAILURES_NAME).unlink(missing_ok=True)
        else:
            wanted = held.model_copy(update={"parts": held.parts | wanted.parts})
    write_document(path, wanted)


def write_document(path: Path, document: Strict) -> None:
    """Writes a document as JSON, all of it or nothing."""
    write_atomic(path, document.model_dump_json(indent=1) + "\n")


def _differences(name: str, held: Any, own: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(held, dict) and isinstance(own, dict):
        for key in [*held, *(key for key in own if key not in held)]:
            yield from _differences(key, held.get(key), own.get(key))
    elif held != own:
        yield name, held, own


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:100]
