"""Counterfactual editors by name."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medfocus_bench.counterfactual.editors import Editor, EditorError
from medfocus_bench.errors import sentence

GROUP = "medfocus_bench.editors"
"""The entry point group by which a package adds editors: dataclasses that follow the protocol `Editor`."""


def load_editor(name: str, **settings: Any) -> Editor:
    """The editor of that name with its default settings, changed by `settings`.

    A setting may be given as text where it is a number or a path. Raises EditorError for an unknown name, for
    a setting that the editor does not have, or of another type, and for a class that is not an editor.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise EditorError(f"no editor {name!r}; there are {', '.join(sorted(found))}")
    try:
        kind = found[name].load()
    except ImportError as error:
        raise EditorError(f"{name} needs {error.name}, which is not installed") from None
    missing = [part for part in ("name", "version", "redraw") if not hasattr(kind, part)]
    if missing or not dataclasses.is_dataclass(kind):
        reason = f"has no {', '.join(missing)}" if missing else "is not a dataclass"
        raise EditorError(f"{name}: is not an editor: it {reason}")
    known = sorted(field.name for field in dataclasses.fields(kind) if field.init)
    for setting in settings:
        if setting not in known:
            raise EditorError(f"{name} has no setting {setting!r}; it has {', '.join(known) or 'none'}")
    try:
        editor: Editor = TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        raise EditorError(f"{name}: setting {sentence(error).removeprefix('/')}") from None
    return editor
