"""The answer of a model: the verdict in its text, and the log-odds behind it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medfocus_bench.verdicts import Verdict, stated_verdict


def parse_verdict(text: str) -> Verdict | None:
    r"""The answer that `text` arrives at; None where it states none.

    The text is read in compatibility form (`text.plain`), without markup and without what stands in think
    blocks; of more than 100,000 characters, the end. The highest of three ranks decides:

    1. A conclusion by name: "final answer: yes", "the answer is (A) Yes", `\boxed{Yes}`, `{"answer": "yes"}`,
       "I would say yes"; and a correction: "wait, no".
    2. A yes or no that is a sentence, opens one or follows a comma: "Yes the heart is enlarged", "Based on
       the image, no."
    3. A value: "cardiomegaly: yes", a cell of a table. All values have to agree.

    The last of its rank wins: who reasons may change their mind. But a yes and a no of one rank without a
    word between them ("Yes. No.", "yes and no") are unreadable, and then no lower rank is asked. A "no"
    within a statement ("Answer: no effusion is seen") is a finding; a question ("Yes or no?"), a condition
    ("yes if ...") and a denial ("I cannot say yes") state nothing. Of a text that goes on to a question of
    its own, the part before it is read. Other languages are not read.
    """
    stated = stated_verdict(text)
    return None if stated is None else stated.verdict


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
