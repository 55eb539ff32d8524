"""Options that several commands share, and the checks of every command's arguments.

Empty arguments and places that cannot be written are refused while the command line is read, before any work.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import click

from medfocus_bench.data.questions import DECODINGS, GREEDY
from medfocus_bench.engine.devices import AUTO, DTYPES, QUANTISATIONS
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, PROTOCOLS, RESAMPLES
from medfocus_bench.lvlm.protocol import AUTO_BATCH

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

BENCHMARK_HELP = "Folder with <split>.parquet files, `phantom`, or medfocus/cxr-causal[@REVISION] on the Hub."
SEEDS: Final = click.IntRange(0, 2**32 - 1)
MODES: Final = ("direct", "reasoning")
CORES: Final = min(os.cpu_count() or 1, 8)
"""Workers of commands that score and draw."""
_WAY_OUT: Final = "name a place that can be read and written"


class Output(click.Path):
    """A file or folder that a command writes; the place is checked while the command line is read.

    `replaced`: the old content of the folder goes. `appended`: the file is added to in place.
    """

    def __init__(self, kind: str, *, replaced: bool = False, appended: bool = False) -> None:
        super().__init__(file_okay=kind != "folder", dir_okay=kind == "folder", path_type=Path)
        self.is_folder, self.replaced, self.appended = kind == "folder", replaced, appended

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        return check_writable(Path(value), folder=self.is_folder, in_place=self.appended)


class FolderOrName(click.types.StringParamType):
    """A folder, or the name of something that is not one, such as a registered benchmark."""

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
    """A command that refuses empty arguments, and outputs that lie over its inputs."""

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
    """Return `path`, where a file (or a folder, with its files) can be written; leave nothing behind.

    A file is replaced by one that is written beside it, unless it is added to `in_place`. Raises InputError
    that says what is in the way.
    """
    if path.exists():
        if path.is_dir() != folder:
            found, expected = ("file", "folder") if folder else ("folder", "file")
            raise InputError(f"{path}: is a {found}, where a {expected} is to be written; {_WAY_OUT}")
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
        raise InputError(f"{above}: is not a folder, so that nothing can be written below it; {_WAY_OUT}")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise InputError(f"{above}: cannot be written to ({error.strerror}); {_WAY_OUT}") from None
    return path


def check_new(path: Path, *, overwrite: bool) -> None:
    """Raise InputError where something exists already that is not to be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or give --overwrite to replace it")


def check_root(root: Path | None) -> None:
    """Raise InputError where --root is given and is not a folder."""
    if root is not None and not root.is_dir():
        raise InputError(
            f"--root {root}: is not a folder; give the one that holds your copies of the sources"
        )


def _check_none_empty(args: Sequence[str]) -> None:
    """An unset variable leaves an empty argument, which would mean the current folder, or all."""
    for before, word in zip(("", *args), args, strict=False):
        option, equals, value = word.partition("=")
        assigned = equals and option.startswith("--") and not value.strip()
        if assigned or not word.strip():
            named = before if before.startswith("-") and "=" not in before else "an argument"
            raise InputError(f"{option if assigned else named}: is empty; give a value, or leave it out")


def _check_apart(params: Iterable[click.Parameter], given: Mapping[str, Any]) -> None:
    """Refuse a place to write to that is read as well, and a file that two options write."""
    places = [(param, place) for param in params for place in _places(param, given.get(param.name or ""))]
    for (param, place), (other, read) in permutations(places, 2):
        if not isinstance(param.type, Output):
            continue
        out, path = _resolved(place), _resolved(read)
        if isinstance(other.type, Output):
            if out == path and not param.type.is_folder:
                both = f"{_shown(param)} and {_shown(other)}"
                raise InputError(f"{place}: is to be written by both {both}; name two places")
        elif out == path or (param.type.replaced and out in path.parents):
            raise InputError(
                f"{place}: {_shown(param)} would write over what {_shown(other)} reads; name another place"
            )


def _places(param: click.Parameter, value: Any) -> Iterator[Path]:
    """The places that a parameter names; the name of a benchmark does not count."""
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(param.type, click.Path | FolderOrName) and one is not None:
            place = Path(one)
            if isinstance(param.type, click.Path) or place.exists():
                yield place


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links, which is refused where it is opened
        return path.absolute()


def _shown(param: click.Parameter) -> str:
    return max(param.opts, key=len) if isinstance(param, click.Option) else str(param.human_readable_name)


def benchmark_option(**more: Any) -> Decorator:
    """--benchmark; `more` are further arguments of the option."""
    return click.option(
        "--benchmark", "-b", metavar="BENCHMARK", type=FOLDER_OR_NAME, **{"help": BENCHMARK_HELP, **more}
    )


def seed_option(about: str | None = None) -> Decorator:
    """--seed."""
    return click.option("--seed", default=0, show_default=True, type=SEEDS, help=about)


