"""The methods of a run: their names and settings from the command line or from Python."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from medfocus_bench._version import __version__
from medfocus_bench.attribution import registry
from medfocus_bench.attribution.protocol import Method, refuse_family, refuse_quantised
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.engine.devices import check_device
from medfocus_bench.errors import InputError, sentence
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, NULL_PREFIX, NullControl
from medfocus_bench.lvlm.registry import check_lvlms, lvlm_key, model_type_of, trained_key
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.settings import PartSettings, place_of
from medfocus_bench.runs.tuning import Tuning, check_tuning, read_tuning
from medfocus_bench.submission.schema import MethodMetadata

ALL: Final = "all"
"""Stands for every installed method."""

_NULL_NAME: Final = "null-"
"""Prefix of the names of null controls in runs and submissions."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method of a run: what loads it, and its settings.

    Args:
        source: The name or `module:Class` of a method, or `null:` and the name of a null control.
        settings: Hyperparameters for all LVLMs and modes.
        tuning: Hyperparameters for one LVLM and mode each.
        again: The command that adds to the file of the tuning.

    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None
    again: str = ""

    @property
    def control(self) -> NullControl | None:
        """The null control that this is; None for a method that looks at a model."""
        if not self.source.startswith(NULL_PREFIX):
            return None
        name = self.source.removeprefix(NULL_PREFIX)
        if name not in NULL_CONTROLS:
            raise InputError(f"no null control {name!r}; there are {', '.join(NULL_CONTROLS)}")
        return NULL_CONTROLS[name]

    @property
    def metadata(self) -> MethodMetadata:
        """The method as submissions state it; its hyperparameters before any tuning."""
        if self.control is not None:
            return self.control.method()
        return metadata(registry.load_method(self.source, **self.settings), self.source)

    def part(self, lvlm: str, mode: str) -> PartSettings:
        """The tuned settings of an LVLM and a mode; a copy with a random decoder has the trained one's.

        Raises InputError where the tuning file lacks them.
        """
        if self.tuning is None:
            return PartSettings()
        tuned = self.tuning.part(trained_key(lvlm), mode, self.again)
        return PartSettings(tuned=tuned.chosen, dev_samples=tuned.samples)

    def check_conditions(self, lvlm: str, mode: str, config: RunConfig) -> None:
        """Raises InputError where the settings of an LVLM and a mode were tuned under other conditions."""
        if self.tuning is not None:
            self.tuning.check_conditions(trained_key(lvlm), mode, config, self.again)

    def load(self, lvlm: str, mode: str) -> Method:
        """The method as it explains the responses of an LVLM in a mode; not for a null control."""
        tuned = self.part(lvlm, mode).tuned or {}
        return registry.load_method(self.source, **{**self.settings, **tuned})


def choose_methods(names: Iterable[str], assignments: Sequence[str] = ()) -> list[MethodSpec]:
    """Specs of methods by name: `choose_methods(["grad-cam", "whole-image"], ["grad-cam.layer=3"])`.

    Args:
        names: Of methods or null controls; `all` stands for every installed method.
        assignments: `field=value`, for all methods, or `method.field=value`; values are JSON, or text.

    Raises InputError for an unknown method or setting, and for a method that is named twice.
    """
    sources = [
        source for name in names for source in (registry.list_methods() if name == ALL else [name]) if source
    ]
    if not sources:
        raise InputError(f"no method is named; there are {_known()}")
    chosen: dict[str, MethodSpec] = {}
    for source in dict.fromkeys(sources):
        method = _chosen(source)
        name = method.metadata.name
        if name in chosen:
            raise InputError(f"{source} and {chosen[name].source} are both the method {name}; name one")
        chosen[name] = method
    for assignment in assignments:
        _assign(chosen, assignment)
    return list(chosen.values())


