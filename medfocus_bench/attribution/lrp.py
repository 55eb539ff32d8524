"""Layer-wise relevance propagation through a decoder, as a gradient whose rules are changed.

With these rules the relevance of any tensor x inside the network is x * dy/dx: wherever a module is linear
in its input, or homogeneous with its factors held constant, input times gradient hands on exactly what it
was given. So the rules change the backward pass alone; the values of the forward pass stay as they are.

| part | rule | what that does to the gradient |
|---|---|---|
| linear map W x + b | epsilon rule with epsilon 0 | nothing; the bias keeps its share b * dy/d(Wx + b) |
| residual sum | the same | nothing |
| RMSNorm | identity rule | the normaliser is a constant |
| activation f(x) | identity rule | its slope is f(x) / x |
| product gate * up | uniform rule, half to each | half of it goes on |
| product weights @ value | uniform rule, half to each | half of it goes on |
| softmax | first-order Taylor expansion | nothing |
| product query @ key | uniform rule, half to each | half of it goes on |

Relevance that a bias or the softmax's expansion point keeps does not arrive at the input; the sum of all
relevance there tells how much does. The rules are those of Achtibat et al. 2024 (AttnLRP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from medfocus_bench.attribution.attention import heads_of
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.attribution.sign import Sign, as_evidence
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.checkpointed import checkpointed
from medfocus_bench.lvlm.trace import attention_implementation

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

AttentionRule = Literal["attnlrp", "constant"]
"""`attnlrp`: the rules above. `constant`: attention weights are constants, so that all relevance of
weights @ value goes to the values and none to queries and keys (CP-LRP: Ali et al. 2022)."""

Start = Literal["logit", "log_probability"]
"""Of the target's tokens: where relevance begins."""

_GATED: Final = ("gate_proj", "up_proj", "down_proj", "act_fn")
_LINEAR: Final = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Dropout, torch.nn.Identity)
_SMALLEST: Final = 1e-9
_WEIGHTS: Final = 2**26
"""Attention weights that a graph may hold: with all that their rules keep about 1 GiB."""
_TINY: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class LRP(Method):
    """Layer-wise relevance propagation (Bach et al. 2015), by the rules of AttnLRP (Achtibat et al. 2024).

    The relevance of each input embedding of the decoder, summed over its width, at the image's positions;
    with that of what enters there after later blocks (Qwen3-VL). One forward and one backward pass.

    `start` "logit" propagates the logits of the target's tokens, as that paper does: apart from biases and
    the softmax of attention a logit is homogeneous in the decoder's input, so its relevance can be
    conserved. The log-probability is not; its relevance is that of each logit less the mean of all logits
    by their probability, so a token that no other competes with, like the full stop of "Yes.", has next to
    none. The target "verdict" is a difference of logits either way.

    `diagnostics["conservation"]` is the relevance of all input positions, text included, over what was
    given to the last hidden states: the explained logits themselves, unless they have a bias or a soft cap.
    It is 1 with `constant` on a decoder without biases (Gemma 3). Otherwise biases (queries, keys and values
    of Qwen2.5-VL) and, with `attnlrp`, the softmax keep the rest. `diagnostics["image"]` is the part that
    arrives at the image.
    """

    name = "lrp"
    title = "LRP"
    family = "attention"
    needs = ("gradients",)
    assumes = ("image_tokens", "one_entry", "dense")
    description = "Relevance of the image tokens by AttnLRP's rules, through the whole decoder."
    paper = "https://arxiv.org/abs/2402.05602"

    attention_rule: AttentionRule = "attnlrp"
    start: Start = "logit"
    sign: Sign = "positive"

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Both rules for attention, from either start."""
        for rule in ("attnlrp", "constant"):
            for start in ("logit", "log_probability"):
                yield {"attention_rule": rule, "start": start}

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        relevance, given = input_relevance(lvlm, example, target, rule=self.attention_rule, start=self.start)
        image = relevance[example.image_positions]
        diagnostics = {}
        if given:
            diagnostics["conservation"] = float(relevance.sum()) / given
            diagnostics["image"] = float(image.sum()) / given
        saliency = example.grid.saliency(as_evidence(image, self.sign).cpu().numpy())
        return Attribution(saliency=saliency, diagnostics=diagnostics)


def input_relevance(
    lvlm: HuggingFaceLVLM,
    example: EncodedExample,
    target: Target = "response",
    *,
    rule: AttentionRule = "attnlrp",
    start: Start = "logit",
) -> tuple[torch.Tensor, float]:
    """The relevance of each position of the decoder's input, (length,), and of all its last states.

    Features of the picture that enter after a later block are input, too. Attention in steps keeps several
    (heads, length, length) of each block for the way back; where all of them are gigabytes the blocks are
    computed again there.
    """
    weights = heads_of(lvlm) * len(example.ids) ** 2 * lvlm.layers
    lean = checkpointed(lvlm.model, lvlm.decoder) if weights > _WEIGHTS else nullcontext()
    with relevance_rules(lvlm.decoder, rule), lean:
        trace = lvlm.trace(example, gradients=True)
        explained = lvlm.logit_objective if start == "logit" else lvlm.objective
        ends = [trace.embeddings, trace.rows, *trace.injected]
        gradients = lvlm.gradients(explained(example, trace, target), ends)
    at_input, at_output, *at_later = (
        (end.detach().float() * gradient.float()).sum(-1)
        for end, gradient in zip(ends, gradients, strict=True)
    )
    relevance = at_input.reshape(-1)
    for entered in at_later:
        relevance[example.image_positions] += entered.to(relevance.device)
    return relevance, float(at_output.sum())


@contextmanager
def relevance_rules(decoder: Any, rule: AttentionRule) -> Iterator[None]:
    """Changes the backward pass of a decoder to that of relevance meanwhile.

    Raises InputError for a decoder with a module that no rule is known for.
    """
    _check_modules(decoder)
    with ExitStack() as stack:
        for module in decoder.modules():
            if _is_norm(module):
                stack.enter_context(module.register_forward_hook(_constant_normaliser))
            elif _is_gated(module):
                stack.enter_context(module.act_fn.register_forward_hook(_identity_rule))
                stack.enter_context(module.down_proj.register_forward_pre_hook(_uniform_rule))
        stack.enter_context(attention_implementation(decoder, _implementation(rule)))
        yield


def halved(product: torch.Tensor) -> torch.Tensor:
    """The uniform rule for a product of two: each factor gets half of its relevance."""
    return _with_gradient_of(product, 0.5 * product)


def proportional(output: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """The identity rule for an elementwise `output` of `given`, f(x): its slope is f(x) / x, 0 at 0."""
    safe = torch.where(given.abs() < _SMALLEST, torch.inf, given)
    return _with_gradient_of(output, given * (output / safe).detach())


def relevant_attention(rule: AttentionRule) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Attention in steps, as transformers calls it, with the rules of its two products and its softmax.

    Of queries (batch, heads, rows, width), keys and values (batch, key heads, columns, width) and an
    additive mask: the mixed values (batch, rows, heads, width) and the weights (batch, heads, rows,
    columns).
    """

    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        scores = halved(query @ key.mT) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = proportional(softcap * torch.tanh(scores / softcap), scores)
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        mixed = weights.detach() @ value if rule == "constant" else halved(weights @ value)
        return mixed.transpose(1, 2).contiguous(), weights

    return attend


