"""The one exception family of the package.

Every error that a user can cause is an `InputError`: one sentence that names the file, the place in it
and the way out. The command line prints it without a traceback and exits with status 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import ValidationError


class MedFocusError(Exception):
    """Base class of the errors of this package."""


class InputError(MedFocusError):
    """An error in the user's input.

    `problems` holds every problem found, one sentence each; `str(error)` is the first of them, with a
    count of the rest.

    >>> import medfocus_bench as mb
    >>> try:
    ...     mb.load_method("gradcam")
    ... except mb.InputError as error:
    ...     print(error.problems[0][:20])
    no method 'gradcam';
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        first, rest = self.problems[0], len(self.problems) - 1
        return (
            first
            if rest == 0
            else f"{first} (and {rest} more; `medfocus-bench validate SUBMISSION` lists all)"
        )


def sentence(error: ValidationError) -> str:
    """The first fault that pydantic found, `/WHERE: MESSAGE`, with a count of the rest.

    The place is left out for a fault of the whole value, and cut where a key is long.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = "/".join(str(step)[:100] for step in first["loc"])
    rest = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return (f"/{where}: " if where else "") + first["msg"] + rest


class BenchmarkError(InputError):
    """A benchmark folder or name that cannot be used."""


EXTRA_OF: Final = {
    "torch": "attribution",
    "transformers": "attribution",
    "tokenizers": "attribution",
    "pydicom": "dicom",
    "pylibjpeg": "dicom",
    "diffusers": "radedit",
    "ot": "medfocus",
    "skimage": "medfocus",
    "SimpleITK": "medfocus",
    "datasets": "hub",
    "huggingface_hub": "hub",
    "ray": "cluster",
    "accelerate": "gpu",
    "bitsandbytes": "gpu",
    "peft": "peft",
}
"""Which extra of the package brings a library, by the name that is imported."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """A sentence that names the extra which brings a missing library; None where none does."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRA_OF:
        return None
    return f"this needs {library}: install the extra with pip install 'medfocus-bench[{EXTRA_OF[library]}]'"


class MissingExtraError(InputError):
    """A library that an extra of the package brings is not installed."""


def require(library: str) -> Any:
    """The library of this name. Raises MissingExtraError that names the extra if it is not installed."""
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_extra(error) or str(error)) from None


def first_line(error: BaseException) -> str:
    """The words of a library about an error, cut to a part of a sentence; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


class Notice(UserWarning):
    """A message for the user that is not an error; the command line prints it as one line."""


class OfflineWarning(Notice):
    """The Hub cannot be reached, and a local copy is used."""


class PictureWarning(Notice):
    """A readable picture of doubtful quality."""


class SubmissionError(InputError):
    """A submission that cannot be scored."""


class UnavailableError(InputError):
    """The benchmark lacks requested data, such as pixels or anatomy."""