def chosen_methods(methods: Sequence[str | MethodSpec]) -> list[MethodSpec]:
    """Specs in their order, those of names among them. Raises InputError as `choose_methods`."""
    found = [
        chosen
        for method in methods
        for chosen in (choose_methods([method]) if isinstance(method, str) else [method])
    ]
    if not found:
        choose_methods([])
    names = [method.metadata.name for method in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the method {twice} is given twice; give it once")
    return found


def with_tuning(
    methods: Iterable[MethodSpec], files: Iterable[Path], benchmark: Benchmark | None
) -> list[MethodSpec]:
    """The specs with the hyperparameters of their tuning files.

    Args:
        methods: Specs without tuning.
        files: Tuning files, at most one for each method.
        benchmark: The one that the files must have been tuned on; None for any.

    Raises InputError for a file of another method or benchmark, for a second file of a method, and for a
    setting that is both given and tuned.
    """
    by_name = {method.metadata.name: method for method in methods}
    for file in files:
        tuning = read_tuning(file)
        method = by_name.get(tuning.method)
        if method is None or method.control is not None:
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
        by_name[tuning.method] = replace(method, tuning=tuning, again=again)
    return list(by_name.values())


def metadata(method: Method, source: str) -> MethodMetadata:
    """The metadata of a method in submissions. Raises InputError where they break the format."""
    kind = type(method)
    try:
        return MethodMetadata(
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


def hyperparameters(method: Method) -> dict[str, Any]:
    """The fields of a method as in a submission; all but scalars and lists become JSON text."""
    values = TypeAdapter(type(method)).dump_python(method, mode="json")
    return {name: _submittable(value) for name, value in values.items()}


def check_methods(
    methods: Iterable[MethodSpec], lvlms: Iterable[str], device: str, quantise: str | None = None
) -> None:
    """Raise InputError for LVLMs, a device, or files and models of settings that cannot be used.

    So it does for methods that cannot explain one of the LVLMs, see `refuse_families`.
    """
    lvlms = tuple(lvlms)
    specs = [spec for spec in methods if spec.control is None]
    if specs:
        check_lvlms(lvlms)
        check_device(device, quantise)
    loaded = [registry.load_method(spec.source, **spec.settings) for spec in specs]
    refuse_quantised(loaded, quantise is not None)
    refuse_families(loaded, lvlms)
    for method in loaded:
        if isinstance(method, Method):
            method.check()


def refuse_families(methods: Iterable[Method], lvlms: Iterable[str]) -> None:
    """Raise InputError for methods that assume what does not hold for an LVLM.

    Of an LVLM that is not here and not in the registry the family is known when it is loaded; it is refused
    then, before a sample is explained.
    """
    assuming = [method for method in methods if getattr(method, "assumes", ())]
    if not assuming:
        return
    from medfocus_bench.lvlm.families import load_family

    for source in lvlms:
        kind = model_type_of(source)
        if kind is not None:
            refuse_family(assuming, load_family(kind), lvlm_key(source))


def _chosen(source: str) -> MethodSpec:
    if source in registry.list_methods() or (":" in source and not source.startswith(NULL_PREFIX)):
        return MethodSpec(source)
    name = source.removeprefix(NULL_PREFIX).removeprefix(_NULL_NAME)
    if name not in NULL_CONTROLS:
        raise InputError(f"no method {source!r}; there are {_known()}, or give module:Class")
    return MethodSpec(NULL_PREFIX + name)


def _known() -> str:
    return f"{', '.join(registry.list_methods())}, the null controls {', '.join(NULL_CONTROLS)}"


def _assign(chosen: dict[str, MethodSpec], assignment: str) -> None:
    target, equals, text = assignment.partition("=")
    prefix, dot, name = target.strip().rpartition(".")
    if not equals or not name:
        raise InputError(f"--set {assignment}: write field=value or method.field=value")
    if dot and prefix not in chosen:
        raise InputError(f"--set {assignment}: no method {prefix!r} in this run, only {', '.join(chosen)}")
    value = _value(assignment, text.strip())
    takers = [prefix] if dot else [key for key, method in chosen.items() if method.control is None]
    if not takers or chosen[takers[0]].control is not None:
        raise InputError(f"--set {assignment}: a null control has no settings")
    for key in takers:
        changed = replace(chosen[key], settings={**chosen[key].settings, name: value})
        registry.load_method(changed.source, **changed.settings)
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