def engine_options(workers: int = 1, default: str = "") -> Decorator:
    """--engine, --workers, --address, --gpus-per-worker; the command is given the open `engine`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_engine(
            *args: Any, engine: str | None, address: str | None, gpus_per_worker: float, **options: Any
        ) -> Any:
            from medfocus_bench.engine.choose import open_engine

            given, device = options.pop("workers"), options.get("device", "cpu")
            count = given or (1 if engine == "in-process" else workers)
            with open_engine(
                engine, count, device=device, address=address, gpus_per_worker=gpus_per_worker
            ) as opened:
                return command(*args, engine=opened, **options)

        for option in (
            click.option(
                "--gpus-per-worker", default=0.0, type=click.FloatRange(0, 64), help="With --engine ray."
            ),
            click.option(
                "--address", metavar="HOST:PORT", help="Of a running Ray cluster. Default: this machine."
            ),
            click.option(
                "--workers",
                type=click.IntRange(1, 1024),
                show_default=default or str(workers),
                help="Units that are worked on at a time, on one thread each.",
            ),
            click.option(
                "--engine",
                type=click.Choice(("in-process", "local", "ray")),
                help="Where they are worked on. Default: in-process, or local processes for several workers.",
            ),
        ):
            option(with_engine)
        return with_engine

    return decorate


def limit_option(what: str = "samples of every LVLM and split") -> Decorator:
    """--limit."""
    return click.option("--limit", type=click.IntRange(1), help=f"Only the first {what}.")


def root_option(about: str = "Folder of your copies of the sources.", *, required: bool = False) -> Decorator:
    """--root."""
    return click.option("--root", required=required, type=INPUT_FOLDER, help=about)


def segmenter_option(about: str) -> Decorator:
    """--segmenter."""
    return click.option(
        "--segmenter", type=FOLDER_OR_NAME, help=f"MedSAM (folder, Hub id or phantom_sam){about}"
    )


def split_commas(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Split values at commas. Raises InputError for commas alone, which would mean all."""
    for value in values:
        if not value.strip(", "):
            raise InputError(f"{option.opts[0]} {value}: names nothing; give a name, or leave it out")
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def lvlms_option(
    about: str = "Registered LVLM, checkpoint folder or Hub id. Default: all of the benchmark.",
) -> Decorator:
    """--lvlm."""
    return click.option(
        "--lvlm", "lvlms", multiple=True, metavar="KEY[,KEY]", callback=split_commas, help=about
    )


any_version_option: Decorator = click.option(
    "--any-version", is_flag=True, help="Accept a submission to another version of the benchmark."
)
format_option: Decorator = click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(("table", "markdown", "json"))
)
resamples_option: Decorator = click.option(
    "--resamples", default=RESAMPLES, show_default=True, type=click.IntRange(MIN_RESAMPLES, 1_000_000)
)
tuned_option: Decorator = click.option(
    "--tuned", multiple=True, type=INPUT_FILE, help="File of `tune` whose settings hold; may be repeated."
)


def scoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--protocol, --seed, --resamples."""
    protocol = click.option("--protocol", default="standard", show_default=True, type=click.Choice(PROTOCOLS))
    return protocol(seed_option()(resamples_option(command)))


def _known_dtype(context: click.Context, option: click.Parameter, name: str) -> str:
    if name not in (AUTO, *DTYPES):
        known = ", ".join((AUTO, *DTYPES))
        raise InputError(f"--dtype {name}: unknown type of weights; give one of {known}")
    return name


DEVICES: Final = "cpu, cuda, cuda:1, mps, ...; auto: the best there is; auto-map: all GPUs"


TYPES: Final = "float32, bfloat16 or float16; auto: bfloat16 on a GPU that has it, else float32"


def device_options(
    device: str = f"{DEVICES}.", dtype: str = f"Of the weights: {TYPES}.", default: str = AUTO
) -> Decorator:
    """--device, --dtype with its default."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--dtype", default=default, show_default=True, callback=_known_dtype, help=dtype
        )(command)
        return click.option("--device", default=AUTO, show_default=True, help=device)(command)

    return decorate


def decoding_option(default: str | None = GREEDY, about: str = "") -> Decorator:
    """--decoding; `about` says what holds by default where `default` is None."""
    return click.option(
        "--decoding",
        default=default,
        show_default=default is not None,
        type=click.Choice(DECODINGS),
        help="How an LVLM writes: greedily, or with the penalties of its checkpoint, as the paper's released "
        f"code.{about}",
    )


def batch_option(auto: int = AUTO_BATCH) -> Decorator:
    """--batch; `auto` is the number that it begins with by itself."""

    def pictures(context: click.Context, option: click.Parameter, text: str) -> int:
        if text == "auto":
            return auto
        if not re.fullmatch(r"\d{1,4}", text) or int(text) == 0:
            raise InputError(f"--batch {text}: give a number of pictures from 1 to 9999, or auto")
        return int(text)

    return click.option(
        "--batch",
        default="auto",
        show_default=True,
        metavar="N|auto",
        callback=pictures,
        help="Pictures that go through an LVLM together, at most; half as many where they do not fit. "
        f"auto begins with {auto}.",
    )


def _two_numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}),(\d{1,9})", text)
    if found is None or not 0 < int(found[1]) <= int(found[2]):
        raise InputError(f"--pixels {text}: give the least and the most, as 3136,1003520")
    return int(found[1]), int(found[2])


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--seed, --device, --dtype, --quantise, --framing, --pixels, --batch."""
    quantise = click.option(
        "--quantise",
        type=click.Choice(QUANTISATIONS),
        help="Hold weights in 8 or 4 bits (bitsandbytes), for methods without gradients.",
    )
    framing = click.option(
        "--framing",
        default="square",
        show_default=True,
        type=click.Choice(("square", "native")),
        help="Give the processor the padded square of the model frame, or the picture as it is.",
    )
    pixels = click.option(
        "--pixels",
        metavar="MIN,MAX",
        callback=_two_numbers,
        help="Pixels that a processor makes of a picture, where its family takes any size. Default: those of "
        "the checkpoint, within the family's.",
    )
    return seed_option()(device_options()(quantise(framing(pixels(batch_option()(command))))))


def settings_of(assignments: Iterable[str], option: str) -> dict[str, str]:
    """Parse FIELD=VALUE of a repeated option. Raises InputError for other text and for repeated fields."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field.isidentifier():
            raise InputError(f"{option} {assignment}: give FIELD=VALUE")
        if field in settings:
            raise InputError(f"{option} {field}: is given twice")
        settings[field] = value
    return settings
