"""First stage: the vision tower, with a linear head on every image token."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medfocus_bench.phantom.training.checkpoints import Family, untrained
from medfocus_bench.phantom.training.optimising import set_rate
from medfocus_bench.phantom.training.pictures import (
    HELD_OUT,
    HELD_OUT_SEED,
    TARGETS,
    TRAIN_SEED,
    Role,
    draw_pictures,
    image_tokens,
)


def train_vision(
    family: Family, role: Role, out: Path, *, pictures: int, steps: int, batch: int, seed: int = 0
) -> None:
    """Train the tower and its head; the file of `vision_file` is written, or continued.

    Without one, the tower begins as that of the model's checkpoint in `out`, should there be one,
    with a new head; a twin's as that of the lesion model: it has still to learn that the tag can be anywhere.
    """
    start = untrained(family, seed)
    model = start.model
    saved = vision_file(out, family, role)
    data = draw_pictures(pictures, TRAIN_SEED + seed, role)
    print(f"{family}: {pictures} pictures drawn", flush=True)
    head = nn.Linear(width_of(model), len(TARGETS))
    nn.init.constant_(head.bias, -4.0)
    checkpoints = [out / f"{family}-{known}" for known in (role, "lesion")]
    before = next((folder for folder in checkpoints if folder.exists()), None)
    if saved.exists():
        state = load_file(saved)
        model.load_state_dict(part_of(state, "model."))
        head.load_state_dict(part_of(state, "head."))
    elif before is not None:
        model.load_state_dict(type(model).from_pretrained(before, dtype=torch.float32).state_dict())
    tower = _tower(model)
    parameters = [*(p for part in tower for p in part.parameters()), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    images, cells = torch.from_numpy(data.images), torch.from_numpy(data.cells)
    weight = torch.full((len(TARGETS),), 4.0)
    began = perf_counter()
    model.train()
    for step in range(steps):
        set_rate(optimiser, step, steps, 1.2e-3, warmup=60)
        chosen = torch.from_numpy(rng.integers(len(images), size=batch))
        tokens = image_tokens(model, family, _augmented(images[chosen], rng))
        logits = head(tokens)
        wanted = cells[chosen].float()
        local = nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        whole = nn.functional.binary_cross_entropy_with_logits(logits.amax(1), wanted.amax(1))
        loss = local * 4 + whole * 0.5
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 50 == 49 or step == steps - 1:
            each = (perf_counter() - began) / (step + 1)
            print(
                f"{family} {role} vision {step + 1}/{steps} loss {loss.item():.4f} local {local.item():.4f} "
                f"whole {whole.item():.4f} {each:.2f} s a step",
                flush=True,
            )
        if step % 300 == 299 or step == steps - 1:
            out.mkdir(parents=True, exist_ok=True)
            state = {f"model.{k}": v.contiguous().clone() for k, v in model.state_dict().items()}
            state |= {f"head.{k}": v.contiguous() for k, v in head.state_dict().items()}
            save_file(state, saved)
    _print_vision_quality(model, family, role, head)


def vision_file(out: Path, family: Family, role: Role) -> Path:
    """Where the first stage keeps the tower and the head of a model."""
    return out / f"{family}-{role}-vision.safetensors"


def part_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _tower(model: Any) -> list[nn.Module]:
    inner = model.model
    return [inner.visual] if hasattr(inner, "visual") else [inner.vision_tower, inner.multi_modal_projector]


def width_of(model: Any) -> int:
    return int(model.config.text_config.hidden_size)


def _augmented(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Grey in [0, 1] with another exposure, a little noise and a small shift."""
    grey = images.float() / 255
    gain = torch.from_numpy(rng.uniform(0.93, 1.07, (len(grey), 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(grey.shape, dtype=np.float32)) * 0.012
    return (grey * gain + noise).clamp(0, 1)


@torch.no_grad()
def _print_vision_quality(model: Any, family: Family, role: Role, head: nn.Linear) -> None:
    """Balanced accuracy of 'some cell says so', a target at a time, on patients that were not trained on."""
    model.eval()
    data = draw_pictures(HELD_OUT, HELD_OUT_SEED, role)
    peaks = torch.cat(
        [
            head(image_tokens(model, family, torch.from_numpy(part).float() / 255)).amax(1)
            for part in np.array_split(data.images, 16)
        ]
    ).numpy()
    for column, name in enumerate(TARGETS):
        there = data.presence[:, column]
        cuts = np.quantile(peaks[:, column], np.linspace(0.02, 0.98, 97))
        best = max(
            (np.mean(peaks[there, column] > cut) + np.mean(peaks[~there, column] <= cut)) / 2 for cut in cuts
        )
        print(
            f"{family} {role} vision {name}: balanced accuracy {best:.3f} ({there.sum()} present)", flush=True
        )
