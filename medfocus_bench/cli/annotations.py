"""Text for the log of a job on GitHub, whose runner obeys lines of what is printed."""

from __future__ import annotations

import os
from typing import Final

_COMMANDS: Final = (("::", ": :"), ("##[", "# #["))
"""How commands start: the one at the start of a line, the other anywhere in it."""


def disarmed(text: str) -> str:
    """`text` as it is; in a job without anything that its runner would take for a command."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return text
    for command, harmless in _COMMANDS:
        while command in text:  # of three colons two are left
            text = text.replace(command, harmless)
    return text
