"""Checks of the prompt: its tokens, those of the picture, and the place in the picture that each shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.conformance.result import CheckResult, failed, not_applicable, passed
from medfocus_bench.lvlm.conformance.subject import (
    QUESTION,
    SHAPES,
    Subject,
    plain_inputs,
    smooth_picture,
)
from medfocus_bench.lvlm.example import EncodedExample

_Array = npt.NDArray[np.float64]

_PLACES: Final = (
    *((0.05, 0.2), (0.35, 0.4), (0.3, 0.1)),
    *((0.2, 0.55), (0.05, 0.9), (0.45, 0.8)),
    *((0.6, 0.05), (0.9, 0.3), (0.65, 0.45)),
    *((0.7, 0.8), (0.95, 0.6), (0.8, 0.9)),
)
"""Three in each quarter of a picture, (down, right), without any symmetry."""

_RANK: Final = 0.75
"""The least mean rank of a patch's own token, as a share of all, in each quarter; 0.5 is chance."""


def prompt(subject: Subject) -> CheckResult:
    """The prompt of an example is what the processor makes of the chat, with one start token at most."""
    lengths = []
    for framing, lvlm in subject.framings.items():
        image = smooth_picture(*SHAPES[framing])
        theirs = plain_inputs(lvlm, image)["input_ids"][0].tolist()
        example = lvlm.encode(image, QUESTION, "Yes.")
        ours = example.ids[: example.answer.start].tolist()
        start = lvlm.processor.tokenizer.bos_token_id
        for number in range(1, len(ours)):
            if start is not None and ours[number - 1] == ours[number] == start:
                return failed(f"the prompt has the start token {subject.named(start)} twice in a row")
        if ours != theirs:
            where = next(
                (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            have, want = (
                subject.named(ids[where]) if where < len(ids) else "the end" for ids in (ours, theirs)
            )
            return failed(
                f"token {where} of the prompt is {have}, and the processor has {want} there ({framing} "
                f"framing): {len(ours)} tokens, and {len(theirs)} of the processor"
            )
        lengths.append(str(len(ours)))
    return passed(f"{' and '.join(lengths)} tokens, as the processor makes them of the chat")


def image_tokens(subject: Subject) -> CheckResult:
    """The tokens of the grid are those that enter the decoder with other values for another picture."""
    lacking = subject.lvlm.family.lacks.get("image_tokens")
    if lacking is not None:
        return not_applicable(lacking)
    sizes = []
    for framing, lvlm in subject.framings.items():
        image = smooth_picture(*SHAPES[framing])
        inputs = plain_inputs(lvlm, image)
        ids = inputs["input_ids"][0]
        rows, columns = lvlm.family.grid(lvlm.model, inputs)
        stated = lvlm.family.image_positions(lvlm.model, ids).tolist()
        apart = _entered(lvlm, inputs) - _entered(lvlm, plain_inputs(lvlm, 255 - image))
        seen = torch.nonzero(apart.abs().amax(-1) > 0)[:, 0].tolist()
        kinds = ", ".join(subject.named(token) for token in sorted({int(ids[n]) for n in seen}))
        own = subject.named(lvlm.family.image_token(lvlm.model))
        if not seen:
            return failed("another picture changes no token of the prompt: the model does not see it")
        if len(stated) != rows * columns:
            return failed(
                f"{len(stated)} image tokens {own} for a grid of {rows} x {columns} ({framing} framing); "
                f"another picture changes {len(seen)} tokens: {kinds}. See grid, image_token and "
                "image_positions of the family"
            )
        if set(stated) != set(seen):
            lost, more = len(set(seen) - set(stated)), len(set(stated) - set(seen))
            return failed(
                f"the image tokens {own} are not those that another picture changes, {kinds}: {lost} of "
                f"those are left out, and {more} others taken in ({framing} framing)"
            )
        sizes.append(f"{rows} x {columns}")
    return passed(f"the tokens {own}, on grids of {' and '.join(sizes)}, are all that a picture changes")


def positions(subject: Subject) -> CheckResult:
    """A patch of the picture that is changed moves the embedding of the token at its place most.

    The patch becomes checks of random colours, which no embedding is blind to. A vision tower mixes its
    patches, and some tokens answer whatever changes: so the change of a token is taken relative to its mean
    change by the other patches. The patch's own token has to be of high rank in each quarter of the picture,
    and no other order of the tokens may explain the changes better.
    """
    lacking = subject.lvlm.family.lacks.get("image_tokens")
    if lacking is not None:
        return not_applicable(lacking)
    sentences = []
    for framing, lvlm in subject.framings.items():
        image = smooth_picture(*SHAPES[framing])
        before = lvlm.encode(image, QUESTION, "Yes.")
        rows, columns = before.grid.rows, before.grid.columns
        if min(rows, columns) < 3:
            return not_applicable(f"a grid of {rows} x {columns} is too coarse to tell places apart")
        points: list[tuple[int, int]] = []
        changes = []
        embedded = _embedded(lvlm, before)
        for cell, (x1, y1, x2, y2) in _patches(before):
            changed = image.copy()
            changed[y1:y2, x1:x2] = _checks(y2 - y1, x2 - x1, len(points))
            after = _embedded(lvlm, lvlm.encode(changed, QUESTION, "Yes."))
            points.append(cell)
            changes.append((after - embedded).norm(dim=-1).cpu().numpy().astype(float))
        relative = _relative(np.stack(changes))
        own = _explained(relative, [r * columns + c for r, c in points])
        others = [
            (_explained(relative, [order(r, c) for r, c in points]), name)
            for name, order in _orders(rows, columns)
        ]
        best, name = max(others)
        if best > own:
            return failed(
                f"tokens do not lie where the grid of {rows} x {columns} says ({framing} framing): changes "
                f"fit a grid that is {name}; see grid and image_positions of the family"
            )
        ranks = _ranks(relative, [r * columns + c for r, c in points])
        quarters = ranks.reshape(4, -1).mean(1)
        if quarters.min() < _RANK:
            worst = ("upper left", "upper right", "lower left", "lower right")[int(quarters.argmin())]
            return failed(
                f"tokens do not lie where the grid of {rows} x {columns} says ({framing} framing): in the "
                f"{worst} quarter the token of a changed patch changes more than {quarters.min():.0%} of "
                "all; see grid and image_positions of the family"
            )
        first = int((ranks == 1).sum())
        sentences.append(f"{first} of {len(points)} on {rows} x {columns}")
    return passed(f"the token of a changed patch changes most: {' and '.join(sentences)}")


class _EnteredError(Exception):
    """Ends a pass where the decoder begins: what entered it is all that is asked for."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


@torch.inference_mode()
def _entering(lvlm: HuggingFaceLVLM, run: Callable[[], object]) -> torch.Tensor:
    """The states that enter the decoder's first block in the pass that `run` makes: (length, width), float32.

    The blocks themselves do not run.
    """

    def stop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _EnteredError(args[0] if args else kwargs["hidden_states"])

    with lvlm.decoder.layers[0].register_forward_pre_hook(stop, with_kwargs=True):
        try:
            run()
        except _EnteredError as reached:
            return reached.states[0].float()
    raise RuntimeError("a pass of the model does not go through the first block of its decoder")


def _embedded(lvlm: HuggingFaceLVLM, example: EncodedExample) -> torch.Tensor:
    """The states that enter the decoder at the picture's tokens of an example: (tokens, width)."""
    return _entering(lvlm, lambda: lvlm.trace(example))[example.image_positions]


def _entered(lvlm: HuggingFaceLVLM, inputs: Any) -> torch.Tensor:
    """The states that enter the decoder with the processor's inputs: (length, width)."""
    return _entering(lvlm, lambda: lvlm.model.base_model(**inputs, use_cache=False))


def _patches(example: EncodedExample) -> Iterator[tuple[tuple[int, int], tuple[int, int, int, int]]]:
    """Cells of the grid, (row, column), each with the box of the picture [x1, y1, x2, y2] that it shows."""
    rows, columns = example.grid.rows, example.grid.columns
    height, width = example.image.shape[:2]
    ((left, top, right, bottom),) = example.grid.view.place([[0, 0, width, height]], rows, columns)
    down, across = example.grid.seen
    left, right, top, bottom = left / across, right / across, top / down, bottom / down
    across, down = width / (right - left), height / (bottom - top)
    for y, x in _PLACES:
        row = min(rows - 1, int(top + y * (bottom - top)))
        column = min(columns - 1, int(left + x * (right - left)))
        box = (
            (column - left) * across,
            (row - top) * down,
            (column + 1 - left) * across,
            (row + 1 - top) * down,
        )
        x1, y1, x2, y2 = (round(edge) for edge in box)
        yield (row, column), (max(0, x1), max(0, y1), min(width, x2), min(height, y2))


def _checks(height: int, width: int, seed: int) -> UInt8Image:
    """Three by three checks of random colours, each channel black or full: (height, width, 3)."""
    colours = 255 * np.random.default_rng((seed, 7)).integers(0, 2, (3, 3, 3), dtype=np.uint8)
    rows, columns = (np.arange(side) * 3 // side for side in (height, width))
    return colours[rows][:, columns]


def _relative(changes: _Array) -> _Array:
    """Changes (patches, tokens), each relative to the mean of what the other patches do to the token."""
    others = (changes.sum(0) - changes) / (len(changes) - 1)
    found: _Array = changes / (others + 1e-3 * changes.mean() + 1e-30)
    return found


def _explained(relative: _Array, cells: list[int]) -> float:
    """How well the changes fit if patch n is shown by token `cells[n]`: the mean log of the change."""
    return float(np.log(relative[np.arange(len(cells)), cells] + 1e-30).mean())


def _ranks(relative: _Array, cells: list[int]) -> _Array:
    """The share of the other tokens that change no more than the patch's own."""
    own = relative[np.arange(len(cells)), cells][:, None]
    found: _Array = ((relative <= own).sum(1) - 1) / (relative.shape[1] - 1)
    return found


def _orders(rows: int, columns: int) -> Iterator[tuple[str, Callable[[int, int], int]]]:
    """Wrong orders of tokens: a name, and the token that would show a cell (row, column)."""
    last, height, width = rows * columns - 1, rows // 2, columns // 2

    def turned(row: int, column: int) -> int:
        """As if the grid had `columns` rows and `rows` columns."""
        down, right = (row + 0.5) / rows, (column + 0.5) / columns
        return int(down * columns) * rows + int(right * rows)

    yield "flipped left to right", lambda r, c: r * columns + columns - 1 - c
    yield "upside down", lambda r, c: (rows - 1 - r) * columns + c
    yield "turned by half", lambda r, c: last - (r * columns + c)
    yield "transposed, column by column", lambda r, c: c * rows + r
    if rows != columns:
        yield "transposed, with rows for columns", turned
    yield "one token late", lambda r, c: min(last, r * columns + c + 1)
    yield "one token early", lambda r, c: max(0, r * columns + c - 1)
    yield "one row late", lambda r, c: min(rows - 1, r + 1) * columns + c
    yield "one row early", lambda r, c: max(0, r - 1) * columns + c
    if rows % 2 == 0 and columns % 2 == 0:
        yield (
            "made of tiles, two by two, one after the other",
            lambda r, c: (r // height * 2 + c // width) * height * width + r % height * width + c % width,
        )
        for order in list(permutations(range(4)))[1:]:
            yield (
                "made of quarters, which are swapped",
                lambda r, c, order=order: (  # type: ignore[misc]
                    (order[r // height * 2 + c // width] // 2 * height + r % height) * columns
                    + order[r // height * 2 + c // width] % 2 * width
                    + c % width
                ),
            )
