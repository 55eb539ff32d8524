"""Where the weights of an LVLM lie, and in how many bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medfocus_bench.engine.devices import SPREAD
from medfocus_bench.errors import InputError


def placement(device: str, quantise: str | None, dtype: Any) -> dict[str, Any]:
    """The keywords of `from_pretrained` that place the weights; none where the model is moved afterwards.

    Weights are quantised while they are loaded, which has to happen on their device; 4 bits are "nf4".
    """
    options: dict[str, Any] = {"device_map": "auto"} if device == SPREAD else {}
    if quantise is not None:
        from transformers import BitsAndBytesConfig

        options.setdefault("device_map", {"": device})
        options["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)
            if quantise == "8bit"
            else BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        )
    return options


def check_placed(source: object, model: Any) -> None:
    """Raise InputError where accelerate found no room for some weights on the GPUs.

    It would fetch them for every pass from the machine's memory or disk.
    """
    places: Mapping[str, Any] = getattr(model, "hf_device_map", {})
    left = sorted(name for name, place in places.items() if str(place) in ("cpu", "disk"))
    if left and set(map(str, places.values())) != {"cpu"}:
        raise InputError(
            f"{source}: {len(left)} of its {len(places)} parts, such as {left[0]}, do not fit into the "
            "memory of the GPUs; give more of them, --dtype bfloat16, or --quantise 8bit or 4bit"
        )
