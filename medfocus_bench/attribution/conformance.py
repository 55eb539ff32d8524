"""Whether an LVLM does what methods take for granted: all checks, with that of conserved relevance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from medfocus_bench.attribution.lrp import LRP, input_relevance
from medfocus_bench.attribution.protocol import refuse_family, refuse_quantised
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.conformance import CHECKS, Check, examine
from medfocus_bench.lvlm.conformance.result import CheckResult, failed, not_applicable, passed
from medfocus_bench.lvlm.conformance.subject import QUESTION, SHAPES, Subject, smooth_picture
from medfocus_bench.lvlm.protocol import NotFiniteError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

_LOST: Final = {torch.float32: 1e-3}
_LOST_HALF: Final = 0.05


def relevance(subject: Subject) -> CheckResult:
    """With attention held constant, relevance at the decoder's input and at its biases is all that was given.

    It is not where a part of the picture enters on another way, or where a module has no rule: then LRP is
    wrong without an error. The loss counts relative to the sum of absolute relevance, since what was
    given is a difference and may be next to nothing.
    """
    lvlm = subject.lvlm
    try:
        refuse_family([LRP()], lvlm.family, lvlm.key)
        refuse_quantised([LRP()], lvlm.quantised)
    except InputError as refusal:
        return not_applicable(str(refusal))
    shares = []
    for framing, framed in subject.framings.items():
        example = framed.encode(smooth_picture(*SHAPES[framing]), QUESTION, "Yes.")
        try:
            with _kept_by_biases(framed.decoder) as kept:
                found, given = input_relevance(framed, example, rule="constant")
        except NotFiniteError:
            raise
        except InputError as refusal:
            return not_applicable(str(refusal))
        arrived, biases = float(found.sum()), sum(float(share) for share in kept)
        lost = abs(arrived + biases - given) / float(found.abs().sum())
        if lost > _LOST.get(framed.model.dtype, _LOST_HALF):
            return failed(
                f"of relevance {given:.4g}, {arrived:.4g} arrives at the input and {biases:.4g} at biases "
                f"({framing} framing): LRP would be wrong without an error; if the picture enters the "
                "decoder elsewhere, too, say so in injected or lacks of the family"
            )
        shares.append(f"{(arrived + biases) / given:.4f}" if given else "all")
    with_biases = " and the biases" if kept else ""
    return passed(f"{' and '.join(shares)} of the relevance arrives at the input{with_biases}")


@contextmanager
def _kept_by_biases(decoder: Any) -> Iterator[list[torch.Tensor]]:
    """The relevance that each bias of a linear map keeps, in the backward pass within the block."""
    kept: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: kept.append((gradient.float() * module.bias.float()).sum().cpu())
            )

    with ExitStack() as stack:
        for module in decoder.modules():
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                stack.enter_context(module.register_forward_hook(hook))
        yield kept


ALL_CHECKS: Final[Mapping[str, Check]] = {**CHECKS, "relevance": relevance}


def check_lvlm(lvlm: HuggingFaceLVLM) -> Iterator[CheckResult]:
    """The results of all checks of an LVLM, one after the other; see docs/add-an-lvlm.md.

    Raises OutOfMemoryError where the device has no room for two pictures.
    """
    return examine(Subject(lvlm), ALL_CHECKS)
