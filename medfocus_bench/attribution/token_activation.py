"""Token activation maps: the logit lens at the image tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.attribution.attention import chosen_block
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.errors import InputError
from medfocus_bench.text import same

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

Words = Literal["response", "question", "both"]
"""Whose tokens are looked for in the image: the target's, those of the question's content words, or both."""

Lens = Literal["output", "input"]
"""The embedding that hidden states are compared with: that by which the model writes a token, or that by
which it reads one. They are the same matrix where a checkpoint ties them (Gemma 3, Qwen2.5-VL 3B)."""

_ANY_QUESTION: Final = (
    "a an and any answer are as at be by can chest do does evidence find finding findings for from have how "
    "i image in is it no of on or patient photo picture please radiograph ray scan see seen show shown shows "
    "sign signs that the there these this to visible was what where which with x xray yes you your"
)
_GENERIC: Final = frozenset(_ANY_QUESTION.split())
"""Words that a question about any finding may hold."""

_WORD: Final = re.compile(r"[^\W_]+")

_LAYERS: Final = 8
"""Blocks that are tried at most when settings are chosen."""


@dataclass(frozen=True)
class TokenActivationMap(Method):
    """Li et al. 2025: the logit lens at the image tokens, less what earlier text explains. One pass.

    For each target token w, with h_p the normed hidden state at position p and e_w a token's embedding:
    A_w(p) = max(0, h_p . e_w) at the image positions; the interference I_w is the mean of the maps A_v of
    the text tokens v before w (the question's and the response's, w itself left out), each weighted by
    max(0, h_v . e_w), by how much its own position already says w; the map is max(0, A_w - s I_w), with s
    by least squares, and then a rank-Gaussian filter. The result is the mean over the tokens.

    In a causal decoder the image comes before the question: what stands at its positions cannot depend on
    the question, nor on the answer. The lens of "Yes" is therefore the same map for every finding. `words`
    "question" looks for the finding that was asked for instead, the question's content words; the answer
    has no part in it, so it shows where the model sees the finding and not what made it answer. `lens`
    "input" compares with the embeddings by which those words were read: untied output embeddings know
    nothing of words that a model never writes.

    `layer` None reads the last block, as the paper does; another block's output goes through the final
    norm. `centred` takes logits relative to their mean over the image before they are cut at zero: a logit
    has no zero of its own. `interference` and `denoise` (the filter's side in tokens; 1: no filter) are the
    paper's two steps.
    """

    name = "token-activation-map"
    title = "Token Activation Map"
    family = "other"
    needs = ("forward",)
    assumes = ("image_tokens",)
    description = (
        "Logit lens at the image tokens; with both steps, less what earlier text explains, and denoised."
    )
    paper = "https://arxiv.org/abs/2506.23270"

    words: Words = "response"
    layer: int | None = None
    lens: Lens = "output"
    centred: bool = False
    interference: bool = True
    denoise: int = 3

    def __post_init__(self) -> None:
        if self.denoise < 1 or self.denoise % 2 == 0:
            raise InputError(
                f"{self.name}: denoise {self.denoise} is not an odd number of tokens; 1 is without filter"
            )

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Words, lenses where they differ and blocks, each as in the paper and as the plain, centred lens."""
        tied = lvlm.head.weight.data_ptr() == _input_embedding(lvlm).data_ptr()
        blocks = np.linspace(lvlm.layers - 1, 0, min(lvlm.layers, _LAYERS)).round().astype(int)
        for words in ("response", "question", "both"):
            for lens in ("output",) if tied else ("output", "input"):
                for layer in blocks.tolist():
                    for plain in (False, True):
                        steps = {"centred": plain, "interference": not plain, "denoise": 1 if plain else 3}
                        yield {"words": words, "lens": lens, "layer": layer} | steps

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        asked, content = question_tokens(lvlm, example)
        answered = [example.answer[offset] for offset in example.offsets(target)]
        wanted = {"response": answered, "question": content, "both": [*content, *answered]}[self.words]
        text = [*asked, *example.answer]
        image, said = self._activations(lvlm, example, text)
        shape = (example.grid.rows, example.grid.columns)
        ids = example.ids.cpu().numpy()[text]
        maps = []
        for token in (text.index(position) for position in wanted):
            activation = image[:, token]
            if self.interference:
                others = np.flatnonzero(ids[:token] != ids[token])
                activation = without_interference(activation, image[:, others], said[others, token])
            maps.append(rank_gaussian(activation.reshape(shape), self.denoise))
        return Attribution(saliency=example.grid.saliency(np.mean(maps, axis=0)))

    def _activations(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, text: Sequence[int]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """How much the image (image tokens, text) and the text (text, text) say each token of the text."""
        layer = lvlm.layers - 1 if self.layer is None else chosen_block(self.name, lvlm, self.layer)
        trace = lvlm.trace(example, hidden=[layer])
        with torch.inference_mode():
            hidden = lvlm.decoder.norm(trace.hidden[layer])[0].to(lvlm.device)
            said = torch.tensor(text).to(lvlm.device)
            positions = torch.cat([example.image_positions, said])
            if self.lens == "output":
                logits = lvlm.head.logits(hidden[positions], example.ids[said])
            else:
                logits = hidden[positions].float() @ _input_embedding(lvlm)[example.ids[said]].float().T
            count = len(example.image_positions)
            # In double precision a map without contrast has exactly its mean, and is empty once centred.
            logits = logits.cpu().double()
            if self.centred:
                logits = logits - logits[:count].mean(0)
        activations = logits.clamp(min=0).numpy()
        return activations[:count], activations[count:]


def without_interference(
    activation: npt.NDArray[np.float64], earlier: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The part of a map (tokens,) that the weighted (words,) maps of earlier words (tokens, words) leave.

    max(0, A - s I), where I is the weighted mean of the earlier maps and s = A . I / I . I; A itself where
    none of them has weight.
    """
    total = weights.sum()
    if total <= 0:
        return activation
    mean = earlier @ (weights / total)
    power = mean @ mean
    scale = activation @ mean / power if power > 0 else 0.0
    return np.asarray(np.clip(activation - scale * mean, 0.0, None))


def rank_gaussian(values: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """The rank-Gaussian filter of a map (rows, columns) that is nowhere negative.

    Each value becomes a mean of the sorted values of the window `side` x `side` around it, weighted by a
    Gaussian over ranks around the median; its standard deviation is the window's coefficient of variation,
    so a window of equal values gives that value and a lone peak is pulled down to what surrounds it. The
    map goes on mirrored at its edges.
    """
    if side == 1:
        return values
    padded = np.pad(values, side // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    ranked = np.sort(windows.reshape(*values.shape, side**2), axis=-1)
    mean = ranked.mean(-1, keepdims=True)
    variation = ranked.std(-1, keepdims=True) / np.where(mean > 0, mean, 1.0)
    ranks = np.arange(side**2) - side**2 // 2
    # Without variation only the median counts; so small a deviation stands for that.
    weights = np.exp(-0.5 * (ranks / np.maximum(variation, 1e-3)) ** 2)
    return np.asarray((ranked * weights).sum(-1) / weights.sum(-1))


def question_tokens(lvlm: HuggingFaceLVLM, example: EncodedExample) -> tuple[list[int], list[int]]:
    """Positions of the question's own tokens, and of those among them that make it this question.

    The latter belong to words of its first sentence, up to a question mark, that are not generic. Without
    any, or where the template merged the question's tokens with its own, both are all the text after the
    image.
    """
    start = int(example.image_positions[-1]) + 1
    prompt = example.ids[start : example.answer.start].tolist()
    for text in (example.question, " " + example.question, example.question.strip()):
        encoded = lvlm.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        # The template may have merged the first token or the last one.
        for first, last in ((0, len(ids)), (1, len(ids)), (0, len(ids) - 1), (1, len(ids) - 1)):
            place = _place(prompt, ids[first:last])
            if place is not None:
                positions = [start + place + number for number in range(last - first)]
                own = _content(text, spans[first:last])
                return positions, [positions[number] for number in own] or positions
    everything = list(range(start, example.answer.start))
    return everything, everything


def _place(ids: Sequence[int], part: Sequence[int]) -> int | None:
    """Where `part` begins in `ids`; None where it does not occur or is empty."""
    places = range(len(ids) - len(part) + 1) if part else ()
    return next((place for place in places if ids[place : place + len(part)] == part), None)


def _content(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Which of the tokens at `spans` of a question's text belong to a word that is not generic."""
    sentence = text.partition("?")[0]
    words = [match.span() for match in _WORD.finditer(sentence) if same(match[0]) not in _GENERIC]
    return [
        number
        for number, (start, stop) in enumerate(spans)
        if any(start < end and begin < stop for begin, end in words)
    ]


def _input_embedding(lvlm: HuggingFaceLVLM) -> torch.Tensor:
    weight: torch.Tensor = lvlm.model.get_input_embeddings().weight
    return weight
