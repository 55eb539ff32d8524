"""How an LVLM writes: greedily, by itself or with the penalties of its checkpoint.

A checkpoint says in its generation config how it likes to be sampled: temperatures, beams, least lengths,
drafts looked up in the prompt, penalties. None of that may rule in silence. With beams or drafts the logits
of a step are not those of the token that was written there, and a least length or a penalty writes another
text. So the model is given a config of its own when it is loaded, that holds no more than what is meant.
Log-odds are taken before any penalty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from medfocus_bench.data.questions import Decoding, Mode
from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from transformers import GenerationConfig

ENDS: Final = ("eos_token_id", "pad_token_id")
"""The fields of a checkpoint's generation config that hold for either: what ends a response, and pads it."""

PENALTIES: Final = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "exponential_decay_length_penalty",
)
"""The fields that weigh tokens; with `checkpoint` they hold, too."""

_TOKENS: Final[Mapping[Mode, int]] = {"direct": 64, "reasoning": 512}
_PAPER_TOKENS: Final = 256


def most_tokens(decoding: Decoding, mode: Mode = "reasoning") -> int:
    """The tokens that a response may have; one that is cut off before its verdict has none.

    64 in direct mode and 512 in reasoning mode; with `checkpoint` 256 in both, as in the paper's code.
    """
    return _PAPER_TOKENS if decoding == "checkpoint" else _TOKENS[mode]


def end_tokens(config: GenerationConfig) -> list[int]:
    """The tokens that end a response by a generation config; they need not be special to the tokenizer.

    Raises InputError for other values.
    """
    own = config.eos_token_id
    found = [] if own is None else list(own) if isinstance(own, list | tuple) else [own]
    if not all(type(token) is int for token in found):
        raise InputError(f"the generation config has an eos_token_id {own!r}; give a number or several")
    return found


def generation_config(own: GenerationConfig, decoding: Decoding) -> GenerationConfig:
    """The generation config of a model, given that of its checkpoint.

    Raises InputError for end tokens that are not numbers.
    """
    from transformers import GenerationConfig

    end_tokens(own)
    kept = (*ENDS, *PENALTIES) if decoding == "checkpoint" else ENDS
    return GenerationConfig(do_sample=False, num_beams=1, **{name: getattr(own, name, None) for name in kept})
