"""The Hub client: quiet, used only when the Hub answers, with errors in plain sentences."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from medfocus_bench._version import __version__
from medfocus_bench.errors import BenchmarkError, require

ANSWER_SECONDS: Final = 2.0
"""How long the Hub may take to answer at all before it counts as out of reach."""


def hub_client() -> Any:
    """The `huggingface_hub` package. Raises MissingExtraError where it is not installed."""
    for part in ("constants", "errors", "utils"):
        require(f"huggingface_hub.{part}")
    return require("huggingface_hub")


def hub_api() -> Any:
    return hub_client().HfApi(library_name="medfocus-bench", library_version=__version__)


def hub_answers() -> bool:
    """Whether the Hub answers within `ANSWER_SECONDS`; any answer counts.

    Asked before the client is, which would wait and retry for much longer. False in the client's own offline
    mode. The wait is bounded by a thread, since looking up a name has no time limit of its own.
    """
    constants = hub_client().constants
    if constants.HF_HUB_OFFLINE or not str(constants.ENDPOINT).startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/datasets?limit=1", method="HEAD")  # noqa: S310
    answers: SimpleQueue[bool] = SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310
                answers.put(True)
        except urllib.error.HTTPError:
            answers.put(True)
        except (OSError, ValueError):
            answers.put(False)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS + 0.5)
    except Empty:
        return False


@contextmanager
def hub_if_it_answers(source: str | Path) -> Iterator[None]:
    """Read `source` from the cache alone within the block if the Hub does not answer.

    The client would else wait and retry for half a minute, with a line for each try. A folder needs no Hub.
    """
    if Path(source).exists() or hub_answers():
        yield
        return
    constants = hub_client().constants
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the client's progress bars and retry notes off the terminal."""
    client = hub_client()
    logging = client.utils.logging
    verbosity = logging.get_verbosity()
    had_bars = not client.utils.are_progress_bars_disabled()
    forced = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") is not None
    logging.set_verbosity_error()
    if had_bars and not forced:
        client.utils.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars and not forced:
            client.utils.enable_progress_bars()


@contextmanager
def hub_errors(name: str, *, retry: str) -> Iterator[None]:
    """Turn errors of the client into BenchmarkErrors that name the repository and the way out.

    `retry` says what a second run does after a broken connection.
    """
    try:
        yield
    except Exception as error:
        # A failed upload of a large file comes wrapped in a RuntimeError.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        sentence = _sentence(cause, retry)
        if sentence is None:
            raise
        raise BenchmarkError(f"{name}: {sentence}") from None


def _sentence(error: BaseException, retry: str) -> str | None:
    """The client's error as a sentence; None for an error that does not come from the Hub."""
    errors = hub_client().errors
    # Its errors descend from those of the HTTP library it is built on, which changes with its version.
    transport = next(base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    known = (
        (errors.GatedRepoError, "is gated; ask for access on its page on the Hub"),
        (
            errors.RepositoryNotFoundError,
            "is not on the Hub, or is private; if it is, log in with `hf auth login` or set HF_TOKEN",
        ),
        (errors.RevisionNotFoundError, "has no such revision; give a tag such as v1.0.0"),
    )
    for kind, sentence in known:
        if isinstance(error, kind):
            return sentence
    said = (str(getattr(error, "server_message", None) or error).splitlines() or [""])[0][:200]
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return f"the Hub refuses ({status}); log in with `hf auth login` as one who may, or set HF_TOKEN"
        return f"the Hub says {status}: {said}; {retry}"
    if isinstance(error, (transport, OSError)):
        return f"the connection broke off ({said or type(error).__name__}); {retry}"
    return None
