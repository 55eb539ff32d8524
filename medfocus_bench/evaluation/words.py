"""Words and concepts: whether a method's token and concept scores are those of the cause.

Where the effects of the cause are known (see `data.truth`), a ranking of the response's tokens, or of the
concepts, is held against them by a normalised discounted cumulative gain. The gain of an item is its effect,
or 0 where healing raises the probability. With d(k) = 1 / log2(k + 1) for the k-th place,

    DCG = sum over places of d(k) gain(k)        E = mean(gain) sum over places of d(k)
    score = (DCG - E) / (ideal DCG - E)

E is what random orders have on average, exactly: a random order has 0, the order of the effects 1, and less
than 0 is worse than chance. Items of equal score share the places that they take together. (Jarvelin and
Kekalainen 2002, "Cumulated gain-based evaluation of IR techniques"; ties as in McSherry and Najork 2008.)

Where no concept holds a tenth of the whole drop, as for a mark beside the anatomy, "none" is the answer.
A method says none where it lists concepts and none of them has a score above 0, or where an entry `none` has
the highest. A method has concepts where it names one of the benchmark's, or `none`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS, concept_named
from medfocus_bench.data.sample import Sample
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import FloatArray
from medfocus_bench.submission.schema import Strict
from medfocus_bench.text import same

NONE: Final = "none"
"""The name of an entry by which a method says that no concept is the answer."""

_KNOWN: Final = frozenset((*CONCEPTS, *COMPOSITES, NONE))

NO_CONCEPT: Final = 0.1
"""Of the whole drop; where every concept's effect is under this share, no concept is the answer."""

_OF_TOKENS: Final = ("token_ndcg",)
_OF_CONCEPTS: Final = ("concept_ndcg", "abstention")


