"""Pictures with questions and answers as token sequences, several questions behind one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medfocus_bench.data.questions import MODES, prompt
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF
from medfocus_bench.phantom.training.checkpoints import GRID, SIDE, Untrained
from medfocus_bench.phantom.training.corpus import response
from medfocus_bench.phantom.training.pictures import TARGETS, Role


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


def ask(
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


def pack(dialogue: Dialogue, asked: list[list[tuple[str, str, bool]]]) -> Packed:
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


def language_loss(model: Any, dialogue: Dialogue, tokens: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Cross-entropy of the answers, summed over each answer, averaged over the questions."""
    *_, losses = token_losses(model, dialogue, tokens, packed)
    return losses.sum() / sum(int(row.max()) for row in packed.segment)


def token_losses(
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
