"""LVLMs by key.

`KEY@random` is a copy of an LVLM whose decoder was drawn at random with the seed 0, `KEY@random-7` with the
seed 7. A folder or a Hub id takes the place of the key as well. Other keys with `@` are second names that say
nothing of the LVLM (`data.truth.second_names`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medfocus_bench.data.derived import RANDOM
from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.data.truth import second_names
from medfocus_bench.engine.devices import AUTO, best_dtype
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.fine_tune import CONFIG, FineTune, fetched_fine_tune, fine_tune
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.lvlm.models import HUB_LVLMS, UNLOADABLE, HubModel
from medfocus_bench.lvlm.protocol import AUTO_BATCH

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

GROUP: Final = "medfocus_bench.lvlm_sources"
"""The entry point group by which a package ships LVLMs: a dict of checkpoint folders by key."""


_RANDOM = re.compile(rf"(?P<trained>.+){RANDOM}(?:-(?P<seed>[0-9]{{1,9}}))?")

_LAST: Final[dict[tuple[Any, ...], HuggingFaceLVLM]] = {}
"""The LVLM that was loaded last, under everything that decides what it is."""


@cache
def shipped_lvlms() -> dict[str, Path]:
    """The checkpoint folders that installed packages ship, by the key of the LVLM."""
    return {key: folder for entry in entry_points(group=GROUP) for key, folder in entry.load().items()}


def load_lvlm(
    source: str | Path,
    *,
    framing: Preprocessing = "square",
    device: str = AUTO,
    dtype: str = AUTO,
    attention: str = "sdpa",
    revision: str | None = None,
    batch: int = AUTO_BATCH,
    quantise: str | None = None,
    decoding: Decoding = GREEDY,
    pixels: tuple[int, int] | None = None,
) -> HuggingFaceLVLM:
    """Load an LVLM: a new one at every call, which the caller may change.

    Args:
        source: a key of `list_lvlms`, a local checkpoint folder, or a Hub id (`owner/name`); any of them
            with `@random` or `@random-SEED` for a copy whose decoder is drawn at random. A folder or Hub id
            may hold an adapter (PEFT) alone: it is merged into the base that it names.
        framing: `square` pads an image to the model frame first, `native` leaves it as it is.
        device: a torch device, such as `cpu`, `cuda` or `mps`; `auto` is the best that there is, and
            `auto-map` spreads the weights over all GPUs (with accelerate, of the extra `gpu`).
        dtype: `float32`, `bfloat16` or `float16`; `auto` is bfloat16 on a GPU that computes in it, and
            float32 elsewhere.
        attention: the attention implementation of transformers.
        revision: a tag or commit on the Hub; by default that of the registry, for the Hub id of a model as
            for its key.
        batch: the pictures that go through the model together, at most.
        quantise: `8bit` or `4bit` hold the weights of the blocks so, by bitsandbytes (of the extra `gpu`);
            methods that need gradients refuse such an LVLM.
        decoding: `greedy` writes the likeliest token at every step, whatever the checkpoint's generation
            config says; `checkpoint` applies the penalties of that config first, as the paper's code does.
        pixels: (min, max) that the processor makes of a picture, for families that take any size; by default
            what the checkpoint says, within the limits of its family (`Family.pixels`).

    Raises:
        InputError: for an unknown key, for a checkpoint that cannot be loaded, for a random decoder of
            quantised weights, and where the extra `attribution` (torch, transformers) is missing.

    >>> import medfocus_bench as mb
    >>> sample = mb.load_benchmark("phantom", split="direct").samples[0]
    >>> lvlm = mb.load_lvlm(sample.lvlm)
    >>> lvlm.generate(sample.image, sample.question).text
    'Yes.'
    """
    try:
        from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
        from medfocus_bench.lvlm.random_decoder import draw_decoder
    except ImportError as error:
        raise InputError(
            f"LVLMs need {error.name}: install the extra with pip install 'medfocus-bench[attribution]'"
        ) from None
    key, place = _located(source)
    _, seed = trained_source(source)
    if seed is not None and quantise is not None:
        raise InputError(f"{key}: the decoder of quantised weights cannot be drawn; leave out quantise")
    tune = _fine_tune(place, revision)
    if tune is not None:
        place, revision = base_of(tune), tune.revision
    known = _hub_model(place)
    if known is not None:
        revision = revision or known.revision
    lvlm = HuggingFaceLVLM(
        key,
        place,
        framing=framing,
        device=device,
        dtype=dtype,
        attention=attention,
        revision=revision,
        pixels=pixels,
        batch=batch,
        quantise=quantise,
        decoding=decoding,
        tune=tune,
    )
    if seed is not None:
        draw_decoder(lvlm.model, lvlm.decoder, seed, name=key)
    return lvlm


@dataclass(frozen=True, slots=True)
class LVLMSource:
    """Where a worker loads an LVLM from, and how; `options` are those of `load_lvlm`."""

    source: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, source: str | Path, **options: Any) -> LVLMSource:
        return cls(str(source), tuple(sorted(options.items())))

    @property
    def key(self) -> str:
        return lvlm_key(self.source)

    @property
    def decoding(self) -> Decoding:
        found: Decoding = dict(self.options).get("decoding", GREEDY)
        return found

    @property
    def dtype(self) -> str:
        options = {"device": AUTO, "dtype": AUTO, **dict(self.options)}
        return best_dtype(options["device"]) if options["dtype"] == AUTO else str(options["dtype"])

    def load(self) -> HuggingFaceLVLM:
        """As `kept_lvlm`: nobody may change it."""
        return kept_lvlm(self.source, **dict(self.options))


def kept_lvlm(source: str | Path, **options: Any) -> HuggingFaceLVLM:
    """As `load_lvlm`, for runs: the last one is kept, and is the same for the same arguments and files.

    Nobody may change it. It is loaded without the progress bars of transformers, which would break into that
    of the run.
    """
    place = _located(source)[1]
    tune = fine_tune(place)
    states = [_state(place), _state(place if tune is None else base_of(tune))]
    asked = (str(source), *states, *sorted(options.items()))
    if asked not in _LAST:
        _LAST.clear()  # before the next one is loaded, so that memory holds one
        with _without_bars():
            _LAST[asked] = load_lvlm(source, **options)
    return _LAST[asked]


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the progress bars of transformers, where that is installed (`load_lvlm` says so where not)."""
    try:
        from transformers.utils import logging
    except ImportError:
        yield
        return
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _state(folder: str | Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of the files of a local checkpoint; nothing for a Hub id."""
    if not Path(folder).is_dir():
        return ()
    found = ((path.name, path.stat()) for path in sorted(Path(folder).iterdir()) if path.is_file())
    return tuple((name, about.st_size, about.st_mtime_ns) for name, about in found)


def list_lvlms(pattern: str | None = None) -> list[str]:
    """The keys of the LVLMs that `load_lvlm` knows, sorted; those that match a shell pattern.

    Every key has copies with a random decoder (`KEY@random`), which are not listed; nor are second names.

    >>> from medfocus_bench import list_lvlms
    >>> list_lvlms("phantom_gemma*")
    ['phantom_gemma', 'phantom_gemma_twin']
    """
    return sorted(fnmatch.filter([*shipped_lvlms(), *HUB_LVLMS], pattern or "*"))


def check_lvlms(names: Iterable[str]) -> None:
    """Raise InputError for an unknown LVLM, and for a folder that is not a checkpoint."""
    for name in names:
        lvlm_key(name)


def lvlm_key(source: str | Path) -> str:
    """The key of the LVLM that `load_lvlm` loads from `source`, as samples name it.

    Raises InputError for an unknown one.
    """
    return _located(source)[0]


def model_type_of(source: str | Path) -> str | None:
    """The model type of an LVLM, where it is known before anything is fetched; None for other Hub ids.

    Raises InputError for an unknown LVLM.
    """
    place = _located(source)[1]
    tune = fine_tune(place)
    place = place if tune is None else base_of(tune)
    known = _hub_model(place)
    if known is not None:
        return known.family
    try:
        config = json.loads((Path(place) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    found = config.get("model_type") if isinstance(config, dict) else None
    return found if isinstance(found, str) else None


def trained_source(source: str | Path) -> tuple[str | Path, int | None]:
    """The source of the trained LVLM, and the seed of its decoder: None where that is the trained one.

    >>> trained_source("phantom_qwen@random")
    ('phantom_qwen', 0)
    """
    found = _RANDOM.fullmatch(str(source))
    if found is None or _is_checkpoint(source):
        return source, None
    return found["trained"], int(found["seed"] or 0)


def trained_key(key: str) -> str:
    """The key of the trained LVLM that an LVLM is a random copy or a second name of; else the key itself.

    Whatever was tuned for the one holds for the other.
    """
    trained = str(trained_source(key)[0])
    return second_names().get(trained, trained)


def _located(source: str | Path) -> tuple[str, str | Path]:
    """The key of an LVLM, and the folder or Hub id of its checkpoint."""
    trained, seed = trained_source(source)
    if seed is not None:
        if trained_source(trained)[1] is not None:
            raise InputError(f"{str(source)!r} asks for a random decoder twice; give {RANDOM} once")
        key, place = _located(trained)
        return f"{key}{RANDOM}" + (f"-{seed}" if seed else ""), place
    key = str(source)
    shipped = shipped_lvlms()
    if key in second_names():
        return key, _located(second_names()[key])[1]
    if key in shipped:
        return key, shipped[key]
    if key in HUB_LVLMS:
        return key, HUB_LVLMS[key].repository
    if _is_checkpoint(source):
        return _folder_key(Path(source)), Path(source)
    if not _is_hub_id(key):
        known = ", ".join([*shipped, *HUB_LVLMS])
        raise InputError(
            f"no LVLM {key!r}; there are {known}, or give a checkpoint folder or a Hub id; any of them with "
            f"{RANDOM} has a random decoder"
        )
    if key in UNLOADABLE:
        raise InputError(f"{key} cannot be loaded: {UNLOADABLE[key]}")
    return key.replace("/", "--"), key


def _folder_key(folder: Path) -> str:
    """The name of a folder, behind the key of its base where it holds an adapter."""
    tune, name = fine_tune(folder), folder.resolve().name
    return name if tune is None else f"{_base(tune)[0]}+{name}"


def _fine_tune(place: str | Path, revision: str | None) -> FineTune | None:
    """The adapter that a folder or a Hub id holds, if it does."""
    if isinstance(place, Path) or _hub_model(place) is not None:
        return fine_tune(place)
    return fetched_fine_tune(place, revision)


def base_of(tune: FineTune) -> str | Path:
    """The folder or Hub id of the LVLM that an adapter changes; raises InputError where it is not there."""
    return _base(tune)[1]


def _base(tune: FineTune) -> tuple[str, str | Path]:
    """The key of the LVLM that an adapter changes, and its folder or Hub id.

    Raises InputError for one that is not there, and for one that is an adapter itself.
    """
    written = f"{tune.folder / CONFIG}: base_model_name_or_path {tune.base!r}"
    if fine_tune(tune.base) is not None:
        raise InputError(f"{written} is an adapter itself: merge that one, save it and name what was saved")
    if trained_source(tune.base)[1] is not None:
        raise InputError(f"{written} has a random decoder; name the trained one")
    known = next((key for key, model in HUB_LVLMS.items() if model.repository == tune.base), tune.base)
    try:
        return _located(known)
    except InputError:
        raise InputError(
            f"{written} is neither a key of list_lvlms, nor a checkpoint folder that is here, nor a Hub id; "
            "write there where its base lies"
        ) from None


def _hub_model(place: str | Path) -> HubModel | None:
    """The entry of a Hub id, if it has one."""
    return next((model for model in HUB_LVLMS.values() if model.repository == place), None)


def _is_checkpoint(source: str | Path) -> bool:
    return any((Path(source) / name).is_file() for name in ("config.json", CONFIG))


def _is_hub_id(text: str) -> bool:
    owner, _, name = text.partition("/")
    return (
        bool(owner and name)
        and "/" not in name
        and "@" not in text
        and not text.startswith((".", "~"))
        and not Path(text).exists()
    )
