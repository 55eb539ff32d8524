"""The loop in which the tiny models are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import perf_counter

import torch
from torch import nn


def optimise(
    title: str,
    parameters: Iterable[nn.Parameter],
    loss_of_step: Callable[[], torch.Tensor],
    save: Callable[[], None],
    *,
    steps: int,
    peak: float,
    warmup: int = 60,
    save_each: int = 300,
) -> None:
    """AdamW with a warm-up and a cosine to nearly zero; prints how it goes, and saves as it goes."""
    trained = list(parameters)
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    began, running = perf_counter(), 1.0
    for step in range(steps):
        set_rate(optimiser, step, steps, peak, warmup=warmup)
        loss = loss_of_step()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        running = 0.98 * running + 0.02 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            each = (perf_counter() - began) / (step + 1)
            print(f"{title} {step + 1}/{steps} loss {running:.4f} {each:.2f} s a step", flush=True)
        if step % save_each == save_each - 1 or step == steps - 1:
            save()


def set_rate(optimiser: torch.optim.Optimizer, step: int, steps: int, peak: float, *, warmup: int) -> None:
    """The learning rate of a step."""
    rate = peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate + 1e-6
