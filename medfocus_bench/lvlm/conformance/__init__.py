"""Whether an LVLM does what methods take for granted: each check one function, with a sentence for an answer.

A wrong order of patches, a forgotten type id or a doubled start token raises no error: the maps are just
wrong. The oracle is the plain way with transformers: its processor, its `generate`, and the embeddings that
enter its decoder. Nothing is known of the model but its files, so that tiny random checkpoints pass as well
as trained ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from medfocus_bench.lvlm.conformance import canvas, passes, places
from medfocus_bench.lvlm.conformance.result import CheckResult, failed
from medfocus_bench.lvlm.conformance.subject import Subject
from medfocus_bench.lvlm.fitting import OutOfMemoryError, is_out_of_memory

Check = Callable[[Subject], CheckResult]

CHECKS: Final[Mapping[str, Check]] = {
    "picture": canvas.picture,
    "normalisation": canvas.normalisation,
    "inverse": canvas.inverse,
    "padding": canvas.padding,
    "edges": canvas.edges,
    "prompt": places.prompt,
    "image tokens": places.image_tokens,
    "positions": places.positions,
    "scores": passes.scores,
    "decoding": passes.decoding,
    "batch": passes.batch,
    "determinism": passes.determinism,
}
"""By name, in the order in which a fault is best mended."""


def examine(subject: Subject, checks: Mapping[str, Check] = CHECKS) -> Iterator[CheckResult]:
    """The result of each check. One that cannot come to its end has failed, with the error's own sentence.

    Raises OutOfMemoryError where the device has no room for two pictures.
    """
    for name, check in checks.items():
        yield replace(_finished(check, subject), name=name)


def _finished(check: Check, subject: Subject) -> CheckResult:
    try:
        return check(subject)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{subject.lvlm.key}: there is no memory for the checks, of two pictures at most ({reason}): "
                "try --dtype bfloat16 or another --device"
            ) from error
        return failed(f"stops with an error ({type(error).__name__}): {reason}")
