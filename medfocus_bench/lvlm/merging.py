"""Adding an adapter (PEFT) to the weights of the LVLM that it was trained on."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from medfocus_bench.errors import InputError, first_line, require
from medfocus_bench.lvlm.fine_tune import CONFIG, WEIGHTS, FineTune

_ADAPTER: Final = "default"
_UNFIT: Final = (
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError),
    re.error,  # of target_modules
)
"""How peft stumbles over a config."""
_BEFORE: Final = "base_model.model."
"""Where peft's names of weights begin; the model's own follow."""


def merged(model: Any, tune: FineTune) -> Any:
    """The model with the adapter's weights added to its own: as if the whole of it had been trained.

    Raises MissingExtraError where peft is not installed, and InputError for an adapter that cannot be merged,
    that does not fit the model (other modules, another rank, weights that are missing or not the model's),
    that changes embeddings which the model ties to its output head, or whose weights are not finite.
    """
    require("peft")
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    config_file, weights_file = tune.folder / CONFIG, tune.folder / WEIGHTS
    try:
        weights = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights_file}: cannot be read: {first_line(error)}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever peft warns of is an error below
        try:
            config = PeftConfig.from_pretrained(str(tune.folder))
            config.inference_mode = True
            if config.is_prompt_learning:
                raise InputError(
                    f"{config_file}: {config.peft_type.value} learns a prompt, which cannot be merged into "
                    "weights; adapters of weights such as LoRA can"
                )
            tied, weights = _tied(model), _renamed(weights, model)
            adapted = get_peft_model(model, config, adapter_name=_ADAPTER)
        except _UNFIT as error:
            raise InputError(f"{config_file}: does not fit {tune.base}: {first_line(error)}") from None
        _refuse_tied(adapted, tied, tune)
        try:
            found = set_peft_model_state_dict(adapted, weights, adapter_name=_ADAPTER)
        except (ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{weights_file}: does not fit {tune.base}: {reason}") from None
        missing = [name for name in found.missing_keys if f".{_ADAPTER}" in name]
        for names, said in ((found.unexpected_keys, "holds weights"), (missing, "lacks weights")):
            if names:
                raise InputError(
                    f"{weights_file}: {said}, such as {min(names)}, by which it does not fit {tune.base} and "
                    f"{CONFIG}; name the base that it was trained on there"
                )
        try:
            return adapted.merge_and_unload(safe_merge=True)
        except (ValueError, AttributeError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{tune.folder}: cannot be merged: {first_line(error)}") from None


def _renamed(weights: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Weights under the names of today, where an earlier version of transformers named a module otherwise.

    By the library's own renamings of checkpoints. peft applies those of some families.
    """
    modules = {name for name, _ in model.named_modules()}
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]

    def today(name: str) -> str:
        path = name.removeprefix(_BEFORE)
        if path.partition(".lora_")[0] in modules or path.rpartition(".")[0] in modules:
            return name
        for renaming in renamings:
            path, _ = renaming.rename_source_key(path)
        return _BEFORE + path

    return {today(name): weight for name, weight in weights.items()}


def _tied(model: Any) -> int | None:
    """The identity of the matrix that is both token embeddings and output head, if there is one."""
    weight = model.get_input_embeddings().weight
    return id(weight) if model.get_output_embeddings().weight is weight else None


def _refuse_tied(adapted: Any, tied: int | None, tune: FineTune) -> None:
    """Merged into one matrix, a change of the head would be one of the embeddings as well."""
    where = tune.folder / CONFIG
    for name, module in adapted.named_modules():
        base = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        if tied is not None and base is not None and id(getattr(base, "weight", None)) == tied:
            raise InputError(
                f"{where}: changes {name.removeprefix(_BEFORE)}, a matrix that is "
                f"embeddings and output head at once in {tune.base} (tied): it cannot be merged"
            )
