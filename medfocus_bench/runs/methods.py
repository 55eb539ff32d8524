"""The methods of a run: what was named, with the settings that it was given."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from medfocus_bench._version import __version__
from medfocus_bench.attribution import protocol, registry
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.errors import InputError, sentence
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, NULL_PREFIX, NullControl
from medfocus_bench.runs.settings import PartSettings, place_of
from medfocus_bench.runs.tuning import Tuning, check_tuning, read_tuning
from medfocus_bench.submission.schema import Method

ALL: Final = "all"
"""Stands for every installed method."""

_NULL_NAME: Final = "null-"
"""Before the name of a null control where runs and submissions show it."""


@dataclass(frozen=True, slots=True)
class ChosenMethod:
    """A method by the name or `module:Class` that loads it, with its settings.

    `settings` hold for all LVLMs and modes, those of `tuning` for one LVLM and mode each. `again` is the
    command that adds to the file of the tuning.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None
    again: str = ""

    @property
    def described(self) -> Method:
        """The method as submissions state it; its hyperparameters before any tuning."""
        return described(registry.load_method(self.source, self.settings), self.source)

    def part(self, lvlm: str, mode: str) -> PartSettings:
        """What is tuned for an LVLM and a mode. Raises InputError where the tuning file lacks them."""
        if self.tuning is None:
            return PartSettings()
        chosen = self.tuning.part(lvlm, mode, self.again)
        return PartSettings(tuned=chosen.chosen, dev_samples=chosen.samples)

    def check_conditions(self, lvlm: str, mode: str, dtype: str, framing: str) -> None:
        """Raises InputError where what is tuned for an LVLM and a mode was tuned under other conditions."""
        if self.tuning is not None:
            self.tuning.check_conditions(lvlm, mode, dtype, framing, self.again)

    def load(self, lvlm: str, mode: str) -> protocol.Method:
        """The method as it explains the responses of an LVLM in a mode."""
        return registry.load_method(self.source, {**self.settings, **(self.part(lvlm, mode).tuned or {})})


@dataclass(frozen=True, slots=True)
class ChosenNull:
    """A null control as a method of a run."""

    control: NullControl

    @property
    def source(self) -> str:
        return NULL_PREFIX + self.control.name

    @property
    def described(self) -> Method:
        return self.control.method()


Chosen = ChosenMethod | ChosenNull


def choose_methods(names: Iterable[str], assignments: Sequence[str] = ()) -> list[Chosen]:
    """Methods by name; `all` stands for the installed ones, and names of null controls are methods, too.

    An assignment is `field=value`, for all methods, or `method.field=value`; values are JSON, or text.
    Raises InputError for what is no method or no setting of it, and for a method that is named twice.
    """
    sources = [
        source for name in names for source in (registry.method_names() if name == ALL else [name]) if source
    ]
    if not sources:
        raise InputError(f"no method is named; there are {_known()}")
    chosen: dict[str, Chosen] = {}
    for source in dict.fromkeys(sources):
        method = _chosen(source)
        name = method.described.name
        if name in chosen:
            raise InputError(f"{source} and {chosen[name].source} are both the method {name}; name one")
        chosen[name] = method
    for assignment in assignments:
        _assign(chosen, assignment)
    return list(chosen.values())


