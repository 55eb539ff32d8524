"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check: one sentence with the figure, or with what is wrong and where to look.

    `name`: of the check, as the runner knows it.
    """

    outcome: Outcome
    sentence: str
    name: str = ""


def passed(sentence: str) -> CheckResult:
    return CheckResult("passed", sentence)


def failed(sentence: str) -> CheckResult:
    return CheckResult("failed", sentence)


def not_applicable(sentence: str) -> CheckResult:
    return CheckResult("not applicable", sentence)
