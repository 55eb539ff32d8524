"""Recording passes: hidden states, attention weights, and the logits of a few tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from medfocus_bench.lvlm.head import OutputHead

Keep = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass over one example.

    `rows` (response tokens, width): the last hidden states, final norm applied, that predict each of the
    response's tokens. `last` (length, width): the same at all positions. Recordings keep the
    batch axis of the pass, so that it is the very tensor to differentiate by. `hidden[k]` (1, length, width):
    the output of block k, counted from 0. `attentions[k]`: of block k, (1, heads, length, length), or what
    `keep` made of its item. `embeddings` (1, length, width): the input of block 0, image tokens merged in.
    """

    rows: torch.Tensor
    last: torch.Tensor
    embeddings: torch.Tensor
    hidden: dict[int, torch.Tensor]
    attentions: dict[int, torch.Tensor]


class Recorder:
    """Hooks on a decoder that record one pass."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.embeddings: torch.Tensor | None = None
        self.hidden: dict[int, torch.Tensor] = {}
        self.attentions: dict[int, torch.Tensor] = {}

    @contextmanager
    def recording(
        self, hidden: Iterable[int], attentions: Iterable[int], keep: Keep | None
    ) -> Iterator[None]:
        layers = self.decoder.layers
        with ExitStack() as stack:

            def on(module: Any, hook: Callable[..., None], **options: Any) -> None:
                stack.callback(module.register_forward_hook(hook, **options).remove)

            before = layers[0].register_forward_pre_hook(self._embedded, with_kwargs=True)
            stack.callback(before.remove)
            for layer in hidden:
                on(layers[layer], self._hidden_hook(layer))
            for layer in attentions:
                on(layers[layer].self_attn, self._attention_hook(layer, keep))
            yield

    def _embedded(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.embeddings = args[0] if args else kwargs["hidden_states"]

    def _hidden_hook(self, layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            self.hidden[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def _attention_hook(self, layer: int, keep: Keep | None) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            weights = output[1]
            if weights is None:
                raise RuntimeError(f"block {layer} gave no attention weights: they need eager attention")
            self.attentions[layer] = weights if keep is None else keep(weights[0])[None]

        return hook


@contextmanager
def recorded_logits(model: Any, head: OutputHead, ids: Sequence[int]) -> Iterator[list[torch.Tensor]]:
    """Record the logits of the tokens `ids` at every step of generation within the block.

    Each step (pictures, len(ids)), float32, on the CPU: `head` of what enters the model's own head, which
    rounds its logits to the model's dtype. The library's record is of the whole vocabulary: 300 tokens to 16
    pictures are 5 GB of it.
    """
    steps: list[torch.Tensor] = []
    wanted = torch.tensor(list(ids), device=head.weight.device)

    def hook(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        steps.append(head.logits(args[0][:, -1], wanted).cpu())

    handle = model.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield steps
    finally:
        handle.remove()


@contextmanager
def eager_attention(decoder: Any, wanted: bool) -> Iterator[None]:
    """Use eager attention within the block: fused kernels return no weights."""
    before = decoder.config._attn_implementation
    if not wanted or before == "eager":
        yield
        return
    decoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)
