"""What is wrong with the arguments of a command whatever it does: empty ones, and places to write to.

All of it is said while the command line is read, so before any work.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from medfocus_bench.errors import InputError

_WAY_OUT: Final = "name a place that can be read and written"


class Output(click.Path):
    """A file or folder that a command writes: there is a place for it, and it can be written to.

    `replaced`: what is in the folder goes. `appended`: the file is added to where it lies.
    """

    def __init__(self, kind: str, *, replaced: bool = False, appended: bool = False) -> None:
        super().__init__(file_okay=kind != "folder", dir_okay=kind == "folder", path_type=Path)
        self.is_folder, self.replaced, self.appended = kind == "folder", replaced, appended

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        return check_writable(Path(value), folder=self.is_folder, in_place=self.appended)


class FolderOrName(click.types.StringParamType):
    """A folder, or the name of something that is none: told apart by who opens it."""

    name = "text"


OUTPUT_FILE: Final = Output("file")
OUTPUT_FOLDER: Final = Output("folder")
REPLACED_FOLDER: Final = Output("folder", replaced=True)
SUMMARY_FILE: Final = Output("file", appended=True)
FOLDER_OR_NAME: Final = FolderOrName()
INPUT: Final = click.Path(path_type=Path)
INPUT_FILE: Final = click.Path(dir_okay=False, path_type=Path)
INPUT_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


class Command(click.Command):
    """A command that takes no empty argument, and writes nothing over what it reads."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        _check_none_empty(args)
        rest = super().parse_args(context, args)
        if not context.resilient_parsing:
            _check_apart(self.params, context.params)
        return rest


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def check_writable(path: Path, *, folder: bool = False, in_place: bool = False) -> Path:
    """`path`, where a file (or a folder, with what goes into it) can be written.

    A file is replaced by one that is written beside it, or `in_place`. Raises InputError that says what is in
    the way; nothing is left behind.
    """
    if path.exists():
        if path.is_dir() != folder:
            found, wanted = ("file", "folder") if folder else ("folder", "file")
            raise InputError(f"{path}: is a {found}, where a {wanted} is to be written; {_WAY_OUT}")
        if not folder and not os.access(path, os.W_OK):
            raise InputError(f"{path}: may not be written to; {_WAY_OUT}")
        if not folder and (in_place or not path.is_file()):
            return path
    elif path.is_symlink():
        raise InputError(f"{path}: is a link to nothing; {_WAY_OUT}")
    above = path if folder and path.exists() else path.parent
    while not above.exists() and not above.is_symlink():
        above = above.parent
    if not above.is_dir():
        raise InputError(f"{above}: is no folder, so that nothing can be written below it; {_WAY_OUT}")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise InputError(f"{above}: cannot be written to ({error.strerror}); {_WAY_OUT}") from None
    return path


def check_new(path: Path, *, overwrite: bool) -> None:
    """Raises InputError where something is there already that is not to be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or give --overwrite to replace it")


def _check_none_empty(args: Sequence[str]) -> None:
    """An empty argument is what an unset variable leaves, and would mean the current folder, or all."""
    for number, word in enumerate(args):
        option, equals, value = word.partition("=")
        assigned = equals and option.startswith("--") and not value.strip()
        if word.strip() and not assigned:
            continue
        before = args[number - 1] if number else ""
        what = (
            option if assigned else before if before.startswith("-") and "=" not in before else "an argument"
        )
        raise InputError(f"{what}: is empty; give a value, or leave it out")


def _check_apart(params: Iterable[click.Parameter], given: Mapping[str, Any]) -> None:
    """Refuses a place to write to that is read as well, and a file that two options write."""
    params = list(params)
    outputs = [(param.type, param, place) for param in params for place in _places(param, given, Output)]
    inputs = [(param, place) for param in params for place in _places(param, given, *_INPUTS)]
    for number, (kind, param, place) in enumerate(outputs):
        replaced = isinstance(kind, Output) and kind.replaced
        for other, read in inputs:
            if _same(place, read) or (replaced and _lies_in(read, place)):
                raise InputError(
                    f"{place}: {_shown(param)} would write over what {_shown(other)} reads; "
                    "name another place"
                )
        for _, other, written in outputs[:number]:
            if isinstance(kind, Output) and not kind.is_folder and _same(place, written):
                raise InputError(
                    f"{place}: is to be written by both {_shown(other)} and {_shown(param)}; name two places"
                )


_INPUTS: Final = (click.Path, FolderOrName)


def _places(param: click.Parameter, given: Mapping[str, Any], *kinds: type[Any]) -> Iterator[Path]:
    """The places that a parameter of one of these types was given; an output is no input, nor is a name."""
    if not isinstance(param.type, kinds) or (isinstance(param.type, Output) and Output not in kinds):
        return
    value = given.get(param.name or "")
    values = value if isinstance(value, tuple) else (value,)
    places = [Path(one) for one in values if one is not None]
    yield from (place for place in places if isinstance(param.type, click.Path) or place.exists())


def _same(place: Path, other: Path) -> bool:
    return _whole(place) == _whole(other)


def _lies_in(place: Path, folder: Path) -> bool:
    return _whole(folder) in _whole(place).parents


def _whole(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links, which is refused where it is opened
        return path.absolute()


def _shown(param: click.Parameter) -> str:
    return max(param.opts, key=len) if isinstance(param, click.Option) else str(param.human_readable_name)
