"""Probabilities from hidden states, in float32, without logits of a whole sequence.

Rounded to bfloat16, logits tie where a perturbation moves them by less than a step of 0.06 to 0.25; whole
float32 logits of a real vocabulary over a batch take gigabytes. So the last hidden states of the few rows
that matter meet the output embedding in float32, a slice of the vocabulary at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch

from medfocus_bench.lvlm.half_products import float_slices

_ELEMENTS: Final = 2**19
"""Logits held at a time: 2 MB, little beside what the body of even a tiny model holds."""


class OutputHead:
    """The language head of a model: `weight` (vocabulary, width), perhaps a bias and a soft cap.

    It may lie on another device than the hidden states; results are where these are.
    """

    def __init__(self, linear: Any, softcap: float | None) -> None:
        self.weight: torch.Tensor = linear.weight
        self.bias: torch.Tensor | None = linear.bias
        self.softcap = softcap

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | list[int]) -> torch.Tensor:
        """Logits (..., len(ids)) of some tokens for hidden states (..., width)."""
        wanted = torch.as_tensor(ids, device=self.weight.device)
        values = self._taken(hidden) @ self.weight[wanted].float().T
        return self._finished(values, None if self.bias is None else self.bias[wanted]).to(hidden.device)

    def own_logits(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The logit of token ids[t] at row t, for hidden states (..., rows, width): (..., rows)."""
        wanted = ids.to(self.weight.device)
        values = (self._taken(hidden) * self.weight[wanted].float()).sum(-1)
        return self._finished(values, None if self.bias is None else self.bias[wanted]).to(hidden.device)

    def log_probs(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The log-probability of token ids[t] at row t: (..., rows). Twice differentiable by `hidden`."""
        flat = self._taken(hidden).reshape(-1, hidden.shape[-1])
        wanted = ids.to(flat.device).expand(hidden.shape[:-1]).reshape(-1)
        scores: torch.Tensor = _LogProbs.apply(flat, wanted, self)  # type: ignore[no-untyped-call]
        return scores.reshape(hidden.shape[:-1]).to(hidden.device)

    def own_log_odds(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The log-odds of token ids[t] over all others at row t: (..., rows). Not differentiable.

        Of the others' logits, not of a probability: one of 1 - 1e-8 is 1 in float32.
        """
        flat = self._taken(hidden).reshape(-1, hidden.shape[-1])
        wanted = ids.to(flat.device).expand(hidden.shape[:-1]).reshape(-1)
        own = flat.new_zeros(len(flat))
        others = flat.new_full((len(flat),), -torch.inf)
        for start, values, _ in self.slices(flat):
            places, inside = _places(wanted, start, values)
            own = torch.where(inside, values.gather(1, places)[:, 0], own)
            rest = values.scatter(1, places, values.gather(1, places).where(~inside[:, None], -torch.inf))
            others = torch.logaddexp(others, rest.logsumexp(-1))
        return (own - others).reshape(hidden.shape[:-1]).to(hidden.device)

    def log_odds(self, hidden: torch.Tensor, yes: list[int], no: list[int]) -> torch.Tensor:
        """Log-odds of any token of `yes` over any of `no`: (...)."""
        return self.logits(hidden, yes).logsumexp(-1) - self.logits(hidden, no).logsumexp(-1)

    def slices(self, flat: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each slice of the vocabulary: its start, its logits for hidden states (n, width) and its weights.

        Neither its logits nor its weights in float32 are many at a time: of a real vocabulary all of the
        latter are 2.5 GiB, for an answer of two tokens.
        """
        for part, weight in float_slices(self.weight, max(256, _ELEMENTS // max(1, len(flat)))):
            bias = None if self.bias is None else self.bias[part]
            yield part.start, self._finished(flat @ weight.T, bias), weight

    def _taken(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.to(self.weight.device).float()

    def _finished(self, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if bias is not None:
            values = values + bias.float()
        return values if self.softcap is None else self.softcap * torch.tanh(values / self.softcap)


class _LogProbs(torch.autograd.Function):
    """`OutputHead.log_probs` of rows (n, width).

    The rows and their normalisers are kept for the way back, where the slices are computed again: a graph of
    the plain computation would hold every slice, and with that the whole vocabulary. A second derivative does
    hold them: its graph is that of the way back.
    """

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, wanted: torch.Tensor, head: OutputHead) -> torch.Tensor:
        own = flat.new_zeros(len(flat))
        total = flat.new_full((len(flat),), -torch.inf)
        for start, values, _ in head.slices(flat):
            total = torch.logaddexp(total, values.logsumexp(-1))
            # Taken from the sum's own terms: computed apart it would differ from them in the last digits.
            places, inside = _places(wanted, start, values)
            own = torch.where(inside, values.gather(1, places)[:, 0], own)
        # A copy: the ids of an example that was made in inference mode could not be saved.
        ctx.save_for_backward(flat, wanted.clone(), total)
        ctx.head = head
        return own - total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        flat, wanted, total = ctx.saved_tensors
        head: OutputHead = ctx.head
        if torch.is_grad_enabled():  # for a second derivative the normaliser, too, has to depend on the rows
            total = torch.cat([values for _, values, _ in head.slices(flat)], 1).logsumexp(-1)
        found = torch.zeros_like(flat)
        for start, values, weight in head.slices(flat):
            slope = -(values - total[:, None]).exp()
            places, inside = _places(wanted, start, values)
            slope = slope.scatter_add(1, places, inside[:, None].float())
            if head.softcap is not None:
                slope = slope * (1 - (values / head.softcap) ** 2)
            found = found + (slope * gradient[:, None]) @ weight
        return found, None, None


def _places(wanted: torch.Tensor, start: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in a slice of the vocabulary each row's token stands, (n, 1), and whether it is there at all."""
    places = wanted - start
    inside = (places >= 0) & (places < values.shape[1])
    return places.clamp(0, values.shape[1] - 1)[:, None], inside
