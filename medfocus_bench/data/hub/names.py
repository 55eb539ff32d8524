"""What a user writes for a dataset on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from medfocus_bench.data.hub.layout import DATASET, DEFAULT_CONFIG
from medfocus_bench.errors import BenchmarkError

SCHEME: Final = "hf://"

REPO_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"

_NAME: Final = re.compile(
    rf"(hf://(datasets/)?)?(?P<repo>{REPO_PATTERN})(@(?P<revision>{REVISION_PATTERN}))?"
    r"(/(?P<config>[a-z0-9][a-z0-9_]{0,63}))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A dataset repository, a revision of it (None: the newest) and a config."""

    repo: str
    revision: str | None = None
    config: str = DEFAULT_CONFIG

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_published(self) -> bool:
        """Whether this is the published benchmark, of which one version is part of the package."""
        return self.repo == DATASET


def hub_name(text: str) -> HubName | None:
    """What `text` names on the Hub; None if it is no such name.

    `medfocus/cxr-causal` is the published benchmark. Any other repository needs `hf://` before its name, so
    that the misspelt path of a folder is never asked for on the Hub. `@v1.0.0` after the name pins a
    revision, `/imagenome` a config.
    """
    match = _NAME.fullmatch(text)
    if match is not None and (text.startswith(SCHEME) or match["repo"] == DATASET):
        return HubName(match["repo"], match["revision"], match["config"] or DEFAULT_CONFIG)
    if text.startswith(SCHEME):
        raise BenchmarkError(
            f"{text[:200]}: is no name on the Hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    return None
