"""The tuning file: hyperparameters selected on the dev split, read by runs and quoted in submissions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.errors import InputError, sentence
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.settings import MAX_DOCUMENT_BYTES, BenchmarkIdentity, part_name
from medfocus_bench.storage import read_regular
from medfocus_bench.submission.schema import Finite, Strict

FORMAT: Final[Literal["medfocus-bench tuning 1"]] = "medfocus-bench tuning 1"

DEV: Final[Literal["dev"]] = "dev"
"""The only split on which anything is selected."""


class Candidate(Strict):
    """One candidate: its mean evidence AP on dev with its 95 % interval.

    `failed`: the samples on which the method could not run with it, which count as 0.
    """

    settings: dict[str, Any]
    evidence_ap: Finite
    low: Finite
    high: Finite
    failed: Annotated[int, Field(ge=0)] = 0


class TunedPart(Strict):
    """The selection for one LVLM and mode, with all candidates, the best first.

    `dtype`, `framing`, `quantise`, `decoding` and `pixels`: how the LVLM ran. Files without them were
    made with the defaults.
    """

    samples: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    seed: int
    dtype: str = "float32"
    framing: Preprocessing = "square"
    quantise: str | None = None
    decoding: Decoding = GREEDY
    pixels: tuple[int, int] | None = None
    chosen: dict[str, Any]
    candidates: Annotated[list[Candidate], Field(min_length=1)]


class Tuning(Strict):
    """The content of a tuning file. The names of `parts` are an LVLM and a mode."""

    format: Literal["medfocus-bench tuning 1"] = FORMAT
    method: str
    version: str
    benchmark: BenchmarkIdentity
    split: Literal["dev"] = DEV
    parts: dict[str, TunedPart] = Field(default_factory=dict)

    def part(self, lvlm: str, mode: str, again: str) -> TunedPart:
        """The selection for an LVLM and a mode. Raises InputError with the command `again` if missing."""
        name = part_name(lvlm, mode)
        if name not in self.parts:
            present = ", ".join(self.parts) or "nothing"
            raise InputError(
                f"the tuning file of {self.method} has nothing for {name}, only {present}; add it with "
                f"`{again} --lvlm {lvlm} --mode {mode}`"
            )
        return self.parts[name]

    def check_conditions(self, lvlm: str, mode: str, config: RunConfig, again: str) -> None:
        """Raises InputError where the part was tuned under other conditions, or is not there."""
        part = self.part(lvlm, mode, again)
        tuned, wanted = (_conditions(one) for one in (part, config))
        if tuned != wanted:
            raise InputError(
                f"the tuning file of {self.method} was made for {part_name(lvlm, mode)} with {tuned}, and "
                f"this run has {wanted}; give those, or tune again with `{again} --lvlm {lvlm} --mode {mode} "
                f"{wanted}`"
            )

    def extended(self, lvlm: str, mode: str, part: TunedPart) -> Tuning:
        return self.model_copy(update={"parts": self.parts | {part_name(lvlm, mode): part}})


def _conditions(one: TunedPart | RunConfig) -> str:
    quantised = f" --quantise {one.quantise}" if one.quantise else ""
    decoding = f" --decoding {one.decoding}" if one.decoding != GREEDY else ""
    pixels = " --pixels {},{}".format(*one.pixels) if one.pixels else ""
    return f"--dtype {one.dtype} --framing {one.framing}{quantised}{decoding}{pixels}"


def read_tuning(path: Path) -> Tuning:
    """The tuning file at `path`. Raises InputError for one that is missing or not sound."""
    if not path.is_file():
        raise InputError(f"{path}: cannot be read: it is not a file; give one that `tune` wrote")
    try:
        return Tuning.model_validate_json(read_regular(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: is not a tuning file: {sentence(error)}") from None


def open_tuning(path: Path, method: str, version: str, benchmark: Benchmark) -> Tuning:
    """The tuning file at `path`, or a new one. Raises InputError for one of another method or benchmark."""
    identity = BenchmarkIdentity.of(benchmark)
    if not path.exists():
        return Tuning(method=method, version=version, benchmark=identity)
    existing = read_tuning(path)
    if existing.version != version:
        raise InputError(f"{path}: is of {method} {existing.version}, not {version}; give another file")
    check_tuning(path, existing, method, benchmark)
    return existing


def check_tuning(path: Path, tuning: Tuning, method: str, benchmark: Benchmark) -> None:
    """Raises InputError for a tuning file of another method, or of another benchmark."""
    identity = BenchmarkIdentity.of(benchmark)
    if tuning.method != method:
        raise InputError(f"{path}: is of the method {tuning.method}, not {method}; give another file")
    if tuning.benchmark != identity:
        raise InputError(f"{path}: was tuned on {tuning.benchmark}, not on {identity}; tune again")
