"""Tiny checkpoints with random weights: real transformers classes, processors and tokenizers, from config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    SiglipImageProcessorPil,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from medfocus_bench.lvlm.families.internvl import InternVL, InternVLOfImages
from medfocus_bench.lvlm.families.llava_onevision import LlavaOnevisionBaseView
from medfocus_bench.lvlm.families.qwen import QwenVL
from medfocus_bench.lvlm.processors import Qwen2VLPictureProcessor, Qwen3VLPictureProcessor
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.training.checkpoints import untrained
from medfocus_bench.phantom.training.corpus import corpus

SIDE, PATCH = 112, 14

_WIDTH, _LAYERS = 64, 3
_TEXT = {"hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_hidden_layers": _LAYERS}
_TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION |= {"image_size": SIDE, "patch_size": PATCH}
_IDEFICS3_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
]
_IDEFICS3_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
    " {{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_MLLAMA_SPECIAL = [
    "<|begin_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|python_tag|>",
    "<|image|>",
]
_MLLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>"
    "\n\n{% for part in message['content'] %}{% if part['type'] == 'image' %}<|image|>{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


_LLAVA_SPECIAL = ["<s>", "<pad>", "</s>", "<image>"]
_LLAVA_TEMPLATE = (
    "<s>{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_LLAVA_NEXT_TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST] {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %} [/INST]{% else %}</s>{% endif %}{% endfor %}"
)
_CUT = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
_TILES = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def _chatml(image: str) -> str:
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + image + "\n{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def save_qwen(folder: Path) -> Path:
    """The phantom track's Qwen2.5-VL at half its width and depth."""
    parts = untrained("qwen", 0)
    config = parts.model.config
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = _WIDTH, 2 * _WIDTH, 2
    text.layer_types = text.layer_types[:2]
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [2, 3, 3]}
    vision.hidden_size, vision.intermediate_size, vision.depth, vision.num_heads = 32, 64, 2, 2
    vision.out_hidden_size, vision.fullatt_block_indexes = _WIDTH, [1]
    model = _built(Qwen2_5_VLForConditionalGeneration, config, parts.model.generation_config)
    return _saved(folder, model, parts.processor)


