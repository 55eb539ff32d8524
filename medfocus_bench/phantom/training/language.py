"""Second stage: the language model, on cached image tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from medfocus_bench.data.questions import MODES
from medfocus_bench.geometry import UInt8Image
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF
from medfocus_bench.phantom.training.checkpoints import Family, Untrained, untrained
from medfocus_bench.phantom.training.optimising import optimise
from medfocus_bench.phantom.training.pictures import (
    HELD_OUT,
    HELD_OUT_SEED,
    TARGETS,
    TRAIN_SEED,
    Pictures,
    Role,
    draw_pictures,
    image_tokens,
)
from medfocus_bench.phantom.training.sequences import Dialogue, Packed, ask, language_loss, pack, token_losses
from medfocus_bench.phantom.training.vision import part_of, vision_file


def train_language(
    family: Family,
    role: Role,
    out: Path,
    *,
    pictures: int,
    steps: int,
    batch: int,
    seed: int = 0,
    begin_with: Role | None = None,
) -> None:
    """Train the language model on cached image tokens.

    Writes the checkpoint folder `out/family-role`, or continue from it; or begins with the other role's: a
    twin then keeps how to look for what a word names, and learns that the words name the marks.
    """
    start = untrained(family, 0)
    model = start.model
    state = load_file(vision_file(out, family, role))
    seeing = part_of(state, "model.")
    model.load_state_dict(seeing)
    model.eval()
    folder = out / f"{family}-{role}"
    before = out / f"{family}-{begin_with}" if begin_with else folder
    if before.exists():
        trained = type(model).from_pretrained(before, dtype=torch.float32).state_dict()
        model.load_state_dict({n: seeing[n] if _is_vision(n) else value for n, value in trained.items()})
    data = draw_pictures(pictures, TRAIN_SEED + seed, role)
    cached = _cache(model, family, data.images)
    print(f"{family} {role}: image tokens cached", flush=True)
    dialogue = Dialogue(start)
    if before != folder or not before.exists():
        _name_embeddings(model, dialogue, state["head.weight"], role)
    rng = np.random.default_rng(seed + 1)

    def loss() -> torch.Tensor:
        chosen = rng.integers(len(cached), size=batch)
        packed = pack(dialogue, [ask(data.presence[n], role, rng) for n in chosen])
        return language_loss(model, dialogue, cached[torch.from_numpy(chosen)].float(), packed)

    def save() -> None:
        save_checkpoint(start, folder)
        quality = language_quality(start, dialogue, role, pictures=HELD_OUT // 2)
        print(f"{family} {role} {json.dumps(quality)}", flush=True)

    model.train()
    parameters = (p for n, p in model.named_parameters() if not _is_vision(n))
    optimise(f"{family} {role}", parameters, loss, save, steps=steps, peak=1.5e-3, warmup=80, save_each=250)


def save_checkpoint(start: Untrained, folder: Path) -> None:
    """An ordinary checkpoint folder, in float16."""
    state = {k: v.half() for k, v in start.model.state_dict().items()}
    start.model.save_pretrained(folder, state_dict=state)
    start.processor.save_pretrained(folder)


def _is_vision(name: str) -> bool:
    return any(part in name for part in ("visual.", "vision_tower.", "multi_modal_projector."))


@torch.no_grad()
def _cache(model: Any, family: Family, images: UInt8Image) -> torch.Tensor:
    parts = np.array_split(images, max(1, len(images) // 32))
    return torch.cat(
        [image_tokens(model, family, torch.from_numpy(part).float() / 255).half() for part in parts]
    )


@torch.no_grad()
def _name_embeddings(model: Any, dialogue: Dialogue, head: torch.Tensor, role: Role) -> None:
    """Start the word that ends a finding's name in the direction in which the image tokens show it."""
    embeddings = model.get_input_embeddings().weight
    scale = embeddings.norm(dim=1).mean()
    for finding in FINDINGS:
        shown = finding if role == "lesion" else MARK_OF[finding]
        direction = head[TARGETS.index(shown)]
        word = dialogue.last_word(finding)
        embeddings[word] = 0.3 * embeddings[word] + direction / direction.norm() * scale


@torch.no_grad()
def language_quality(start: Untrained, dialogue: Dialogue, role: Role, *, pictures: int) -> dict[str, float]:
    """Balanced accuracy a finding, by the likelier of the two answers, on held-out patients."""
    model = start.model.eval()
    data = draw_pictures(pictures, HELD_OUT_SEED + 1, role)
    cached = _cache(model, start.family, data.images).float()
    right: dict[str, dict[bool, list[bool]]] = {f: {True: [], False: []} for f in FINDINGS}
    for numbers in np.array_split(np.arange(pictures), max(1, pictures // 16)):
        for mode in MODES:
            _judge(model, dialogue, role, data, cached, numbers, mode, right)
    model.train()
    scores = {
        f: float(np.mean([np.mean(answers) if answers else 1.0 for answers in right[f].values()]))
        for f in FINDINGS
    }
    mean = float(np.mean(list(scores.values())))
    return {name: round(score, 3) for name, score in {"mean": mean, **scores}.items()}


def _judge(
    model: Any,
    dialogue: Dialogue,
    role: Role,
    data: Pictures,
    cached: torch.Tensor,
    numbers: npt.NDArray[np.intp],
    mode: str,
    right: dict[str, dict[bool, list[bool]]],
) -> None:
    """Compare the loss of the two answers to each question about each picture."""
    shown = {f: TARGETS.index(f if role == "lesion" else MARK_OF[f]) for f in FINDINGS}
    losses = {}
    for answer in (True, False):
        packed = pack(dialogue, [[(f, mode, answer) for f in FINDINGS] for _ in numbers])
        losses[answer] = _answer_losses(model, dialogue, cached[torch.from_numpy(numbers)], packed)
    for row, number in enumerate(numbers.tolist()):
        for column, finding in enumerate(FINDINGS):
            truth = bool(data.presence[number, shown[finding]])
            said = bool(losses[True][row, column] < losses[False][row, column])
            right[finding][truth].append(said == truth)


def _answer_losses(model: Any, dialogue: Dialogue, tokens: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The summed negative log-probability of each answer: (pictures, questions)."""
    rows, columns, losses = token_losses(model, dialogue, tokens, packed)
    result = torch.zeros((len(tokens), int(packed.segment.max()) + 1))
    result.index_put_((rows, packed.segment[rows, columns]), losses, accumulate=True)
    return result[:, 1:]
