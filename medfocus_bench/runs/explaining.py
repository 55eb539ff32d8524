"""The work of a run on some samples: encode each once, and explain it with every method that lacks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method, measured, refuse_family
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import BenchmarkError, InputError, UnavailableError
from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.fitting import fitting
from medfocus_bench.runs.checkpoints import loaded_identity
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import MethodSpec
from medfocus_bench.submission.maps import as_stored

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

EXPECTED = (InputError, ValueError)
"""Errors of a sample that cannot be explained; any other is a fault of the program."""

MOST_SAMPLES: Final = 8
"""Samples of a block, about: what is done again where a worker is lost."""


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of an LVLM, each with the numbers of the methods that lack it; those of a region together."""

    source: str
    samples: tuple[tuple[Sample, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """The outcome of a sample and a method: an attribution, or the reason why there is none.

    `asked`: question and response, where the benchmark does not hold what was explained; `checkpoint`: the
    identity of an LVLM that came from the Hub; `lost`: no worker lived to say it.
    """

    sample_id: str
    method: int
    attribution: Attribution | None
    reason: str | None = None
    asked: tuple[str, str] | None = None
    checkpoint: str | None = None
    lost: bool = False


@dataclass(slots=True)
class Explain:
    """Explains blocks of samples; it keeps the methods that it has loaded."""

    specs: Sequence[MethodSpec]
    config: RunConfig
    _methods: dict[tuple[int, str, str], Method] = field(default_factory=dict, repr=False)

    def __call__(self, block: Block) -> Iterator[Explained]:
        lvlm = self.config.load(block.source)
        checkpoint = loaded_identity(lvlm)
        wanted = (self._method(n, sample) for sample, lacking in block.samples for n in lacking)
        refuse_family(wanted, getattr(lvlm, "family", None), lvlm.key)
        for sample, lacking in block.samples:
            for found in self._explained(lvlm, sample, lacking):
                yield replace(found, checkpoint=checkpoint)

    def _explained(
        self, lvlm: HuggingFaceLVLM, sample: Sample, lacking: Sequence[int]
    ) -> Iterator[Explained]:
        key = sample.sample_id
        try:
            example = encode_sample(lvlm, sample)
            asked = (example.question, example.response) if sample.response is None else None
        except EXPECTED as error:
            if ends_run(error):
                raise
            yield from (Explained(key, number, None, reason(error)) for number in lacking)
            return
        for number in lacking:
            method = self._method(number, sample)
            try:
                yield Explained(key, number, explain(method, lvlm, example, key, self.config), asked=asked)
            except EXPECTED as error:
                yield Explained(key, number, None, reason(error))

    def _method(self, number: int, sample: Sample) -> Method:
        key = number, sample.lvlm, sample.mode
        if key not in self._methods:
            self._methods[key] = self.specs[number].load(sample.lvlm, sample.mode)
        return self._methods[key]


def blocks(
    source: str, samples: Sequence[tuple[Sample, tuple[int, ...]]], workers: int = 1
) -> Iterator[Block]:
    """The samples in blocks, those of one region in the same: its picture is looked at in both modes at once.

    Blocks are small where `workers` would otherwise wait for the last one of them.
    """
    pictures: dict[tuple[str, int, str], list[tuple[Sample, tuple[int, ...]]]] = {}
    for sample, lacking in samples:
        pictures.setdefault(sample.region, []).append((sample, lacking))
    size = max(1, min(MOST_SAMPLES, len(samples) // (8 * workers)))
    block: list[tuple[Sample, tuple[int, ...]]] = []
    for of_picture in pictures.values():
        block += of_picture
        if len(block) >= size:
            yield Block(source, tuple(block))
            block = []
    if block:
        yield Block(source, tuple(block))


def encode_sample(lvlm: HuggingFaceLVLM, sample: Sample) -> EncodedExample:
    """The sample as an LVLM reads it; where it has no response, the LVLM writes one now.

    Raises one of `EXPECTED`: for a picture that cannot be decoded or a response without tokens, which
    concern this sample alone, and for a benchmark that cannot be read (see `ends_run`).
    """
    image = sample.image
    return encode(lvlm, image, sample.question, sample.response, sample.finding)


def encode(
    lvlm: HuggingFaceLVLM, image: UInt8Image, question: str, response: str | None, finding: str | None
) -> EncodedExample:
    """As `lvlm.encode`. Raises InputError, too, where the picture does not fit into memory."""
    return fitting(lvlm, "the answer", lambda: lvlm.encode(image, question, response, finding=finding))


def ends_run(error: Exception) -> bool:
    """Whether an error concerns the whole benchmark: no pictures at all, a damaged file."""
    return isinstance(error, UnavailableError | BenchmarkError) and not isinstance(error, PictureError)


def explain(
    method: Method, lvlm: HuggingFaceLVLM, example: EncodedExample, sample_id: str, config: RunConfig
) -> Attribution:
    """The attribution of one sample by a method, with its cost, as it is stored.

    Raises InputError for a map with values that are not finite, and where a single picture at a time does
    not fit into the memory of the device.
    """
    name = getattr(method, "name", type(method).__name__)
    found = fitting(
        lvlm, name, lambda: measured(method, lvlm, example, target=config.target, seed=config.seed)
    )
    return as_recorded(found, sample_id)


def as_recorded(found: Attribution, sample_id: str) -> Attribution:
    """The attribution of a sample, its map in a type that files hold."""
    saliency = None if found.saliency is None else as_stored(found.saliency)
    return replace(found, sample_id=sample_id, saliency=saliency)


def reason(error: Exception) -> str:
    """An error as one line of a table."""
    lines = str(error).strip().splitlines()
    return lines[0][:1000] if lines else type(error).__name__
