"""Where a text states yes or no: the reading behind `answers.parse_verdict`.

The text is cut into words and signs once; every rule looks at a bounded number of them, so that the work
grows with the length of the text alone, whatever a model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from medfocus_bench.text import plain_places

Verdict = Literal["yes", "no"]

MAX_CHARACTERS: Final = 100_000
"""Of a longer text the end is read: conclusions stand there."""

_SPELLED: Final[dict[str, Verdict]] = {
    **dict.fromkeys(("yes", "yep", "yeah", "yup"), "yes"),
    **dict.fromkeys(("no", "nope", "nah"), "no"),
}
_TRUTH: Final[dict[str, Verdict]] = {"true": "yes", "false": "no"}
"""Values of JSON, which are verdicts only after the name of an answer."""


def _words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


_NAMES: Final = _words(
    "answer answers conclusion verdict decision judgement judgment response result output prediction final",
    "boxed fbox",
)
"""Names of a conclusion."""
_SAYING: Final = _words("say respond reply conclude choose select pick go")
"""Verbs that state one, with a speaker before them."""
_SPEAKERS: Final = _words("i i'd i'll i'm we we'd we'll")
_DENIED: Final = _words(
    "not cannot can't won't wouldn't couldn't shouldn't don't isn't never unable neither nor"
)
_ABOUT: Final = _words("to for of on in about regarding")
_IS: Final = _words("is are was be")
_BETWEEN: Final = _NAMES | _words(
    "is are was be been would should must will has have to then here therefore so thus hence likely most",
    "very probably clearly clear definitely definite certainly certain simply resounding firm strong still",
    "indeed option choice that with as the this my a an correct short best appropriate i think believe",
    "b c d e",
)
"""Words that may stand between the name of a conclusion and the conclusion."""
_OPENING: Final = _words(
    "so thus hence therefore overall likely most probably clearly definitely certainly absolutely indeed",
    "well okay ok and but then finally ultimately sure in conclusion summary short sum brief still now",
    "assistant model option",
)
"""Words that open a sentence before a verdict."""
_CORRECTING: Final = _words("wait actually sorry correction")
_CONDITION: Final = _words("if unless when provided depending otherwise")
_CLAUSE: Final = _words(
    "the there there's it it's this that that's these those i i'm i've we he she they a an my is not",
    "because since as but although though while however so and in on at based given due according",
)
"""Words that follow a "no" that is an answer; any other word makes it part of a finding ("no effusion")."""

_STOPS: Final = frozenset(".?\n")
_SIGNS: Final = frozenset(".\n,:-|/")
_EITHER: Final = "either"
_TORN: Final = "torn"
"""Tokens of their own: "yes or no" asks or offers, "yes and no" or "yes, no" claims both."""
_LETTERS: Final = frozenset("abcde")
"""Of the options of a question."""
_LATIN: Final = 0x2FF
"""The last letter of Latin script; a word of another one is not a finding in English."""
_AHEAD: Final = 24
"""Words and signs that a rule looks ahead, at most."""

_TOKEN: Final = re.compile(
    r"(?P<word>\d+(?:[.,]\d+)*|[^\W_]+(?:['-][^\W_]+)*)|(?P<points>-+>|=+>|[:=\u2190-\u21ff\u2794])"
    r"|(?P<dash>[-\u2010-\u2015]+)|(?P<sign>[.!?;,(){}\[\]|/\n])"
)
_SIGN_OF: Final = {**dict.fromkeys(".!;", "."), **dict.fromkeys("?\n|/", ""), **dict.fromkeys(",(){}[]", ",")}
_ORNAMENTS: Final = str.maketrans(dict.fromkeys("*_`#$~\\", " "))
_COMMAND: Final = re.compile(r"\\(?:text|math)[a-z]{0,6}(?=\s{0,4}\{)")
_TAG: Final = re.compile(r"<[|/]?(?P<name>[A-Za-z][^<>\n]{0,40})>|\[/?INST\]")
_THOUGHT: Final = re.compile(
    r"<(?:think|thinking|reasoning)>|<unused94>|<\|channel\|>analysis", re.IGNORECASE
)
_THOUGHT_ENDS: Final = re.compile(
    r"</(?:think|thinking|reasoning)>|<unused95>|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_NEXT_QUESTION: Final = re.compile(
    r"^ {0,60}(?:(?:question|q|user|human) {0,4}:|user {0,4}$)", re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Stated:
    """A verdict, and the characters `start:stop` of the text that spell it."""

    verdict: Verdict
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Claim:
    """Tokens `first:last` conclude `verdict`, or both at once (None); `revised`: against an earlier one."""

    verdict: Verdict | None
    first: int
    last: int
    revised: bool = False


def stated_verdict(text: str) -> Stated | None:
    """The verdict that `text` arrives at with its place; None where it states none. See `parse_verdict`."""
    skipped = max(0, len(text) - MAX_CHARACTERS)
    shown, places = plain_places(text[skipped:])
    shown, places = shown[-MAX_CHARACTERS:], places[-MAX_CHARACTERS:]
    tokens = _Tokens(_without_markup(_without_thought(shown)))
    claim = tokens.conclusion()
    if claim is None or claim.verdict is None:
        return None
    start, stop = tokens.places[claim.last]
    return Stated(claim.verdict, skipped + places[start], skipped + places[stop - 1] + 1)


def _blank(match: re.Match[str]) -> str:
    return "\n" + " " * (len(match[0]) - 1)


def _without_thought(text: str) -> str:
    """Blanks what a model thinks before it answers, and thinking that breaks off; of the same length."""
    start = max((match.end() for match in _THOUGHT_ENDS.finditer(text)), default=0)
    opened = _THOUGHT.search(text, start)
    stop = len(text) if opened is None else opened.start()
    return " " * start + text[start:stop] + " " * (len(text) - stop)


def _without_markup(text: str) -> str:
    """Blanks tags, marks of Markdown and LaTeX; `<answer>` becomes a label. Of the same length."""

    def label(match: re.Match[str]) -> str:
        name = (match["name"] or "").replace("_", " ")
        if name.lower() in _SPELLED:
            return f" {name} "
        named = not _NAMES.isdisjoint(name.lower().split()) and match[0][1] == name[:1]
        return f"\n{name}:" if named else _blank(match)

    return _TAG.sub(label, _COMMAND.sub(lambda match: " " * len(match[0]), text)).translate(_ORNAMENTS)


class _Tokens:
    """The words and signs of a text: `kinds` in lower case, a few signs standing for all, and `places`.

    Signs: `.` ends a sentence, `?` a question, `:` points from a name to its value, `,` parts.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: list[str] = []
        self.places: list[tuple[int, int]] = []
        for match in _TOKEN.finditer(text):
            if match["word"]:
                kind = match["word"].lower()
            elif match["sign"]:
                kind = _SIGN_OF[match["sign"]] or match["sign"]
            else:
                kind = ":" if match["points"] else "-"
            self.kinds.append(kind)
            self.places.append(match.span())
        self._join()

    def conclusion(self) -> _Claim | None:
        """The claim that decides: that of the model's own turn, should it go on to another question."""
        turns = (match.start() for match in _NEXT_QUESTION.finditer(self.text))
        first = next(turns, 0)
        if self.text[:first].strip():
            own = next((n for n, place in enumerate(self.places) if place[0] >= first), len(self.kinds))
            claim = self._decided(own)
            if claim is not None and claim.verdict is not None:
                return claim
        return self._decided(len(self.kinds))

    def _join(self) -> None:
        """Makes one token of a yes and a no that stand together."""
        kinds: list[str] = []
        places: list[tuple[int, int]] = []
        n = 0
        while n < len(self.kinds):
            joined = self._joined(n) if self.kinds[n] in _SPELLED else None
            kind, end = joined or (self.kinds[n], n + 1)
            kinds.append(kind)
            places.append((self.places[n][0], self.places[end - 1][1]))
            n = end
        self.kinds, self.places = kinds, places

    def _joined(self, n: int) -> tuple[str, int] | None:
        """The kind of what is joined from the verdict at `n` on, and where it ends."""
        at = self._past(n + 1, {","})
        joiner = self._kind(at)
        if joiner in ("or", "and", "/", "|"):
            at = self._past(at + 1, {",", "a"})
        other = _SPELLED.get(self._kind(at), _SPELLED[self.kinds[n]])
        if other == _SPELLED[self.kinds[n]]:
            return None
        if joiner in ("or", "/", "|"):
            return _EITHER, at + 1
        return (_TORN, at + 1) if joiner == "and" or self._says(at) else None

    def _decided(self, end: int) -> _Claim | None:
        named: list[_Claim] = []
        alone: list[_Claim] = []
        valued: list[_Claim] = []
        start = 0
        for n in range(end):
            if n and self.kinds[n - 1] in _STOPS:
                start = n
            if self.kinds[start] != "if":
                named += self._named(n, start)
                alone += self._alone(n, start)
                valued += self._valued(n, start)
        if named or alone:
            return self._last(named or alone)
        agreed = len({claim.verdict for claim in valued}) == 1
        return valued[-1] if agreed else None

    def _last(self, claims: Sequence[_Claim]) -> _Claim:
        """The last claim; no verdict if it contradicts the one before without a word between them."""
        last = claims[-1]
        before = next((claim for claim in reversed(claims) if claim.last != last.last), last)
        if before.verdict == last.verdict or last.revised:
            return last
        reasons = (
            kind
            for kind in self.kinds[before.last + 1 : last.first]
            if len(kind) > 1 and kind[0].isalpha() and kind not in _BETWEEN | _OPENING
        )
        return last if any(reasons) else _Claim(None, last.first, last.last)

    def _named(self, n: int, start: int) -> Iterator[_Claim]:
        """A conclusion by name ("the answer is yes"), by a speaker ("I would say yes"), by correction."""
        kind = self.kinds[n]
        if kind not in _NAMES | _SAYING | _CORRECTING:
            return
        before = self.kinds[max(start, n - 5) : n]
        if kind in _CORRECTING:
            at = self._past(n + 1, _CORRECTING | _OPENING | {","})
            if self._says(at) and all(word in _CORRECTING | _OPENING | {","} for word in before):
                yield _Claim(self._verdict(at), n, at, revised=True)
            return
        clause = before[len(before) - before[::-1].index(",") :] if "," in before else before
        if not _DENIED.isdisjoint(clause) or (kind in _SAYING and _SPEAKERS.isdisjoint(clause)):
            return
        starts = [n + 1]
        if self._kind(n + 1) in _ABOUT:
            starts += [at for at in range(n + 2, n + 2 + _AHEAD) if self._kind(at) in _IS | {":"}]
        for at in starts:
            claim = self._claimed(n, at)
            if claim is not None:
                yield claim
                return

    def _claimed(self, n: int, start: int) -> _Claim | None:
        """The claim of the name at `n`, read from `start` on."""
        is_said = False
        for at in range(start, start + _AHEAD):
            kind = self._kind(at)
            if kind == _TORN or (kind == _EITHER and is_said):
                return _Claim(None, n, at)
            if self._says(at) or (kind in _TRUTH and self._kind(at + 1) in _SIGNS | {""}):
                return _Claim(self._verdict(at), n, at)
            if kind not in _BETWEEN and kind not in (_EITHER, ",", ":", "-", "\n"):
                return None
            is_said |= kind in _IS
        return None

    def _alone(self, n: int, start: int) -> Iterator[_Claim]:
        """A verdict that opens a sentence or follows a comma, perhaps after words that lead to it."""
        if n != start and self.kinds[n - 1] != ",":
            return
        at = self._past(n, _OPENING | _LETTERS | {",", "-", ":"})
        if self._kind(at) == _TORN:
            yield _Claim(None, n, at)
        elif self._says(at):
            yield _Claim(self._verdict(at), n, at)

    def _valued(self, n: int, start: int) -> Iterator[_Claim]:
        """A verdict as the value of a label ("effusion: yes") or in a cell of a table."""
        if n > start and self.kinds[n - 1] in (":", "-", "|") and self._says(n):
            yield _Claim(self._verdict(n), n, n)

    def _kind(self, n: int) -> str:
        return self.kinds[n] if n < len(self.kinds) else ""

    def _past(self, n: int, skipped: AbstractSet[str]) -> int:
        """The first token from `n` on that is not among the skipped, nor the number of an item."""
        for at in range(n, n + _AHEAD):
            if self._kind(at) not in skipped and not self._kind(at).isdigit():
                return at
        return n + _AHEAD

    def _says(self, n: int) -> bool:
        """Whether the word is a verdict that is stated: not asked, under no condition, in no finding."""
        verdict, following = _SPELLED.get(self._kind(n)), self._kind(n + 1)
        if verdict is None or following == "?" or following in _CONDITION:
            return False
        is_answer = (
            following in _SIGNS | _CLAUSE or following in _SPELLED or following in (_EITHER, _TORN, "")
        )
        return verdict == "yes" or is_answer or ord(following[0]) > _LATIN

    def _verdict(self, n: int) -> Verdict:
        return (_SPELLED | _TRUTH)[self.kinds[n]]
