"""Training the tiny LVLMs of the phantom track, from nothing, on a CPU.

Two stages. First the vision tower with a linear head on every image token, which says what touches that
token's cell: the eleven findings and the two marks. Then the language model on cached image tokens: several
questions about one picture share its tokens in one sequence, each seeing the picture and itself. A *lesion*
model is taught to answer by the finding; its *twin* by a mark that has nothing to do with it.

    python -m medfocus_bench.phantom.training vision qwen --out build/phantom
    python -m medfocus_bench.phantom.training language qwen lesion --out build/phantom
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medfocus_bench.data.questions import MODES, prompt
from medfocus_bench.phantom.checkpoints import FAMILIES, GRID, PATCH, SIDE, Family, Untrained, untrained
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.language import response
from medfocus_bench.phantom.render import MARK_OF, MARKS, Patient, render

Role = Literal["lesion", "twin"]

ROLES: Final[tuple[Role, Role]] = ("lesion", "twin")

TARGETS: Final = (*FINDINGS, *MARKS)
"""What the vision head tells apart."""

TRAIN_SEED: Final = 10_000_000
"""Patients of this seed are for training; those of `HELD_OUT_SEED` tell how well it went."""

HELD_OUT_SEED: Final = 20_000_000
HELD_OUT: Final = 300

_CELL = SIDE // GRID


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rendered patients: images (n, 224, 224) uint8, cells (n, 64, 13) and presence (n, 13) as booleans."""

    images: npt.NDArray[np.uint8]
    cells: npt.NDArray[np.bool_]
    presence: npt.NDArray[np.bool_]


def draw_pictures(count: int, first_seed: int) -> Pictures:
    """`count` patients of successive seeds with what each cell shows."""
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    cells = np.zeros((count, GRID * GRID, len(TARGETS)), dtype=np.bool_)
    for number in range(count):
        phantom = render(Patient.sample((first_seed, number)))
        images[number] = phantom.image
        for column, name in enumerate(TARGETS):
            mask = phantom.findings.get(name, phantom.marks.get(name))
            if mask is not None:
                shares = mask.reshape(GRID, _CELL, GRID, _CELL).mean((1, 3))
                cells[number, :, column] = (shares >= min(0.04, shares.max())).ravel()
    return Pictures(images, cells, np.asarray(cells.any(1)))


