"""Text and tokens: prompts, responses, and the position of a verdict in a response."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch

from medfocus_bench.answers import log_odds
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.protocol import Response
from medfocus_bench.verdicts import stated_verdict

_FORMS: Final = ("{}", " {}", "\n{}")
"""Text before a verdict; a tokenizer may have a token for each combination."""

_SIGNED: Final = re.compile(r"([\W_]+)(yes|no)", re.IGNORECASE)


def message(role: str, text: str, *, picture: bool = False) -> dict[str, Any]:
    """A message of a chat; the picture stands before the text."""
    content: list[dict[str, str]] = [{"type": "image"}] if picture else []
    return {"role": role, "content": [*content, {"type": "text", "text": text}]}


class ChatFormatter:
    """The tokenizer and chat template of an LVLM; batches are padded on the left.

    `yes` and `no` are the tokens that spell a verdict in one piece, in any case and after a space or not, or
    after a sign that the vocabulary joins to either word, as Qwen's joins a quotation mark. `special` are
    those that stand for pictures, turns, starts and ends, without the marks that a family writes within its
    responses, such as those of boxes. A response stops before the first of `ends`: the special tokens, and
    those that end it by the generation config, which may be any. Raises InputError where no token spells a
    verdict.
    """

    def __init__(self, key: str, processor: Any, family: Family, ends: Iterable[int] = ()) -> None:
        self.key, self.processor, self.family = key, processor, family
        self.tokenizer: Any = processor.tokenizer
        self.tokenizer.padding_side = "left"
        # A checkpoint names a few of its special tokens by their role and only marks the others as special.
        added = self.tokenizer.added_tokens_decoder
        marked = (token for token, about in added.items() if about.special)
        markup = {token for token, about in added.items() if about.content in family.markup}
        self.special = frozenset([*self.tokenizer.all_special_ids, *marked]) - markup
        self.ends = self.special | {*ends}
        after_signs = self._after_signs()
        self.yes, self.no = (sorted({*self._spelling(word), *after_signs[word]}) for word in ("yes", "no"))

    def prompt(self, messages: list[Any]) -> str:
        """The text of a chat, up to where the response begins.

        Raises InputError for words that the model would read as pictures or turns of the chat.
        """
        for message in messages:
            kind = "question" if message["role"] == "user" else "response"
            for part in message["content"]:
                self._ids(kind, part.get("text", ""))
        prompt = self.family.prompt(self.processor, messages)
        bos = self.tokenizer.bos_token
        # The processor adds the start token again: a doubled one changes answers.
        return prompt.removeprefix(bos) if bos and self._adds_bos() else prompt

    def tokenised(self, text: str) -> Response:
        """A text as a response. Raises InputError for one that does not come back unchanged."""
        ids = self._ids("response", text)
        if self._decoded(ids) != text:
            raise InputError(f"the response {text[:80]!r} cannot be written with the tokens of {self.key}")
        return Response(text, tuple(ids), None)

    @property
    def verdicts(self) -> list[int]:
        """The tokens that spell a verdict, those of yes first."""
        return [*self.yes, *self.no]

    def response(self, ids: list[int], logits: Sequence[torch.Tensor]) -> Response:
        """The written response: the ids up to the first of `ends`, with the log-odds at the verdict.

        `logits`: for each of the ids those of the tokens of `verdicts`, in their order.
        """
        own = ids[: self.length(ids)]
        text = self._decoded(own)
        stated = self.verdict_at(own, text)
        places = range(len(self.verdicts))
        yes, no = places[: len(self.yes)], places[len(self.yes) :]
        odds = None if stated is None else log_odds(logits[stated].numpy(), yes, no)
        return Response(text, tuple(own), odds)

    def length(self, ids: Sequence[int]) -> int:
        """How many of the ids that a model wrote are its response: those before the first that ends it."""
        return next((n for n, token in enumerate(ids) if token in self.ends), len(ids))

    def verdict_at(self, ids: Sequence[int], text: str) -> int | None:
        """Position of the token that spells the verdict: the one with the characters that decide.

        Of a response without a verdict the last token that spells either word. None where there is none, and
        where the verdict is spelled by several tokens or by one that spells more than it: the yes and no of
        another place would be those of other words.
        """
        stated = stated_verdict(text)
        if stated is None:
            spelled = [n for n, token in enumerate(ids) if token in self.verdicts]
            return spelled[-1] if spelled else None
        until = (len(self._decoded(ids[: n + 1])) for n in range(len(ids)))
        at = next((n for n, end in enumerate(until) if stated.start < end), len(ids))
        return at if set(ids[at : at + 1]) & {*(self.yes if stated.verdict == "yes" else self.no)} else None

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def _ids(self, kind: str, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        special = sorted(set(ids) & self.special)
        if special:
            named = ", ".join(self.tokenizer.convert_ids_to_tokens(special))
            raise InputError(
                f"the {kind} {text[:80]!r} holds special tokens of the model ({named}): leave them out"
            )
        return ids

    def _adds_bos(self) -> bool:
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    def _after_signs(self) -> dict[str, set[int]]:
        """The tokens that spell a verdict after signs, by word; of signs that stand before either word.

        Where a vocabulary has `>No` and no `>Yes`, one step does not choose between the two.
        """
        found: dict[str, dict[str, set[int]]] = {}
        for piece, token in self.tokenizer.get_vocab().items():
            if piece.lower().endswith(("yes", "no")) and token not in self.special:
                signed = _SIGNED.fullmatch(self._decoded([token]))
                if signed:
                    found.setdefault(signed[1], {}).setdefault(signed[2].lower(), set()).add(token)
        pairs = [words for words in found.values() if len(words) == 2]
        return {word: {token for words in pairs for token in words[word]} for word in ("yes", "no")}

    def _spelling(self, word: str) -> list[int]:
        found = set()
        for spelling in (word, word.capitalize(), word.upper()):
            for form in _FORMS:
                ids = self.tokenizer(form.format(spelling), add_special_tokens=False)["input_ids"]
                if self.tokenizer.decode(ids[-1:]).strip().lower() == word:
                    found.add(ids[-1])
        if not found:
            raise InputError(f"{self.key}: its tokenizer has no token for {word!r}")
        return sorted(found)
