"""Loading a checkpoint of the transformers library, strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText

from medfocus_bench.data.hub.client import hub_if_it_answers
from medfocus_bench.data.questions import DECODINGS, GREEDY, Decoding
from medfocus_bench.engine.devices import AUTO, DTYPES, best_dtype, named_device, unusable
from medfocus_bench.errors import InputError, first_line
from medfocus_bench.lvlm.decoding import generation_config
from medfocus_bench.lvlm.families import Family, load_family
from medfocus_bench.lvlm.fine_tune import CONFIG, FineTune
from medfocus_bench.lvlm.merging import merged
from medfocus_bench.lvlm.placement import check_placed, placement
from medfocus_bench.lvlm.processors import remember_picture
from medfocus_bench.storage import check_fetched


def open_checkpoint(
    source: str | Path,
    *,
    device: str,
    dtype: str,
    attention: str,
    revision: str | None,
    pixels: tuple[int, int] | None,
    quantise: str | None = None,
    decoding: Decoding = GREEDY,
    tune: FineTune | None = None,
) -> tuple[Any, Any, Family]:
    """The model of a local folder or a Hub id, its processor and family; options as of `HuggingFaceLVLM`.

    With `tune` its weights are those with the adapter merged into them; all else is the base's.

    Device, dtype and family are checked before any weights are read. Raises InputError for one that is not
    there, for whatever the library stumbles over, for weights that are not there, and for a model whose
    pictures have no effect.
    """
    if dtype not in (AUTO, *DTYPES):
        raise InputError(f"no dtype {dtype!r}; there are {', '.join((AUTO, *DTYPES))}")
    if decoding not in DECODINGS:
        raise InputError(f"no decoding {decoding!r}; there are {', '.join(DECODINGS)}")
    reason = unusable(device, quantise)
    if reason is not None:
        raise InputError(f"device {device!r}: {reason}")
    device = named_device(device)
    weights = getattr(torch, best_dtype(device) if dtype == AUTO else dtype)
    placed = placement(device, quantise, weights)
    # Left unsaid, the library would ask on the terminal whether to run a repository's code.
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    with _loading(source, tune):
        config = AutoConfig.from_pretrained(source, **origin)
    family = load_family(config.model_type)
    _check_pixels(family, pixels)
    if tune is not None:
        _refuse_quantised(tune, quantise, config)
    with _loading(source, tune):
        model, info = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=weights,
            attn_implementation=attention,
            output_loading_info=True,
            **placed,
            **origin,
        )
        processor = family.processor(source, origin)
    # The library draws them at random, with a warning, and the model answers all the same.
    if info["missing_keys"]:
        raise InputError(
            f"{source}: lacks weights of the LVLM, such as {min(info['missing_keys'])}, as transformers "
            f"{transformers.__version__} names them; fetch it again, or install the newest transformers"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(f"{source}: holds an adapter that could not be fetched whole; try again")
    if tune is not None:
        model = merged(model, tune)
    if family.pixels is not None:
        own = processor.image_processor.size
        if pixels is None and None in (own["shortest_edge"], own["longest_edge"]):
            raise InputError(
                f"{source}: its image processor has no shortest_edge and longest_edge, the least and most "
                "pixels of a picture: mend preprocessor_config.json, or give pixels"
            )
        least, most = pixels or within(family.pixels, own)
        processor.image_processor.size = {"shortest_edge": least, "longest_edge": most}
    _check_generation(Path(source) / "generation_config.json")
    model.generation_config = generation_config(model.generation_config, decoding)
    check_placed(source, model)
    remember_picture(processor.image_processor)
    family.prepare(model)
    blind = _zero_weight(model, family.decoder(model))
    if blind is not None:
        raise InputError(f"{source}: {blind} is zero everywhere, so no picture has an effect: train it")
    model = model.eval().requires_grad_(False)
    return model if "device_map" in placed else model.to(device), processor, family


def _check_generation(path: Path) -> None:
    """Raise InputError for a file that cannot be read: the library leaves it, and its end tokens, out."""
    if not path.is_file():
        return
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from None


def _check_pixels(family: Family, given: tuple[int, int] | None) -> None:
    if given is None:
        return
    if family.pixels is None:
        raise InputError(
            f"pixels {given[0]},{given[1]}: models of type {family.model_type} make one size of every "
            "picture; leave the limits out"
        )
    if not 0 < given[0] <= given[1]:
        raise InputError(f"pixels {given[0]},{given[1]}: give the least and the most pixels of a picture")


def within(limits: tuple[int, int], own: Any) -> tuple[int, int]:
    """The least and the most pixels of a checkpoint's pictures, no wider than the limits of its family."""
    least, most = limits
    most = min(own["longest_edge"], most)
    return min(max(own["shortest_edge"], least), most), most


@contextmanager
def _loading(source: str | Path, tune: FineTune | None) -> Iterator[None]:
    """Turn every exception of the library into InputError: the checkpoint is at fault."""
    named = source if tune is None else f"{tune.folder / CONFIG}: the base {source}"
    try:
        with hub_if_it_answers(source):
            yield
    except Exception as error:
        check_fetched(Path(source))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{named}: cannot be loaded as an LVLM: {reason}") from None


def _refuse_quantised(tune: FineTune, quantise: str | None, config: Any) -> None:
    """Raise InputError where an adapter would be merged into weights of a few bits."""
    if quantise is not None:
        raise InputError(
            f"{tune.folder}: an adapter is merged into whole weights; leave out quantise, or save the merged "
            "model (lvlm.model.save_pretrained) and quantise that"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"{tune.folder / CONFIG}: the base {tune.base} has quantised weights; name the same LVLM with "
            "whole weights there"
        )


def _zero_weight(model: Any, decoder: Any) -> str | None:
    """Name of an all-zero matrix before the decoder, such as Gemma 3's untrained projector."""
    text = {id(weight) for part in (decoder, model.get_output_embeddings()) for weight in part.parameters()}
    before = ((name, weight) for name, weight in model.named_parameters() if id(weight) not in text)
    return next((name for name, weight in before if weight.ndim > 1 and not weight.any()), None)
