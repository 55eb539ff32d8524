"""Names and files that are given to a command, checked before anything is loaded, read or run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.runs.methods import MethodSpec

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_VISION_MODELS: Final = {
    "segmenter": ("sam", "MedSAM", "phantom_sam"),
    "detector": ("owlv2", "OWLv2", "phantom_owlv2"),
}
"""By role: the type that a checkpoint states, what such a model is called, and the key of the shipped one."""
_MAX_CONFIG_BYTES: Final = 2**20
_TAKES_FILES: Final = ("medfocus", "medfocus-plus", "prompting-medsam")
"""Methods whose settings name models and files: `check_settings`."""


def check_lvlms(names: Iterable[str]) -> None:
    """Raises InputError for a name that no LVLM has, and for a folder that is no checkpoint."""
    from medfocus_bench.lvlm.registry import lvlm_key

    for name in names:
        lvlm_key(name)


def check_device(device: str) -> None:
    """Raises InputError for what is no device, and for one that this machine does not have."""
    try:
        import torch
    except ImportError:
        return  # loading a model says which extra is missing
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", device):
            reason = "there is no such kind of device"
        raise InputError(
            f"--device {device}: {reason}; give cpu, or cuda or cuda:NUMBER on a machine with such a GPU"
        ) from None


def check_vision_model(role: str, source: str | None) -> None:
    """Raises InputError where a segmenter or detector is neither a Hub id nor a folder with such a model."""
    wanted, title, shipped = _VISION_MODELS[role]
    if source in (None, shipped):
        return
    source = str(source)
    config = Path(source) / "config.json"
    if not Path(source).exists():
        if not _HUB_ID.fullmatch(source):
            raise InputError(
                f"--{role} {source}: is not there; give a folder with {title}, a Hub id, or, for phantoms, "
                f"{shipped}"
            )
        return
    try:
        with config.open("rb") as file:
            value = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        raise InputError(
            f"--{role} {source}: has no config.json that can be read; give the folder of a whole {title}"
        ) from None
    found = value.get("model_type") if isinstance(value, dict) else None
    if found != wanted:
        raise InputError(f"--{role} {source}: holds a model of type {found!r}, not {wanted!r}; give {title}")


def check_references(source: str | None) -> None:
    """Raises InputError where a pool of references is neither the shipped one nor a file of one."""
    if source in (None, "phantom"):
        return
    if not Path(str(source)).is_file():
        raise InputError(f"--references {source}: is no file; give one of `reference build`, or phantom")
    from medfocus_bench.medfocus.reference import ReferencePool

    ReferencePool.load(str(source))


def check_editor(editor: str | None) -> None:
    """Raises InputError for an editor, as `NAME` or `NAME,FIELD=VALUE`, that is not installed or so set."""
    if editor is None:
        return
    from medfocus_bench.medfocus.generative_fill import generative_fill

    generative_fill(editor, "", 0)


def check_tuned(files: Iterable[Path]) -> None:
    """Raises InputError for what is no file of `tune`."""
    for file in files:
        from medfocus_bench.runs.tuning import read_tuning

        if not file.is_file():
            raise InputError(f"{file}: cannot be read: it is no file; give one that `tune` wrote")
        read_tuning(file)


def check_methods(methods: Sequence[MethodSpec], options: Mapping[str, Any]) -> None:
    """What a run of these methods needs beside its benchmark: the LVLMs, the device, models and files."""
    models = [method for method in methods if method.control is None]
    if not models:
        return
    check_lvlms(options["lvlms"])
    check_device(options["device"])
    for method in models:
        if method.source in _TAKES_FILES:
            for role in _VISION_MODELS:
                check_vision_model(role, method.settings.get(role))
            check_references(method.settings.get("references"))
            check_editor(method.settings.get("editor"))
