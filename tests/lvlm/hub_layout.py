"""Checkpoints in the layouts of the Hub, none of which is the one that the library writes today.

Files and their keys are as in `Qwen/Qwen2-VL-2B-Instruct`, `Qwen/Qwen2.5-VL-3B-Instruct`,
`Qwen/Qwen3-VL-4B-Instruct`, `google/gemma-3-4b-it`, `google/paligemma-3b-mix-224`,
`HuggingFaceM4/Idefics3-8B-Llama3`, `HuggingFaceTB/SmolVLM2-2.2B-Instruct`, `llava-hf/llava-1.5-7b-hf`,
`llava-hf/llava-v1.6-mistral-7b-hf`, `llava-hf/llava-onevision-qwen2-7b-ov-hf`, `OpenGVLab/InternVL3-8B-hf`
and `meta-llama/Llama-3.2-11B-Vision-Instruct`; sizes, tokens and weights are the tiny checkpoint's own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import AutoConfig

from medfocus_bench.lvlm.families import load_family

Layout = Literal[
    "published", "saved by 4.5x", "older names", "names of other classes", "template with the tokenizer"
]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_CLASSES = {
    "qwen2_vl": ("Qwen2VLImageProcessor", "Qwen2VLProcessor", "Qwen2Tokenizer"),
    "qwen2_5_vl": ("Qwen2VLImageProcessor", "Qwen2_5_VLProcessor", "Qwen2Tokenizer"),
    "qwen3_vl": ("Qwen2VLImageProcessor", "Qwen3VLProcessor", "Qwen2Tokenizer"),
    "gemma3": ("Gemma3ImageProcessor", "Gemma3Processor", "GemmaTokenizer"),
    "paligemma": ("SiglipImageProcessor", "PaliGemmaProcessor", "GemmaTokenizer"),
    "idefics3": ("Idefics3ImageProcessor", "Idefics3Processor", "PreTrainedTokenizerFast"),
    "mllama": ("MllamaImageProcessor", "MllamaProcessor", "PreTrainedTokenizerFast"),
    "smolvlm": ("SmolVLMImageProcessor", "SmolVLMProcessor", "PreTrainedTokenizerFast"),
    "llava": ("CLIPImageProcessor", "LlavaProcessor", "PreTrainedTokenizerFast"),
    "llava_next": ("LlavaNextImageProcessor", "LlavaNextProcessor", "PreTrainedTokenizerFast"),
    "llava_onevision": ("LlavaOnevisionImageProcessor", "LlavaOnevisionProcessor", "Qwen2Tokenizer"),
    "internvl": ("GotOcr2ImageProcessor", "InternVLProcessor", "Qwen2Tokenizer"),
}
_QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_GENERATION = {
    "qwen2_vl": {"do_sample": True, "top_k": 1, "temperature": 0.01},
    "qwen3_vl": {"do_sample": True, "top_p": 0.8, "top_k": 20, "temperature": 0.7},
    "qwen2_5_vl": {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.000001},
    "gemma3": {"cache_implementation": "hybrid", "do_sample": True, "top_k": 64, "top_p": 0.95},
}
_SETTINGS = {
    "gemma3": {"image_seq_length": 64},
    "idefics3": {"image_seq_len": 16},
    "smolvlm": {"image_seq_len": 16},
    "llava": {"image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 14}
    | {"vision_feature_select_strategy": "default"},
    "llava_next": {"image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 14}
    | {"vision_feature_select_strategy": "default"},
    "llava_onevision": {"image_token": "<image>", "num_image_tokens": 64, "video_token": "<video>"}
    | {"vision_aspect_ratio": "anyres_max_9", "vision_feature_select_strategy": "full"},
    "internvl": {"image_seq_length": 16},
}
"""The content of a `processor_config.json`; the others have none, nor had the LLaVAs for long."""
_LATER = ("llava", "llava_next", "llava_onevision")
_OF_A_TOKEN = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def lay_out(folder: Path, target: Path, layout: Layout) -> Path:
    """The checkpoint in `folder`, as the library saves it today, laid out anew as `target`."""
    target.mkdir()
    kind = AutoConfig.from_pretrained(folder).model_type
    processor = load_family(kind).processor(folder, {})
    shutil.copy(folder / "model.safetensors", target)
    shutil.copy(folder / "tokenizer.json", target)
    _write(target / "config.json", _config(folder, kind))
    generation = json.loads((folder / "generation_config.json").read_text())
    _write(target / "generation_config.json", generation | _GENERATION.get(kind, {}))
    pictures, whole, _ = _CLASSES[kind]
    names = {"processor_class": whole, "image_processor_type": pictures}
    if layout == "saved by 4.5x":
        names["image_processor_type"] += "Fast"
    if layout == "older names":
        names = {"image_processor_type": whole.replace("Processor", "ImageProcessor")}
    if layout == "names of other classes":
        names = {"processor_class": "CLIPProcessor", "image_processor_type": "CLIPImageProcessor"}
    _write(
        target / "preprocessor_config.json",
        _pictures(processor, kind, whole=layout == "saved by 4.5x") | names,
    )
    if kind in _SETTINGS and not (kind in _LATER and layout == "older names"):
        own = {name: value for name, value in names.items() if name == "processor_class"}
        _write(target / "processor_config.json", _SETTINGS[kind] | own)
    if kind in _QWEN and layout == "saved by 4.5x":
        video = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 14, "temporal_patch_size": 2}
        _write(target / "video_preprocessor_config.json", video)
    _tokenizer(folder, target, processor, kind, layout)
    return target


def _config(folder: Path, kind: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.50.0.dev0"
    if kind in _QWEN:
        # The rotation stood in two settings.
        text = config["text_config"]
        rope = text.pop("rope_parameters")
        config["vision_config"].pop("rope_parameters", None)
        text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    if kind in ("qwen2_vl", "qwen2_5_vl"):
        # The text's own settings stood at the top.
        text = config.pop("text_config")
        text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        del text["layer_types"], text["model_type"]
        config = text | config
    return config


def _pictures(processor: Any, kind: str, *, whole: bool) -> dict[str, Any]:
    """The settings of the image processor, most of them where its defaults are not written down."""
    pictures = processor.image_processor
    size = dict(pictures.size)
    mean_and_std = {"image_mean": list(pictures.image_mean), "image_std": list(pictures.image_std)}
    if kind in _QWEN:
        patches = {"patch_size": pictures.patch_size, "temporal_patch_size": 2, "merge_size": 2}
    if kind == "qwen3_vl":
        return {"size": {name: value for name, value in size.items() if value}} | patches | mean_and_std
    if kind in _QWEN and not whole:
        pixels = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        return pixels | patches | mean_and_std
    found = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255}
    found |= mean_and_std | {"resample": int(pictures.resample)}
    found["size"] = {name: value for name, value in size.items() if value is not None}
    found["do_convert_rgb"] = None if kind in ("gemma3", "paligemma") else True
    if kind in _QWEN:
        found |= patches | {"do_center_crop": None}
        found |= {"data_format": "channels_first", "default_to_square": True, "disable_grouping": None}
    if kind in ("gemma3", "paligemma"):
        found["image_seq_length"] = pictures.image_seq_length
    if kind == "gemma3":
        found |= {"do_pan_and_scan": None, "pan_and_scan_max_num_crops": None}
        found |= {"pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None}
    if kind in ("idefics3", "smolvlm"):
        longest = {"longest_edge": pictures.max_image_size["longest_edge"]}
        found |= {"do_image_splitting": True, "do_pad": True, "max_image_size": longest}
    if kind == "mllama":
        found |= {"do_pad": True, "max_image_tiles": pictures.max_image_tiles}
    if kind in ("llava", "llava_next"):
        found |= {"do_center_crop": True, "crop_size": dict(pictures.crop_size)}
    if kind in ("llava_next", "llava_onevision"):
        found |= {"do_pad": True, "image_grid_pinpoints": pictures.image_grid_pinpoints}
    if kind == "internvl":
        found |= {"crop_to_patches": False, "max_patches": 12, "min_patches": 1}
    return found


def _tokenizer(folder: Path, target: Path, processor: Any, kind: str, layout: Layout) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = processor.tokenizer
    config.pop("backend", None)
    config |= {
        "tokenizer_class": _CLASSES[kind][2],
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token): {name: getattr(added, name) for name in _OF_A_TOKEN}
            for token, added in tokenizer.added_tokens_decoder.items()
        },
    }
    if layout != "older names":
        config["processor_class"] = _CLASSES[kind][1]
    template = processor.chat_template
    if template:
        if layout == "template with the tokenizer":
            config["chat_template"] = template
        elif layout == "saved by 4.5x":
            (target / "chat_template.jinja").write_text(template)
        else:
            _write(target / "chat_template.json", {"chat_template": template})
            if kind != "idefics3":
                config["chat_template"] = template
    _write(target / "tokenizer_config.json", config)
    special = {
        name: getattr(tokenizer, name)
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if getattr(tokenizer, name) is not None
    }
    if kind not in _QWEN or layout == "saved by 4.5x":
        _write(target / "special_tokens_map.json", special)
    if kind in _QWEN:
        learnt = json.loads((folder / "tokenizer.json").read_text())["model"]
        _write(target / "vocab.json", learnt["vocab"])
        merges = [" ".join(merge) for merge in learnt["merges"]]
        (target / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
