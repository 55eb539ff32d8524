"""Where the parts of a diffusion model come from: local folders, or the Hub at a pinned commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from medfocus_bench.counterfactual.editors import EditorError

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_WANTED: Final = ("config.json", "*.safetensors", "*.safetensors.index.json", "vocab.txt", "tokenizer*.json")
"""Configurations, weights and vocabularies. No code is fetched, so that none can run."""


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One part of a model: a local folder, or a Hub repository with the commit that pins it.

    Written as `FOLDER`, `owner/name@COMMIT`, or, unpinned, `owner/name` or `owner/name@BRANCH`. `subfolder`
    is where its files lie in the repository; a local folder may hold them there or directly.
    """

    place: str
    revision: str | None = None
    subfolder: str = ""

    @classmethod
    def parse(cls, text: str, subfolder: str = "") -> Self:
        """The part that a setting names. Raises EditorError for anything but a folder or a Hub id."""
        if Path(text).is_dir():
            return cls(text, None, subfolder)
        place, _, revision = text.partition("@")
        if not _HUB_ID.fullmatch(place) or text.endswith("@"):
            raise EditorError(
                f"weights {text!r}: this is neither a folder nor a Hub id with a commit (owner/name@0123...)"
            )
        return cls(place, revision or None, subfolder)

    @property
    def is_local(self) -> bool:
        return Path(self.place).is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether it is what it was when it was chosen: a local folder, or a full commit of the Hub."""
        return self.is_local or bool(self.revision and _COMMIT.fullmatch(self.revision))

    def fetch(self) -> FetchedPart:
        """The part on this machine; a Hub part is downloaded, or found in the cache of huggingface_hub.

        Raises EditorError where it cannot be had.
        """
        if self.is_local:
            folder = Path(self.place)
            inner = folder / self.subfolder
            folder = inner if (inner / "config.json").is_file() else folder
            return FetchedPart(_complete(folder), None)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

        prefix = f"{self.subfolder}/" if self.subfolder else ""
        try:
            snapshot = snapshot_download(
                self.place, revision=self.revision, allow_patterns=[prefix + name for name in _WANTED]
            )
        except GatedRepoError:
            raise EditorError(
                f"{self.place}: its terms have to be accepted first, on https://huggingface.co/{self.place}; "
                "then log in with `hf auth login`"
            ) from None
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise EditorError(
                f"{self.place}: the weights cannot be fetched ({str(error).splitlines()[0]}); where there is "
                "no network, download them elsewhere and give the folder"
            ) from None
        return FetchedPart(_complete(Path(snapshot) / self.subfolder), Path(snapshot).name)


@dataclass(frozen=True, slots=True)
class FetchedPart:
    """The folder of a part, and the commit of the Hub that it is; None for a local one."""

    folder: Path
    commit: str | None

    def fingerprint(self) -> str:
        """The identity of the part: its commit, or a hash of all files that are read of a local folder."""
        if self.commit is not None:
            return self.commit
        digest = sha256()
        for path in sorted({path for name in _WANTED for path in self.folder.glob(name)}):
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def _complete(folder: Path) -> Path:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise EditorError(f"{folder}: holds no config.json with weights as *.safetensors")
    return folder