def ndcg(scores: npt.ArrayLike, gains: npt.ArrayLike) -> float | None:
    """The corrected nDCG of items by their scores (n,) and gains (n,), at least 0; see the module.

    None where any order is as good as any other: no gain at all, or all gains equal.
    """
    values, gained = np.asarray(scores, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if not len(gained) or gained.min() == gained.max():
        return None
    discounts = _discounts(len(gained))
    chance = _dcg(np.zeros_like(gained), gained, discounts)
    return float((_dcg(values, gained, discounts) - chance) / (_dcg(gained, gained, discounts) - chance))


@lru_cache
def _discounts(count: int) -> FloatArray:
    """d(k) of the first `count` places."""
    return np.asarray(1 / np.log2(np.arange(count) + 2))


def _dcg(scores: FloatArray, gains: FloatArray, discounts: FloatArray) -> float:
    """The DCG, items of equal score sharing their places: of equal scores alone, the mean of all orders."""
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    shared = np.add.reduceat(discounts, np.cumsum(sizes) - sizes)
    return float((np.bincount(group, weights=gains) / sizes) @ shared)


def on_tokens(given: Iterable[tuple[str, float]], tokens: Sequence[str]) -> FloatArray:
    """The scores of a method's tokens on the response's own, which may be cut otherwise: (len(tokens),).

    Both are found in the response's text: a token of the method at the next place where its text stands,
    spaces around it left out. A token of the response has the mean score of its characters; characters that
    the method says nothing about, or no number, count as 0.
    """
    text = "".join(tokens)
    scores, covered, at = np.zeros(len(text)), np.zeros(len(text), dtype=np.bool_), 0
    for part, score in given:
        word = part.strip()
        found = text.find(word, at) if word else -1
        if found >= 0:
            at = found + len(word)
            scores[found:at], covered[found:at] = (0.0 if np.isnan(score) else score), True
    ends = np.cumsum([len(token) for token in tokens])
    result = np.zeros(len(tokens))
    counted = covered | np.array([not character.isspace() for character in text], dtype=np.bool_)
    for number, (end, token) in enumerate(zip(ends.tolist(), tokens, strict=True)):
        own = slice(end - len(token), end)
        if counted[own].any():
            result[number] = scores[own][counted[own]].mean()
    return result


def has_concepts(concepts: Mapping[str, float]) -> bool:
    """Whether concepts of a method name any of the benchmark's, or none; other names cannot be scored."""
    return not {same(name) for name in concepts}.isdisjoint(_KNOWN)


def says_none(concepts: Mapping[str, float]) -> bool:
    """Whether the scores of a method's concepts say that no concept is the answer; not where it has none."""
    best = max((value for value in concepts.values() if not np.isnan(value)), default=1.0)
    return best <= 0 or any(same(name) == NONE for name, value in concepts.items() if value == best)


def token_ndcg(tokens: Sequence[tuple[str, float]], sample: Sample) -> float | None:
    """The corrected nDCG of a method's tokens; None where the effects of the sample's are not known."""
    own, effects = sample.tokens, sample.token_effects
    return None if own is None or effects is None else ndcg(on_tokens(tokens, own), np.maximum(0, effects))


def concept_ndcg(concepts: Mapping[str, float], sample: Sample) -> float | None:
    """The corrected nDCG of a method's concepts; a concept that it does not list has the score 0.

    None where the effects of the sample's concepts are not known, and where no concept is the answer.
    Concepts beyond those of the benchmark do not count.
    """
    effects = sample.concept_effects
    if effects is None or no_concept(sample):
        return None
    named = {concept_named(name): score for name, score in concepts.items() if not np.isnan(score)}
    scores = [named.get(concept_named(name), 0.0) for name in effects]
    return ndcg(scores, np.maximum(0, list(effects.values())))


def no_concept(sample: Sample) -> bool | None:
    """Whether no concept is the answer of a sample; None where the effects of its concepts are not known."""
    effects, drop = sample.concept_effects, sample.drop
    if not effects or drop is None:
        return None
    return max(effects.values()) < NO_CONCEPT * drop


@dataclass(frozen=True, slots=True)
class Heard:
    """The scores of one attribution's words, None where one does not apply to the sample.

    `tokens`, `concepts`: whether it has any.
    """

    tokens: bool
    concepts: bool
    token_ndcg: float | None
    concept_ndcg: float | None
    abstention: float | None

    @classmethod
    def words_of(cls, attribution: Attribution, sample: Sample) -> Heard | None:
        """Those of an attribution that has words; None for another, of which nothing need be known."""
        has_words = attribution.tokens or has_concepts(attribution.concepts)
        return cls.of(attribution.tokens, attribution.concepts, sample) if has_words else None

    @classmethod
    def of(cls, tokens: Sequence[tuple[str, float]], concepts: Mapping[str, float], sample: Sample) -> Heard:
        """Those of tokens and concepts, of which there may be none: they rank nothing."""
        return cls(
            bool(tokens),
            has_concepts(concepts),
            token_ndcg(tokens, sample),
            concept_ndcg(concepts, sample),
            float(says_none(concepts)) if no_concept(sample) else None,
        )


def word_scores(attribution: Attribution | None, sample: Sample) -> dict[str, float]:
    """`token_ndcg`, `concept_ndcg` and `abstention` of one attribution, those that apply to it."""
    heard = None if attribution is None else Heard.words_of(attribution, sample)
    if heard is None:
        return {}
    names = (_OF_TOKENS if heard.tokens else ()) + (_OF_CONCEPTS if heard.concepts else ())
    return {name: value for name in names if (value := getattr(heard, name)) is not None}


class WordScore(Strict):
    """A score with the samples that it applies to."""

    samples: Annotated[int, Field(ge=1)]
    score: Score


class Words(Strict):
    """The scores of a method's words and concepts; None where it gives none, or where nothing is known.

    Of a method that gives some, samples without any count 0.
    """

    token_ndcg: WordScore | None = None
    concept_ndcg: WordScore | None = None
    abstention: WordScore | None = None


def aggregate(samples: Sequence[Sample], heard: Mapping[str, Heard], settings: Settings) -> Words | None:
    """The section of a report, from the words of those attributions of `samples` that have any.

    None where none has any, or where the effects of no sample are known.
    """
    names = [*_OF_TOKENS] if any(one.tokens for one in heard.values()) else []
    names += _OF_CONCEPTS if any(one.concepts for one in heard.values()) else []
    if not names:
        return None
    all_heard = [heard.get(sample.sample_id) or Heard.of((), {}, sample) for sample in samples]
    found = {
        name: _mean([(s, getattr(one, name)) for s, one in zip(samples, all_heard, strict=True)], settings)
        for name in names
    }
    return Words(**found) if any(found.values()) else None


def _mean(pairs: Iterable[tuple[Sample, float | None]], settings: Settings) -> WordScore | None:
    """The macro mean over the samples to which a score applies."""
    held = [(sample, value) for sample, value in pairs if value is not None]
    if not held:
        return None
    groups = Groups.of([sample for sample, _ in held])
    [[interval]] = groups.means(np.array([[value] for _, value in held]), [groups.macro()], settings)
    return WordScore(samples=len(held), score=Score.of(interval))
