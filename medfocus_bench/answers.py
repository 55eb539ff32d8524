"""What a model answered: the verdict in its text, and the log-odds behind it."""

from __future__ import annotations

import re
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["yes", "no"]

MAX_CHARACTERS: Final = 100_000

# Every repetition is bounded: a model's text must not be able to make the parser slow.
_OPEN = r"[\s:\"'(\[{]{0,8}"
_CONCLUSION = re.compile(
    r"\b(?:answer|conclusion|verdict)\b(?:\s{1,4}to\s{1,4}(?:the|this|that|your)\s{1,4}question\b)?"
    r"[\s\"')\]}]{0,4}(?:is|would be|:|=|-|\u2013|\u2014)"
    r"(?:[\s,]{1,4}(?:so|thus|hence|therefore|(?:most )?likely|probably|clearly)\b,?)?"
    + _OPEN
    + r"(yes|no)\b(?P<rest>[^.!?\n]{0,40})"
)
_ALONE = re.compile(
    r"(?:^|[.!?:\n])[ \t]{0,8}(?:(?:so|thus|hence|therefore|overall)[\s,]{1,4})?"
    r"(yes|no)(?:[ \t]{0,8}(?=[.!,;:\n)\u2013\u2014]|$)|[ \t]{1,8}(?=-))"
)
_WRAPPING = re.compile(r"\b(?:boxed|text)\s{0,4}(?=\{)")
_TAG = re.compile(r"</?[a-z]{1,20}>")
_BOTH = re.compile(r"\s{0,4}(?:/|or\b|and\b)\s{0,4}(?:yes|no)\b")


def parse_verdict(text: str) -> Verdict | None:
    """The answer that `text` arrives at; None where it states none.

    The conclusion decides: the last "final answer: ...", "the answer is ..." or the like; without one, the
    last "yes" or "no" that stands alone as a sentence or in a tag, or opens one before a comma or a dash
    ("No, the lungs are clear"). A "no" within a statement ("No effusion is seen") is a finding, not a
    verdict. "Yes or no" and a conclusion that names both are no verdict.
    """
    plain = re.sub(r"[*_`#$\\]+", "", text[-MAX_CHARACTERS:].lower()).replace("\u2019", "'")
    plain = _TAG.sub("\n", _WRAPPING.sub("", plain))
    concluded = list(_CONCLUSION.finditer(plain))
    if concluded:
        last = concluded[-1]
        return None if _BOTH.match(last["rest"]) else _as_verdict(last[1])
    alone = _ALONE.findall(re.sub(r"[\"'()\[\]{}]", " ", plain))
    return _as_verdict(alone[-1]) if alone else None


def _as_verdict(word: str) -> Verdict:
    return "yes" if word == "yes" else "no"


def log_odds(logits: npt.ArrayLike, yes: npt.ArrayLike, no: npt.ArrayLike) -> float:
    """Log-odds of yes over no from the logits (vocabulary) of one position, in float32.

    `yes` and `no` are the ids of all tokens that spell that answer ("Yes", " yes", ...): their probabilities
    are added. Raises ValueError if either is empty or a logit is not finite.
    """
    values = np.asarray(logits, dtype=np.float32)
    chosen = [values[np.asarray(ids, dtype=np.intp)] for ids in (yes, no)]
    if any(part.size == 0 or not np.isfinite(part).all() for part in chosen):
        raise ValueError("log-odds need finite logits of at least one token for each answer")
    return float(np.logaddexp.reduce(chosen[0]) - np.logaddexp.reduce(chosen[1]))