def chosen_methods(methods: Sequence[str | Chosen]) -> list[Chosen]:
    """Methods that are named or made already, in their order. Raises InputError as `choose_methods`."""
    found = [
        chosen
        for method in methods
        for chosen in (choose_methods([method]) if isinstance(method, str) else [method])
    ]
    if not found:
        choose_methods([])
    names = [method.described.name for method in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the method {twice} is given twice; give it once")
    return found


def with_tuning(
    methods: Iterable[Chosen], files: Iterable[Path], benchmark: Benchmark | None
) -> list[Chosen]:
    """The methods with the settings of their tuning files, tuned on `benchmark` where that is given.

    Raises InputError for a file of no method among them or of another benchmark, for a second file of a
    method, and for a setting that is both given and tuned.
    """
    by_name = {method.described.name: method for method in methods}
    for file in files:
        tuning = read_tuning(file)
        method = by_name.get(tuning.method)
        if not isinstance(method, ChosenMethod):
            raise InputError(
                f"{file}: is of the method {tuning.method}, which is not in this run ({', '.join(by_name)})"
            )
        if benchmark is not None:
            check_tuning(file, tuning, tuning.method, benchmark)
        if method.tuning is not None:
            raise InputError(f"{file}: is the second tuning file of {tuning.method}; give one")
        tuned = {name for part in tuning.parts.values() for name in part.chosen}
        twice = sorted(tuned & method.settings.keys())
        if twice:
            raise InputError(f"{twice[0]} of {tuning.method} is both set and tuned in {file}; leave one out")
        # Without a benchmark a picture is explained; the file says on what it was tuned.
        place = tuning.benchmark.dataset if benchmark is None else place_of(benchmark)
        again = f"medfocus-bench tune {method.source} -b {shlex.quote(place)} --out {shlex.quote(str(file))}"
        by_name[tuning.method] = ChosenMethod(method.source, method.settings, tuning, again)
    return list(by_name.values())


def described(method: protocol.Method, source: str) -> Method:
    """A method as submissions state it. Raises InputError where what it says of itself breaks the format."""
    kind = type(method)
    try:
        return Method(
            name=kind.name,
            display_name=getattr(kind, "title", None),
            family=kind.family,
            version=str(getattr(kind, "version", __version__)),
            description=kind.description,
            paper=getattr(kind, "paper", None),
            needs=list(kind.needs),
            hyperparameters=hyperparameters(method),
        )
    except ValidationError as error:
        raise InputError(f"{source}: cannot be submitted: {sentence(error)}") from None


def hyperparameters(method: protocol.Method) -> dict[str, Any]:
    """The fields of a method as a submission holds them; what is neither a scalar nor a list, as JSON."""
    values = TypeAdapter(type(method)).dump_python(method, mode="json")
    return {name: _submittable(value) for name, value in values.items()}


def _chosen(source: str) -> Chosen:
    if source in registry.method_names() or (":" in source and not source.startswith(NULL_PREFIX)):
        return ChosenMethod(source)
    name = source.removeprefix(NULL_PREFIX).removeprefix(_NULL_NAME)
    if name not in NULL_CONTROLS:
        raise InputError(f"no method {source!r}; there are {_known()}, or give module:Class")
    return ChosenNull(NULL_CONTROLS[name])


def _known() -> str:
    return f"{', '.join(registry.method_names())}, the null controls {', '.join(NULL_CONTROLS)}"


def _assign(chosen: dict[str, Chosen], assignment: str) -> None:
    target, equals, text = assignment.partition("=")
    prefix, dot, name = target.strip().rpartition(".")
    if not equals or not name:
        raise InputError(f"--set {assignment}: write field=value or method.field=value")
    if dot and prefix not in chosen:
        raise InputError(f"--set {assignment}: no method {prefix!r} in this run, only {', '.join(chosen)}")
    value = _value(assignment, text.strip())
    takers = [prefix] if dot else [key for key, method in chosen.items() if isinstance(method, ChosenMethod)]
    if not takers or isinstance(chosen[takers[0]], ChosenNull):
        raise InputError(f"--set {assignment}: a null control has no settings")
    for key in takers:
        method = chosen[key]
        assert isinstance(method, ChosenMethod)
        changed = ChosenMethod(method.source, {**method.settings, name: value}, method.tuning, method.again)
        registry.load_method(changed.source, changed.settings)
        chosen[key] = changed


def _value(assignment: str, text: str) -> Any:
    """The value of an assignment: JSON where it is that, else the text as it stands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    words = ("nan", "inf", "infinity")
    if (isinstance(value, float) and not math.isfinite(value)) or text.lower().lstrip("+-") in words:
        raise InputError(f"--set {assignment}: give a finite number")
    return value


def _submittable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(
        isinstance(part, int | float | str) and not isinstance(part, bool) for part in value
    ):
        return value
    return json.dumps(value)