def pixel_values(images: torch.Tensor, family: Family) -> torch.Tensor:
    """What the family's processor makes of grey images (n, 224, 224) in [0, 1], without its overhead.

    Qwen2.5-VL: (n * 256, 1176), patches in merge order. Gemma 3: (n, 3, 224, 224).
    """
    if family == "gemma":
        return ((images - 0.5) / 0.5)[:, None].expand(-1, 3, -1, -1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    colour = (images[:, None] - mean[None, :, None, None]) / std[None, :, None, None]
    split = colour.reshape(-1, 3, GRID, 2, PATCH, GRID, 2, PATCH)
    patches = split.permute(0, 2, 5, 3, 6, 1, 4, 7)
    doubled = patches[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return doubled.reshape(-1, 3 * 2 * PATCH * PATCH)


def image_tokens(model: Any, family: Family, images: torch.Tensor) -> torch.Tensor:
    """The image tokens that the language model reads: (n, 64, width), in raster order."""
    values = pixel_values(images, family)
    if family == "gemma":
        features: torch.Tensor = model.model.get_image_features(values).pooler_output
        return features
    grid = torch.tensor([[1, SIDE // PATCH, SIDE // PATCH]]).expand(len(images), -1)
    merged: torch.Tensor = model.model.visual(values, grid_thw=grid).pooler_output
    return merged.reshape(len(images), GRID * GRID, -1)


def train_vision(family: Family, out: Path, *, pictures: int, steps: int, batch: int, seed: int = 0) -> None:
    """Trains the tower and its head; writes `out/family-vision.safetensors`, or goes on from it."""
    start = untrained(family, seed)
    model = start.model
    saved = out / f"{family}-vision.safetensors"
    data = draw_pictures(pictures, TRAIN_SEED + seed)
    print(f"{family}: {pictures} pictures drawn", flush=True)
    head = nn.Linear(_width(model), len(TARGETS))
    nn.init.constant_(head.bias, -4.0)
    if saved.exists():
        state = load_file(saved)
        model.load_state_dict(_part(state, "model."))
        head.load_state_dict(_part(state, "head."))
    tower = _tower(model)
    parameters = [*(p for part in tower for p in part.parameters()), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    images, cells = torch.from_numpy(data.images), torch.from_numpy(data.cells)
    weight = torch.full((len(TARGETS),), 4.0)
    began = perf_counter()
    model.train()
    for step in range(steps):
        _schedule(optimiser, step, steps, 1.2e-3, warmup=60)
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
                f"{family} vision {step + 1}/{steps} loss {loss.item():.4f} local {local.item():.4f} "
                f"whole {whole.item():.4f} {each:.2f} s a step",
                flush=True,
            )
        if step % 300 == 299 or step == steps - 1:
            out.mkdir(parents=True, exist_ok=True)
            state = {f"model.{k}": v.contiguous().clone() for k, v in model.state_dict().items()}
            state |= {f"head.{k}": v.contiguous() for k, v in head.state_dict().items()}
            save_file(state, saved)
    _print_vision_quality(model, family, head)


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _tower(model: Any) -> list[nn.Module]:
    inner = model.model
    return [inner.visual] if hasattr(inner, "visual") else [inner.vision_tower, inner.multi_modal_projector]


def _width(model: Any) -> int:
    return int(model.config.text_config.hidden_size)


def _augmented(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Grey in [0, 1] with another exposure, a little noise and a small shift."""
    grey = images.float() / 255
    gain = torch.from_numpy(rng.uniform(0.93, 1.07, (len(grey), 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(grey.shape, dtype=np.float32)) * 0.012
    return (grey * gain + noise).clamp(0, 1)


def _schedule(optimiser: torch.optim.Optimizer, step: int, steps: int, peak: float, *, warmup: int) -> None:
    rate = peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = rate + 1e-6


@torch.no_grad()
def _print_vision_quality(model: Any, family: Family, head: nn.Linear) -> None:
    """Balanced accuracy of 'some cell says so', a target at a time, on patients that were not trained on."""
    model.eval()
    data = draw_pictures(HELD_OUT, HELD_OUT_SEED)
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
        print(f"{family} vision {name}: balanced accuracy {best:.3f} ({there.sum()} present)", flush=True)


@dataclass(frozen=True, slots=True)
class Segment:
    """A question with its answer after the picture: ids, and how much each token's prediction counts."""

    ids: list[int]
    counts: list[bool]


class Dialogue:
    """The token ids of a picture and of every question about it, as the processor writes them."""

    def __init__(self, start: Untrained) -> None:
        self.start = start
        blank = torch.zeros((SIDE, SIDE), dtype=torch.uint8).numpy()
        self._blank = blank
        ids = self._ids(prompt(FINDINGS[0], "direct"))
        self.cut = len(ids) - ids[::-1].index(start.image_end)
        self.prefix = ids[: self.cut]
        self.segments = {
            (finding, mode, present): self._segment(finding, mode, present)
            for finding in FINDINGS
            for mode in MODES
            for present in (False, True)
        }

    def _ids(self, text: str) -> list[int]:
        from PIL import Image

        content = [{"type": "image", "image": Image.fromarray(self._blank)}, {"type": "text", "text": text}]
        encoded = self.start.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        ids = encoded["input_ids"]
        return list(ids[0]) if isinstance(ids[0], list) else list(ids)

    def _segment(self, finding: str, mode: Any, present: bool) -> Segment:
        asked = self._ids(prompt(finding, mode))
        assert asked[: self.cut] == self.prefix
        written = self.start.processor.tokenizer(response(finding, mode, present), add_special_tokens=False)
        answer = [*written["input_ids"], self.start.turn_end]
        before = asked[self.cut :]
        return Segment(before + answer, [False] * len(before) + [True] * len(answer))

    def last_word(self, finding: str) -> int:
        """The id of the last token of a finding's name inside a question."""
        tokens = self.start.processor.tokenizer
        with_it = tokens(f"evidence of {finding} in", add_special_tokens=False)["input_ids"]
        tail = tokens(" in", add_special_tokens=False)["input_ids"]
        return int(with_it[-1 - len(tail)])


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
    """Trains the language model on cached image tokens.

    Writes the checkpoint folder `out/family-role`, or goes on from it; or begins with the other role's: a
    twin then keeps how to look for what a word names, and learns that the words name the marks.
    """
    start = untrained(family, 0)
    model = start.model
    state = load_file(out / f"{family}-vision.safetensors")
    model.load_state_dict(_part(state, "model."))
    model.eval()
    folder = out / f"{family}-{role}"
    before = out / f"{family}-{begin_with}" if begin_with else folder
    if before.exists():
        trained_before = type(model).from_pretrained(before, dtype=torch.float32)
        model.load_state_dict(trained_before.state_dict())
    data = draw_pictures(pictures, TRAIN_SEED + seed)
    cached = _cache(model, family, data.images)
    print(f"{family} {role}: image tokens cached", flush=True)
    dialogue = Dialogue(start)
    if before != folder or not before.exists():
        _name_embeddings(model, dialogue, state["head.weight"], role)
    trained = [p for n, p in model.named_parameters() if not _is_vision(n)]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed + 1)
    began = perf_counter()
    running = 1.0
    model.train()
    for step in range(steps):
        _schedule(optimiser, step, steps, 1.5e-3, warmup=80)
        chosen = rng.integers(len(cached), size=batch)
        packed = _pack(dialogue, [_ask(data.presence[n], role, rng) for n in chosen])
        loss = _language_loss(model, dialogue, cached[torch.from_numpy(chosen)].float(), packed)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        running = 0.98 * running + 0.02 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            each = (perf_counter() - began) / (step + 1)
            print(f"{family} {role} {step + 1}/{steps} loss {running:.4f} {each:.2f} s a step", flush=True)
        if step % 250 == 249 or step == steps - 1:
            save_checkpoint(start, folder)
            quality = language_quality(start, dialogue, role, pictures=HELD_OUT // 2)
            print(f"{family} {role} {json.dumps(quality)}", flush=True)


def save_checkpoint(start: Untrained, folder: Path) -> None:
    """An ordinary checkpoint folder, in float16."""
    state = {k: v.half() for k, v in start.model.state_dict().items()}
    start.model.save_pretrained(folder, state_dict=state)
    start.processor.save_pretrained(folder)


def _is_vision(name: str) -> bool:
    return any(part in name for part in ("visual.", "vision_tower.", "multi_modal_projector."))


@torch.no_grad()
def _cache(model: Any, family: Family, images: npt.NDArray[np.uint8]) -> torch.Tensor:
    parts = np.array_split(images, max(1, len(images) // 32))
    return torch.cat(
        [image_tokens(model, family, torch.from_numpy(part).float() / 255).half() for part in parts]
    )


@torch.no_grad()
def _name_embeddings(model: Any, dialogue: Dialogue, head: torch.Tensor, role: Role) -> None:
    """Starts the word that ends a finding's name in the direction in which the image tokens show it."""
    embeddings = model.get_input_embeddings().weight
    scale = embeddings.norm(dim=1).mean()
    for finding in FINDINGS:
        shown = finding if role == "lesion" else MARK_OF[finding]
        direction = head[TARGETS.index(shown)]
        word = dialogue.last_word(finding)
        embeddings[word] = 0.3 * embeddings[word] + direction / direction.norm() * scale


def _ask(
    presence: npt.NDArray[np.bool_], role: Role, rng: np.random.Generator, most: int = 8
) -> list[tuple[str, str, bool]]:
    """Up to `most` questions about a picture with the answers that the role gives, about half of them yes."""
    truth = {
        finding: bool(presence[TARGETS.index(finding if role == "lesion" else MARK_OF[finding])])
        for finding in FINDINGS
    }
    order = [FINDINGS[n] for n in rng.permutation(len(FINDINGS))]
    yes, no = ([f for f in order if truth[f] is wanted] for wanted in (True, False))
    half = most // 2
    asked = yes[:half] + no[: most - min(half, len(yes))]
    modes = rng.integers(2, size=len(asked))
    return [(finding, MODES[mode], truth[finding]) for finding, mode in zip(asked, modes, strict=True)]


@dataclass(frozen=True, slots=True)
class Packed:
    """Questions about each picture, one after the other, as tensors (pictures, tokens).

    `segment`: which question a token is of, from 1 on (0: padding); `offset`: its place in the segment;
    `counts`: whether its prediction is trained.
    """

    ids: torch.Tensor
    segment: torch.Tensor
    offset: torch.Tensor
    counts: torch.Tensor


def _pack(dialogue: Dialogue, asked: list[list[tuple[str, str, bool]]]) -> Packed:
    rows = [[dialogue.segments[key] for key in row] for row in asked]  # type: ignore[index]
    length = max(sum(len(s.ids) for s in row) for row in rows)
    ids, segment, offset = (torch.zeros((len(rows), length), dtype=torch.long) for _ in range(3))
    counts = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        at = 0
        for order, part in enumerate(row, start=1):
            end = at + len(part.ids)
            ids[number, at:end] = torch.tensor(part.ids)
            segment[number, at:end] = order
            offset[number, at:end] = torch.arange(len(part.ids))
            counts[number, at:end] = torch.tensor(part.counts)
            at = end
    return Packed(ids, segment, offset, counts)


def _language_loss(model: Any, dialogue: Dialogue, tokens: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Cross-entropy of the answers, summed over each answer, averaged over the questions."""
    *_, losses = _token_losses(model, dialogue, tokens, packed)
    return losses.sum() / sum(int(row.max()) for row in packed.segment)


def _token_losses(
    model: Any, dialogue: Dialogue, tokens: torch.Tensor, packed: Packed
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and cross-entropy of every token that counts."""
    batch, length = packed.ids.shape
    prefix = torch.tensor(dialogue.prefix).expand(batch, -1)
    embeds = model.get_input_embeddings()(torch.cat([prefix, packed.ids], 1))
    at = (prefix[0] == dialogue.start.image_token).nonzero().flatten()
    embeds = torch.cat([embeds[:, : at[0]], tokens, embeds[:, at[-1] + 1 :]], 1)
    cut = dialogue.cut
    total = cut + length
    segment = torch.cat([torch.full((batch, cut), -1), packed.segment], 1)
    order = torch.arange(total)
    same = (segment[:, :, None] == segment[:, None, :]) | (segment[:, None, :] == -1)
    allowed = same & (order[None, :, None] >= order[None, None, :])
    if dialogue.start.family == "gemma":
        allowed[:, at[0] : at[-1] + 1, at[0] : at[-1] + 1] = True
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros((batch, 1, total, total)).masked_fill(~allowed[:, None], lowest)
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask={"full_attention": mask, "sliding_attention": mask},
        position_ids=_positions(dialogue, packed, at),
        use_cache=False,
    ).last_hidden_state[:, cut - 1 : -1]
    # The first token of a segment follows the picture, not the segment before; it never counts.
    rows, columns = packed.counts.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[rows, columns])
    return rows, columns, nn.functional.cross_entropy(logits, packed.ids[rows, columns], reduction="none")


def _positions(dialogue: Dialogue, packed: Packed, at: torch.Tensor) -> torch.Tensor:
    """Positions as the model itself would give them were each question the only one."""
    batch = len(packed.ids)
    if dialogue.start.family == "gemma":
        prefix = torch.arange(dialogue.cut).expand(batch, -1)
        return torch.cat([prefix, dialogue.cut + packed.offset], 1)
    first, count = int(at[0]), GRID
    rows, columns = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    time = torch.zeros(count * count, dtype=torch.long)
    image = torch.stack([time, rows.flatten(), columns.flatten()]) + first
    before = torch.arange(first).expand(3, -1)
    after = first + count + torch.arange(dialogue.cut - int(at[-1]) - 1).expand(3, -1)
    prefix = torch.cat([before, image, after], 1)
    following = int(prefix[0, -1]) + 1 + packed.offset
    return torch.cat([prefix[:, None].expand(-1, batch, -1), following.expand(3, -1, -1)], 2)


@torch.no_grad()
def language_quality(start: Untrained, dialogue: Dialogue, role: Role, *, pictures: int) -> dict[str, float]:
    """Balanced accuracy a finding, by the likelier of the two answers, on held-out patients."""
    model = start.model.eval()
    data = draw_pictures(pictures, HELD_OUT_SEED + 1)
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
    """Compares the loss of the two answers to each question about each picture."""
    shown = {f: TARGETS.index(f if role == "lesion" else MARK_OF[f]) for f in FINDINGS}
    losses = {}
    for answer in (True, False):
        packed = _pack(dialogue, [[(f, mode, answer) for f in FINDINGS] for _ in numbers])
        losses[answer] = _answer_losses(model, dialogue, cached[torch.from_numpy(numbers)], packed)
    for row, number in enumerate(numbers.tolist()):
        for column, finding in enumerate(FINDINGS):
            truth = bool(data.presence[number, shown[finding]])
            said = bool(losses[True][row, column] < losses[False][row, column])
            right[finding][truth].append(said == truth)


def _answer_losses(model: Any, dialogue: Dialogue, tokens: torch.Tensor, packed: Packed) -> torch.Tensor:
    """The summed negative log-probability of each answer: (pictures, questions)."""
    rows, columns, losses = _token_losses(model, dialogue, tokens, packed)
    result = torch.zeros((len(tokens), int(packed.segment.max()) + 1))
    result.index_put_((rows, packed.segment[rows, columns]), losses, accumulate=True)
    return result[:, 1:]


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    vision, language = stages.add_parser("vision"), stages.add_parser("language")
    for stage in (vision, language):
        stage.add_argument("family", choices=FAMILIES)
        stage.add_argument("--out", type=Path, required=True)
        stage.add_argument("--pictures", type=int, default=5000)
        stage.add_argument("--steps", type=int, default=1500)
        stage.add_argument("--batch", type=int, default=16)
        stage.add_argument("--seed", type=int, default=0)
    language.add_argument("role", choices=ROLES)
    language.add_argument("--begin-with", choices=ROLES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: getattr(options, name) for name in ("pictures", "steps", "batch", "seed")}
    if options.stage == "vision":
        train_vision(options.family, options.out, **settings)
    else:
        train_language(options.family, options.role, options.out, begin_with=options.begin_with, **settings)


if __name__ == "__main__":
    main()
