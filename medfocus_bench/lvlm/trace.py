"""Recording passes: how many, their hidden states and attention weights, and the logits of a few tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from medfocus_bench.lvlm.head import OutputHead


@dataclass(slots=True, eq=False)
class PassCounter:
    """Passes and seconds since its construction: a forward pass of a batch of n pictures counts n."""

    forward_passes: int = 0
    backward_passes: int = 0
    _start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


Keep = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass over one example.

    `rows` (response tokens, width): the last hidden states, final norm applied, that predict each of the
    response's tokens. `last` (length, width): the same at all positions. Recordings keep the
    batch axis of the pass, so that it is the very tensor to differentiate by. `hidden[k]` (1, length, width):
    what block k, counted from 0, hands on: the input of the next one, or of the final norm. `attentions[k]`:
    of block k, (1, heads, rows, length), or what `keep` made of its item; a block that looks at the picture
    in place of the text has the picture's own positions in its last axis. `embeddings` (1, length, width):
    the input of block 0, image tokens merged in. `injected`: what is added to the outputs of blocks 0, 1, ...
    at the image tokens, (image tokens, width) each, of those that still reach the answer; empty in most
    families (`Family.injected`).
    """

    rows: torch.Tensor
    last: torch.Tensor
    embeddings: torch.Tensor
    hidden: dict[int, torch.Tensor]
    attentions: dict[int, torch.Tensor]
    injected: tuple[torch.Tensor, ...] = ()


@dataclass(slots=True, eq=False)
class Recording:
    """All that the blocks of a decoder computed in one pass; see `Trace`."""

    embeddings: torch.Tensor | None = None
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    attentions: dict[int, torch.Tensor] = field(default_factory=dict)
    injected: tuple[torch.Tensor, ...] = ()


@contextmanager
def recording(
    decoder: Any,
    hidden: Iterable[int],
    attentions: Iterable[int],
    keep: Keep | None,
    device: torch.device | None = None,
    injected: str | None = None,
    root: bool = False,
) -> Iterator[Recording]:
    """Record the pass that is made within the block; states and weights are brought to `device`, if given.

    `injected`: as of `Family`; those that enter into a graph are its leaves. With `root` a graph starts at
    the first of what is recorded: the output of a block, the input of one whose weights are, or the
    embeddings. Nothing before that is kept for a way back that nobody goes.
    """
    found = Recording()
    hidden, attentions = tuple(hidden), tuple(attentions)
    # Both counted in blocks that have been passed.
    start = min([*(layer + 1 for layer in hidden), *attentions], default=0) if root else None

    def at_decoder(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        assert injected is not None
        # A leaf before the start of the graph would have blocks kept for a way back that ends after them.
        entering = [
            features if layer < (start or 0) else _leaf(features)
            for layer, features in enumerate(kwargs.get(injected) or ())
        ]
        # After the last block the image tokens no longer reach the answer.
        found.injected = tuple(entering[: len(layers) - 1])
        return args, kwargs | {injected: entering or None}

    def at_states(passed: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
        if passed == start:
            states = states.detach().requires_grad_()
        if passed == 0:
            found.embeddings = states
        if passed - 1 in hidden:
            found.hidden[passed - 1] = states.to(device)
        return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

    def at_attention(layer: int, module: Any, args: Any, output: Any) -> None:
        weights = output[1]
        if weights is None:
            raise RuntimeError(f"block {layer} gave no attention weights")
        found.attentions[layer] = (weights if keep is None else keep(weights[0])[None]).to(device)

    layers = decoder.layers
    # Features that enter between two blocks are part of the state that the first one hands on.
    readers = [*layers, decoder.norm]
    with ExitStack() as stack:
        if injected is not None:
            stack.enter_context(decoder.register_forward_pre_hook(at_decoder, with_kwargs=True))
        for passed in {0, start or 0, *(layer + 1 for layer in hidden)}:
            hook = partial(at_states, passed)
            stack.enter_context(readers[passed].register_forward_pre_hook(hook, with_kwargs=True))
        for layer in attentions:
            attention = attention_of(layers[layer])
            stack.enter_context(attention.register_forward_hook(partial(at_attention, layer)))
        yield found


def attention_of(block: Any) -> Any:
    """The attention of a block: to the text, or in its place to the picture."""
    return block.self_attn if hasattr(block, "self_attn") else block.cross_attn


def _leaf(features: torch.Tensor) -> torch.Tensor:
    """The same values as a leaf to differentiate by, where a graph is recorded and they have none."""
    if features.requires_grad or not torch.is_grad_enabled():
        return features
    return features.detach().requires_grad_()


@contextmanager
def recorded_logits(model: Any, head: OutputHead, ids: Sequence[int]) -> Iterator[list[torch.Tensor]]:
    """Record the logits of the tokens `ids` at every step of generation within the block.

    Each step (pictures, len(ids)), float32, on the CPU: `head` of what enters the model's own head, which
    rounds its logits to the model's dtype; NaN where any logit of the vocabulary is not finite, since greedy
    decoding takes that token. The library's record is of the whole vocabulary: 300 tokens to 16 pictures are
    5 GB of it.
    """
    steps: list[torch.Tensor] = []
    wanted = torch.tensor(list(ids), device=head.weight.device)

    def hook(module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        finite = output[:, -1].isfinite().all(-1, keepdim=True)
        values = head.logits(args[0][:, -1], wanted)
        steps.append(values.where(finite, torch.nan).cpu())

    with model.get_output_embeddings().register_forward_hook(hook):
        yield steps


@contextmanager
def attention_implementation(decoder: Any, name: str) -> Iterator[None]:
    """Use another implementation of attention within the block."""
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation(name)
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)
