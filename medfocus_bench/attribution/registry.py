"""Attribution methods by name."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medfocus_bench.attribution.protocol import Method
from medfocus_bench.errors import InputError, sentence

GROUP = "medfocus_bench.methods"
"""The entry point group by which a package adds methods."""


def list_methods(pattern: str = "*") -> list[str]:
    """The names of the installed methods that match a shell pattern, sorted.

    >>> from medfocus_bench import list_methods
    >>> list_methods("grad*")
    ['grad-cam', 'grad-cam-plus-plus', 'gradient-weighted-attention']
    """
    names = {entry.name for entry in entry_points(group=GROUP)}
    return sorted(name for name in names if fnmatchcase(name, pattern))


def load_method(name: str, /, **settings: Any) -> Method:
    """Load an attribution method.

    Args:
        name: Of an installed method (see `list_methods`), or `module:Class` for one in the current folder or
            on the Python path.
        settings: Hyperparameters that differ from the method's defaults.

    Raises InputError for an unknown name, a class that is not a method, and a setting that the method does
    not have or of another type.

    Example:
        >>> from medfocus_bench import load_method
        >>> load_method("grad-cam", layer=3)
        GradCAM(layer=3)

    """
    kind = _own_class(name) if ":" in name else _installed_class(name)
    missing = [part for part in ("name", "family", "needs", "description") if not hasattr(kind, part)]
    if getattr(kind, "explain", Method.explain) is Method.explain:
        missing.append("explain")
    if missing or not dataclasses.is_dataclass(kind):
        reason = f"has no {', '.join(missing)}" if missing else "is not a dataclass"
        raise InputError(f"{name}: is not an attribution method: it {reason}")
    return _with_settings(kind, name, settings)


def _installed_class(name: str) -> Any:
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in installed:
        raise InputError(
            f"no method {name!r}; there are {', '.join(sorted(installed))}, or give module:Class"
        )
    try:
        return installed[name].load()
    except ImportError as error:
        raise InputError(
            f"{name} needs {error.name}: install the extra with pip install 'medfocus-bench[attribution]'"
        ) from None


def _own_class(name: str) -> Any:
    module_name, _, class_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{name}: cannot be imported: {error}") from None


def _with_settings(kind: Any, name: str, settings: dict[str, Any]) -> Method:
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(settings) - known)
    if unknown:
        has = f"only {', '.join(sorted(known))}" if known else "none at all"
        raise InputError(f"{name} has no setting {unknown[0]!r}, {has}")
    try:
        method: Method = TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        raise InputError(f"{name}: setting {sentence(error).removeprefix('/')}") from None
    return method