def _implementation(rule: AttentionRule) -> str:
    return f"medfocus_lrp_{rule}"


# Nothing uses a rule's attention until a decoder is told to.
for _rule in get_args(AttentionRule):
    AttentionInterface.register(_implementation(_rule), relevant_attention(_rule))
    AttentionMaskInterface.register(_implementation(_rule), eager_mask)


def _with_gradient_of(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`value`, to the bit, with the gradient of `other`."""
    return value.detach() + (other - other.detach())


def _constant_normaliser(module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """The forward hook of an RMSNorm, gain * x / rms(x), whose normaliser is to be a constant.

    Its gain is what it makes of ones, whether it stores that or, as Gemma does, that less one; the
    normaliser is then the ratio of the output to gain * x, which is the same along the width.
    """
    with torch.no_grad():
        gain = module.forward(torch.ones_like(args[0][..., :1, :]))
        scaled = (gain * args[0]).float()
        power = scaled.square().sum(-1, keepdim=True).clamp(min=_TINY)
        norm = (scaled * output).sum(-1, keepdim=True) / power
    return _with_gradient_of(output, (gain.float() * norm * args[0].float()).to(output.dtype))


def _identity_rule(module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return proportional(output, args[0])


def _uniform_rule(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (halved(args[0]), *args[1:])


def _is_norm(module: Any) -> bool:
    return "RMSNorm" in type(module).__name__


def _is_gated(module: Any) -> bool:
    return all(hasattr(module, part) for part in _GATED)


def _check_modules(decoder: Any) -> None:
    """Relevance that passes a module without a rule would be no relevance: LRP in name only."""
    known = {part for gated in decoder.modules() if _is_gated(gated) for part in gated.act_fn.modules()}
    for module in decoder.modules():
        # One with parameters of its own computes with them, whatever its parts do: experts in one array.
        own = (
            next(module.children(), None) is None or next(module.parameters(recurse=False), None) is not None
        )
        positions = "RotaryEmbedding" in type(module).__name__
        if own and not (_is_norm(module) or isinstance(module, _LINEAR) or positions or module in known):
            raise InputError(
                f"LRP has no rule for {type(module).__name__}, only for RMSNorm, gated MLPs, linear maps and "
                "attention; choose another method for this model"
            )