def save_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL, with a seed by which some darkened patch makes "Yes." less likely."""
    vision = {"embed_dim": 32, "hidden_size": _WIDTH, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    parts = _qwen_parts(2, [2, 3, 3], vision)
    processor = Qwen2VLPictureProcessor(
        Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=224 * 224), parts.tokenizer, parts.template
    )
    config = Qwen2VLConfig(**parts.config)
    model = _built(Qwen2VLForConditionalGeneration, config, parts.generation, seed=2)
    return _saved(folder, model, processor)


def save_qwen3_vl(folder: Path, *, seed: int = 0, deepstack: Sequence[int] = (0, 1)) -> Path:
    """Qwen3-VL: two features of the picture enter after the first blocks, of three."""
    return _save_qwen3_vl(folder, Qwen3VLForConditionalGeneration, Qwen3VLConfig, seed, deepstack)


def save_qwen3_vl_moe(folder: Path) -> Path:
    """The same with four experts a block, two of which see a token."""
    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    kind = Qwen3VLMoeForConditionalGeneration
    return _save_qwen3_vl(folder, kind, Qwen3VLMoeConfig, 0, (0, 1), **experts)


def _save_qwen3_vl(
    folder: Path, kind: Any, settings: Any, seed: int, deepstack: Sequence[int], **text: Any
) -> Path:
    vision = {"hidden_size": 32, "out_hidden_size": _WIDTH, "depth": 3, "num_heads": 2}
    vision |= {"intermediate_size": 64, "patch_size": 16, "num_position_embeddings": 64}
    parts = _qwen_parts(
        _LAYERS, [4, 2, 2], vision | {"deepstack_visual_indexes": list(deepstack)}, mrope_interleaved=True
    )
    half = [0.5, 0.5, 0.5]
    size = {"shortest_edge": 64 * 64, "longest_edge": 224 * 224}
    pictures = Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=half, image_std=half)
    processor = Qwen3VLPictureProcessor(pictures, parts.tokenizer, parts.template)
    parts.config["text_config"] |= {"head_dim": _WIDTH // 4, **text}
    model = _built(kind, settings(**parts.config), parts.generation, seed=seed)
    return _saved(folder, model, processor)


class _QwenParts(NamedTuple):
    tokenizer: Any
    template: str
    config: dict[str, Any]
    generation: GenerationConfig


def _qwen_parts(layers: int, sections: list[int], vision: dict[str, Any], **rope: Any) -> _QwenParts:
    """The common part of the tiny checkpoints of the Qwen-VL line, weights untied."""
    parts = untrained("qwen", 0)
    tokenizer = parts.processor.tokenizer
    marks = {"extra_special_tokens": list(QwenVL.markup)}
    tokenizer.add_special_tokens(marks, replace_extra_special_tokens=False)
    rope |= {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    text = _TEXT | {"vocab_size": len(tokenizer), "num_hidden_layers": layers, "rope_parameters": rope}
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    text |= {name: getattr(parts.model.config.text_config, name) for name in ends}
    text |= {"max_position_embeddings": 4096}
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = {name: getattr(parts.model.config, name) for name in ids}
    config |= {"text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    return _QwenParts(tokenizer, parts.processor.chat_template, config, parts.model.generation_config)


def save_overflowing(folder: Path) -> Path:
    """The phantom track's Qwen2.5-VL with hidden states beyond float16's range; other types answer as before.

    All that the blocks add to the residual stream is larger by a factor that every norm takes out again.
    """
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if name == "model.embed_tokens.weight" or name.endswith(("merger.mlp.2.weight", "merger.mlp.2.bias")):
            weights[name] = values * 2.0**13
        if name.startswith("model.layers.") and name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = values * 2.0**13
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_gemma(folder: Path, *, vocabulary: int | None = None, projector: float = 0.1) -> Path:
    """The phantom track's Gemma 3, with another vocabulary; `projector` scales the image's way in."""
    parts = untrained("gemma", 0)
    config = parts.model.config
    config.text_config.vocab_size = vocabulary or config.text_config.vocab_size
    model = _built(Gemma3ForConditionalGeneration, config, parts.model.generation_config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=projector)
    return _saved(folder, model, parts.processor)


def save_paligemma(folder: Path) -> Path:
    tokenizer = GemmaTokenizer(
        **_sentence_pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<image>"], "\n"),
        extra_special_tokens={"image_token": "<image>"},
    )
    image_processor = SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_seq_length=(SIDE // PATCH) ** 2
    )
    processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = PaliGemmaConfig(
        text_config=_TEXT
        | {"model_type": "gemma", "vocab_size": len(tokenizer), "head_dim": _WIDTH // 4}
        | ids,
        vision_config=_VISION
        | {"model_type": "siglip_vision_model", "projection_dim": _WIDTH, "vision_use_head": False},
        projection_dim=_WIDTH,
        tie_word_embeddings=False,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _saved(
        folder, _built(PaliGemmaForConditionalGeneration, config, GenerationConfig(**ids)), processor
    )


def save_idefics3(folder: Path) -> Path:
    return _save_idefics3(folder, Idefics3ForConditionalGeneration, Idefics3Config, Idefics3ImageProcessorPil)


def save_smolvlm(folder: Path) -> Path:
    return _save_idefics3(folder, SmolVLMForConditionalGeneration, SmolVLMConfig, SmolVLMImageProcessorPil)


def _save_idefics3(folder: Path, kind: Any, settings: Any, pictures: Any) -> Path:
    tokenizer = _byte_level(_IDEFICS3_SPECIAL, ["User:", "Assistant:"])
    blocks = SIDE // PATCH // 2
    processor = Idefics3Processor(
        image_processor=pictures(size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer=tokenizer,
        image_seq_len=blocks**2,
        chat_template=_IDEFICS3_TEMPLATE,
    )
    ids = _ids(tokenizer)
    config = settings(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **_TEXT, **ids},
        vision_config=_VISION,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _saved(folder, _built(kind, config, GenerationConfig(**ids)), processor)


def save_llava(
    folder: Path,
    *,
    text: str = "llama",
    tower: str = "clip_vision_model",
    tokenizer: Any = None,
    **options: Any,
) -> Path:
    """LLaVA 1.5, perhaps with another decoder, vision tower or tokenizer; `options` go to its config."""
    tokenizer = tokenizer or _byte_level(_LLAVA_SPECIAL, ["USER:", "ASSISTANT:"])
    pictures: Any = CLIPImageProcessorPil(**_CUT)
    if tower == "siglip_vision_model":
        pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    config = LlavaConfig(**_llava_parts(tokenizer, text, tower), image_seq_length=64, **options)
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=_LLAVA_TEMPLATE,
        num_additional_image_tokens=int(tower == "clip_vision_model"),
    )
    generation = GenerationConfig(**_ids(tokenizer))
    return _saved(folder, _built(LlavaForConditionalGeneration, config, generation), processor)


def save_llava_next(folder: Path, **options: Any) -> Path:
    """LLaVA-NeXT with Mistral as its decoder; `options` go to its config."""
    tokenizer = _byte_level(_LLAVA_SPECIAL, ["[INST]", "[/INST]"])
    parts = _llava_parts(tokenizer, "mistral", "clip_vision_model")
    config = LlavaNextConfig(**parts, image_grid_pinpoints=_TILES, **options)
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(**_CUT, image_grid_pinpoints=_TILES),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=_LLAVA_NEXT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    generation = GenerationConfig(**_ids(tokenizer))
    return _saved(folder, _built(LlavaNextForConditionalGeneration, config, generation), processor)


def save_llava_onevision(folder: Path) -> Path:
    tokenizer = _qwen_tokenizer({"image_token": "<image>", "video_token": "<video>"})
    parts = _llava_parts(tokenizer, "qwen2", "siglip_vision_model")
    video = tokenizer.convert_tokens_to_ids("<video>")
    config = LlavaOnevisionConfig(**parts, video_token_index=video, image_grid_pinpoints=_TILES)
    processor = LlavaOnevisionBaseView(
        LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=_TILES),
        tokenizer,
        chat_template=_chatml("<image>"),
    )
    processor.num_image_tokens = (SIDE // PATCH) ** 2
    generation = GenerationConfig(**_ids(tokenizer))
    return _saved(folder, _built(LlavaOnevisionForConditionalGeneration, config, generation), processor)


def save_internvl(folder: Path) -> Path:
    roles = {"start_image_token": "<img>", "end_image_token": "</img>"}
    roles |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = _qwen_tokenizer(roles, InternVL.markup)
    blocks = (SIDE // PATCH // 2) ** 2
    processor = InternVLOfImages(
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        image_seq_length=blocks,
        chat_template=_chatml("<IMG_CONTEXT>"),
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **_TEXT, **_ids(tokenizer)},
        vision_config=_VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=blocks,
        tie_word_embeddings=False,
    )
    model = _built(InternVLForConditionalGeneration, config, GenerationConfig(**_ids(tokenizer)))
    drawn = model.model.vision_tower.embeddings
    for weight in (drawn.cls_token, drawn.position_embeddings):  # zero as the library draws them
        torch.nn.init.normal_(weight, std=0.02)
    return _saved(folder, model, processor)


def _llava_parts(tokenizer: Any, text: str, tower: str) -> dict[str, Any]:
    """The part of a config that all LLaVAs have."""
    vision = _VISION | {"model_type": tower}
    if tower == "siglip_vision_model":
        vision |= {"vision_use_head": False}
    return {
        "text_config": {"model_type": text, "vocab_size": len(tokenizer), **_TEXT, **_ids(tokenizer)},
        "vision_config": vision,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }


def _qwen_tokenizer(roles: dict[str, str], markup: Sequence[str] = ()) -> Qwen2Tokenizer:
    """The tokenizer of Qwen 2 with further special tokens, some by the names that a processor asks for."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *roles.values(), *markup]
    learnt = json.loads(_byte_pairs(special, ["user", "assistant"]).to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=roles,
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", *markup)])
    return tokenizer


def _byte_pairs(special: list[str], words: list[str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    _train(trained, [*corpus(), *words * 50], special)
    return trained


def save_mllama(folder: Path) -> Path:
    tokenizer = _byte_level(_MLLAMA_SPECIAL, ["user", "assistant"])
    processor = MllamaProcessor(
        image_processor=MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        chat_template=_MLLAMA_TEMPLATE,
    )
    ids = _ids(tokenizer)
    vision = {name: size for name, size in _VISION.items() if name != "num_attention_heads"}
    config = MllamaConfig(
        text_config=_TEXT
        | {"vocab_size": len(tokenizer), "cross_attention_layers": [1], "max_position_embeddings": 4096}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
        | ids,
        vision_config=vision
        | {"attention_heads": 2, "num_global_layers": 1, "intermediate_layers_indices": [0]}
        | {"vision_output_dim": 2 * _VISION["hidden_size"]},
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    model = _built(MllamaForConditionalGeneration, config, GenerationConfig(**ids))
    block = model.model.language_model.layers[1]
    for gate in (block.cross_attn_attn_gate, block.cross_attn_mlp_gate):
        torch.nn.init.ones_(gate)  # drawn as zeros: the picture would have no effect
    return _saved(folder, model, processor)


def llama_tokenizer() -> LlamaTokenizer:
    """LLaMA's, which sets a space before every text and takes it away from what it decodes."""
    return LlamaTokenizer(
        **_sentence_pieces(["<unk>", "<s>", "</s>", "<image>", "<pad>"], "\u2581"),
        pad_token="<pad>",
        add_bos_token=True,
        extra_special_tokens={"image_token": "<image>"},
    )


def _sentence_pieces(special: list[str], *further: str) -> dict[str, Any]:
    """Vocabulary and merges that spell a space as sentencepiece does, with a token for each byte."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\u2581", "merged_with_next"), pre_tokenizers.Punctuation()]
    )
    texts = [text.replace(" ", "\u2581") for text in corpus()]
    _train(trained, texts, [*special, *(f"<0x{n:02X}>" for n in range(256)), *further])
    learnt = json.loads(trained.to_str())["model"]
    return {"vocab": learnt["vocab"], "merges": [tuple(merge) for merge in learnt["merges"]]}


def _byte_level(special: list[str], words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that starts with the first of `special`, pads with the second and ends with the third."""
    trained = _byte_pairs(special, words)
    start, pad, end = special[:3]
    trained.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token=start, eos_token=end, pad_token=pad)


def _ids(tokenizer: Any) -> dict[str, int]:
    """The ids of a tokenizer's roles, as configs name them."""
    names = (f"{role}_token_id" for role in ("pad", "eos", "bos"))
    found = ((name, getattr(tokenizer, name)) for name in names)
    return {name: value for name, value in found if value is not None}


def _train(tokenizer: Tokenizer, texts: list[str], special: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def _built(kind: Any, config: Any, generation: GenerationConfig, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = kind(config)
    model.generation_config = generation
    return model


def _saved(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
